package compose

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The outside world of a test is a network namespace beside Docker's networks,
// joined to this machine by a pair of addresses for documentation (RFC 5737)
// that this machine does not use itself.
const (
	outsideName = "sluiceoutside"
	outsidePort = "8080"
)

// pair is two addresses of one link, without its length, 30.
func pair() (host, outside string, err error) {
	used, err := net.InterfaceAddrs()
	if err != nil {
		return "", "", err
	}
	for _, network := range []string{"192.0.2.", "198.51.100.", "203.0.113."} {
		outside = network + "2"
		if !slices.ContainsFunc(used, func(a net.Addr) bool {
			own, ok := a.(*net.IPNet)
			return ok && own.Contains(net.ParseIP(outside))
		}) {
			return network + "1", outside, nil
		}
	}
	return "", "", errors.New("this machine uses every network for documentation")
}

// Outside starts a listener in the outside world and returns its address: what
// a container reaches only if its network has a way out. It needs the rights
// to make network namespaces. The function ends it.
func Outside(ctx context.Context) (address string, end func(), err error) {
	hostEnd, outsideEnd, err := pair()
	if err != nil {
		return "", nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", nil, err
	}
	root, err := Root()
	if err != nil {
		return "", nil, err
	}
	binary := filepath.Join(cache, "client")
	if err := buildClient(ctx, root, binary); err != nil {
		return "", nil, err
	}
	remove := func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, _ = run(exec.CommandContext(bounded, "ip", "netns", "del", outsideName)) // the pair goes with it
	}
	remove() // of a run that was killed
	for _, line := range []string{
		"netns add " + outsideName,
		"link add sluice0 type veth peer name sluice1 netns " + outsideName,
		"address add " + hostEnd + "/30 dev sluice0",
		"link set sluice0 up",
		"-n " + outsideName + " address add " + outsideEnd + "/30 dev sluice1",
		"-n " + outsideName + " link set sluice1 up",
		"-n " + outsideName + " route add default via " + hostEnd,
	} {
		if _, err := run(exec.CommandContext(ctx, "ip", strings.Fields(line)...)); err != nil {
			remove()
			return "", nil, err
		}
	}
	serve := exec.CommandContext(ctx, "ip", "netns", "exec", outsideName, binary, "serve", outsideEnd+":"+outsidePort)
	serve.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := serve.StdoutPipe()
	if err == nil {
		err = serve.Start()
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	end = func() {
		_ = serve.Process.Kill()
		_ = serve.Wait()
		remove()
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listening\n" {
		end()
		return "", nil, errors.Join(err, fmt.Errorf("the listener outside says %q", line))
	}
	return outsideEnd + ":" + outsidePort, end, nil
}
