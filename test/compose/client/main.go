// Command client is what the tests of the stack run in a container: a peer on
// one of its networks.
//
//	client dial HOST:PORT...           each with open, refused, silent or unknown
//	client get URL [NAME: VALUE]...    the answer as JSON
//	client post URL BODY               likewise; the body is JSON
//	client serve HOST:PORT             accepts connections, until it is ended
package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("usage: client dial|get|post|serve WORDS"))
	}
	switch words := os.Args[2:]; {
	case os.Args[1] == "dial":
		dial(words)
	case os.Args[1] == "get" && len(words) > 0:
		ask("GET", words[0], "", words[1:])
	case os.Args[1] == "post" && len(words) > 1:
		ask("POST", words[0], words[1], append(words[2:], "Content-Type: application/json"))
	case os.Args[1] == "serve" && len(words) > 0:
		serve(words[0])
	default:
		fail(fmt.Errorf("unknown %q", os.Args[1:]))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "client:", err)
	os.Exit(1)
}

// dial tries every address at once and prints them in the order given.
func dial(addresses []string) {
	found := make([]string, len(addresses))
	var wait sync.WaitGroup
	for i, address := range addresses {
		wait.Go(func() {
			connection, err := net.DialTimeout("tcp", address, 2*time.Second)
			var timeout net.Error
			var dns *net.DNSError
			switch {
			case err == nil:
				connection.Close()
				found[i] = "open"
			case errors.As(err, &dns):
				found[i] = "unknown"
			case errors.Is(err, syscall.ECONNREFUSED):
				found[i] = "refused"
			case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
				found[i] = "silent"
			default:
				found[i] = err.Error()
			}
		})
	}
	wait.Wait()
	for i, address := range addresses {
		fmt.Println(address, found[i])
	}
}

func ask(method, url, body string, headers []string) {
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		fail(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ":")
		request.Header.Add(name, strings.TrimSpace(value))
	}
	client := http.Client{Timeout: 10 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, // the stack signs its certificate itself
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		fail(err)
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	if err != nil {
		fail(err)
	}
	own := ""
	if addresses, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addresses {
			if network, ok := a.(*net.IPNet); ok && !network.IP.IsLoopback() && network.IP.To4() != nil {
				own = network.IP.String()
			}
		}
	}
	answer := map[string]any{"status": response.StatusCode, "header": response.Header, "body": string(read), "address": own}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		fail(err)
	}
}

// serve accepts connections and says nothing.
func serve(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fail(err)
	}
	fmt.Println("listening")
	for {
		connection, err := listener.Accept()
		if err != nil {
			fail(err)
		}
		connection.Close()
	}
}
