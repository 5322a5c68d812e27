// Command chart writes the archive of a chart as a release has it:
//
//	go run ./rendering/chart -version=0.1.0 -time=1767225600 ../deploy/helm/sluice ../dist
//
// It stands in this module because Helm does, which nothing that we ship needs.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/sluice-gateway/sluice/test/rendering"
)

func main() {
	version := flag.String("version", "", "of the chart; with a v before it, tag of the images")
	seconds := flag.Int64("time", 0, "of every file in the archive, in seconds since 1970")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "name the chart's folder, and the one that the archive is for")
		os.Exit(2)
	}
	if _, err := rendering.Package(flag.Arg(0), *version, time.Unix(*seconds, 0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
