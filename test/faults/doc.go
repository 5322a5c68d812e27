// Package faults breaks Redis in every way that can be thought of, under
// gateways that run the real plugin, and measures what their clients feel.
//
//	gateway.go   a gateway: a process of its own with the plugin compiled in,
//	             since a process is what an instance is (plugin/shared.go)
//	traffic.go   its clients, who write down every request
//	proxy.go     the way from a gateway to Redis; it knows every command and
//	             reply, and delays, cuts, answers or falsifies what a fault says
//	bed.go       gateways, proxies and the redis-server behind them
//	topology.go  the same over Sentinel and over a Cluster
//	kinds.go     the faults
//	cell.go      one fault in one state, measured
//	overload.go  more clients than the machine can serve
//	comeback.go  a Redis that is back, and ten thousands of keys to report
//	parallel.go  a stampede on a fresh key
//	flood.go     millions of keys while Redis is away
//	hotkey.go    what one key at full speed costs
//	reload.go    a thousand configurations, one after the other
//	report.go    RESULTS.md
//
// The tests of this package run a short form of all this and demand what does
// not depend on the machine. The whole, with times, writes RESULTS.md:
//
//	cd test && go test ./faults -run '^TestCampaign$' -timeout 90m -campaign
package faults
