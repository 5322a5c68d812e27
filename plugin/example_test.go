package plugin_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/alicebob/miniredis/v2"

	"github.com/sluice-gateway/sluice/plugin"
	"github.com/sluice-gateway/sluice/plugin/config"
)

// Two requests a minute for everybody together; any Redis counts them.
func ExampleNew() {
	redis := miniredis.NewMiniRedis()
	if err := redis.Start(); err != nil {
		panic(err)
	}
	defer redis.Close()

	written := plugin.CreateConfig()
	written.Redis = []config.Redis{{Addresses: []string{redis.Addr()}, Timeout: "5s", MaxWait: "5s"}}
	written.Limits = []config.Limit{{Name: "all", Key: "global", Limit: "2", Window: "60s"}}
	service := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	gate, err := plugin.New(context.Background(), service, written, "gate")
	if err != nil {
		panic(err)
	}
	for range 3 {
		answer := httptest.NewRecorder()
		gate.ServeHTTP(answer, httptest.NewRequest("GET", "http://example.com/", nil))
		fmt.Println(answer.Code, answer.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// 200 "all";q=2;w=60
	// 200 "all";q=2;w=60
	// 429 "all";q=2;w=60
}
