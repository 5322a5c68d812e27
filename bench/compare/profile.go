package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// profile keeps each chain busy and saves what its Traefik spends its time on.
func (b *bed) profile(ctx context.Context, length time.Duration, progress io.Writer) error {
	for _, c := range b.chains {
		if c.gateway == nginx {
			continue
		}
		saved := make(chan error, 1)
		go func() {
			time.Sleep(2 * time.Second) // the load has begun by then; a profile is no measurement
			saved <- b.saveProfile(ctx, c, length)
		}()
		if _, err := b.closedLoop(ctx, c, int(length.Seconds())+3); err != nil {
			return err
		}
		if err := <-saved; err != nil {
			return err
		}
		fmt.Fprintln(progress, c.name+".prof")
	}
	return nil
}

func (b *bed) saveProfile(ctx context.Context, c chain, length time.Duration) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/debug/pprof/profile?seconds=%.0f", b.metrics[c.gateway], length.Seconds()), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	file, err := os.Create(c.name + ".prof")
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, response.Body); err != nil {
		return err
	}
	return file.Close()
}
