package config_test

import (
	"fmt"

	"github.com/sluice-gateway/sluice/plugin/config"
)

func ExampleConfig_Problems() {
	written := config.Config{
		Redis:  []config.Redis{{Addresses: []string{"redis:6379"}}},
		Limits: []config.Limit{{Name: "per-user", Key: "user", Limit: "many", Window: "60"}},
	}
	for _, problem := range written.Problems() {
		fmt.Println(problem)
	}
	// Output:
	// limits[0].window: "60": has no unit; write 60s
	// limits[0].limit: "many": write a whole number from 1 to 1000000000000
}
