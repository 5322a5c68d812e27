// Command authsvc serves the identity of bearer tokens and operates on them.
package main

import (
	"os"

	"github.com/sluice-gateway/sluice/authsvc"
)

func main() { os.Exit(authsvc.Main(os.Args[1:])) }
