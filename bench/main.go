// Command bench measures Sluice beside what it replaces.
//
//	go run ./bench accuracy    how exact the limits are: bench/ACCURACY.md
package main

import (
	"fmt"
	"os"

	"github.com/sluice-gateway/sluice/bench/accuracy"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "accuracy" {
		accuracy.Main(os.Args[2:])
	}
	fmt.Fprintln(os.Stderr, "usage: bench accuracy [--seed=1] [--output=bench/ACCURACY.md] [--trace=FILE]")
	os.Exit(2)
}
