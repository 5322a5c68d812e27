package stack

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// placement is what differs between the shipped static configuration of the
// containers and that of a process here. Static configuration knows neither
// templates nor a second source beside the file, so the file is rewritten; the
// plugin's source needs no word, since it lies in ./plugins-local of the
// process's folder, where the shipped file looks for it (design: static-file).
type placement struct {
	addresses map[string]string // of every entry point in the file
	balancer  []string          // CIDRs believed where the file believes the balancer; none: nobody
	dynamic   string            // the file provider's file
	fastProxy bool              // experimental.fastProxy, which the file leaves out
}

// apply returns the static configuration for this placement. It fails if the
// file and the placement disagree about which entry points there are, so that
// none is ever opened at the containers' address.
func (p placement) apply(shipped []byte) ([]byte, error) {
	var tree map[string]any
	if err := yaml.Unmarshal(shipped, &tree); err != nil {
		return nil, fmt.Errorf("static configuration: %w", err)
	}
	points, ok := tree["entryPoints"].(map[string]any)
	if !ok || len(points) != len(p.addresses) {
		return nil, fmt.Errorf("static configuration: %d entry points, %d addresses for them", len(points), len(p.addresses))
	}
	for name, value := range points {
		point, isMap := value.(map[string]any)
		address, known := p.addresses[name]
		if !isMap || !known {
			return nil, fmt.Errorf("static configuration: no address for the entry point %q", name)
		}
		point["address"] = address
		if _, believes := point["proxyProtocol"]; !believes {
			continue
		}
		delete(point, "proxyProtocol")
		if len(p.balancer) > 0 {
			point["proxyProtocol"] = map[string]any{"trustedIPs": p.balancer}
		}
	}
	providers, _ := tree["providers"].(map[string]any)
	file, ok := providers["file"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("static configuration: no file provider")
	}
	file["filename"] = p.dynamic
	if p.fastProxy {
		experimental, ok := tree["experimental"].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("static configuration: no experimental section")
		}
		experimental["fastProxy"] = map[string]any{}
	}

	var out bytes.Buffer
	out.WriteString("# Derived by sluice from the shipped file of this name.\n")
	if err := yaml.NewEncoder(&out).Encode(tree); err != nil {
		return nil, fmt.Errorf("static configuration: %w", err)
	}
	return out.Bytes(), nil
}
