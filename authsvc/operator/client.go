package operator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/traefik/paerser/flag"
	"github.com/traefik/paerser/parser"

	"github.com/sluice-gateway/sluice/authsvc/admin"
	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
)

// The operator's commands are a client of a running authsvc's admin listener.
// Beside or inside the service's container they need no option: address and
// secret are found where the service itself finds them, in its configuration
// file, its AUTHSVC_* variables and its key folder.

// Operator are the options of every operator command. Exported, because
// paerser passes over what is not.
type Operator struct {
	Server         string        `description:"URL of the admin listener. Without it: adminListen of the service's configuration on this machine."`
	AdminToken     string        `description:"Admin token. Without it: that of the service's configuration."`
	AdminTokenFile string        `description:"File with the admin token."`
	Output         string        `description:"text or json."`
	Timeout        time.Duration `description:"Time for the answer."`
}

// tokenOptions are those of `token issue`.
type tokenOptions struct {
	Operator
	TTL    string            `description:"Life of the access token, such as 15m. Without it: own.ttl."`
	Claims map[string]string `description:"Further claims, by name."`
}

func newOptions(p *Program) *Operator { o := p.defaults(); return &o }

func newTokenOptions(p *Program) *tokenOptions { return &tokenOptions{Operator: p.defaults()} }

// defaults looks into the service's configuration, which may be elsewhere, or
// not be ours to judge: without it the usual port is tried. An admin token
// that stands in the configuration itself is kept apart, or --help would print
// it as a default.
func (p *Program) defaults() Operator {
	o := Operator{Output: "text", Timeout: 5 * time.Second, Server: "http://127.0.0.1:9001"}
	if p.service == nil {
		p.service, _ = config.Load(nil, p.Environ)
		p.service = cmp.Or(p.service, config.New())
	}
	if host, port, err := net.SplitHostPort(p.service.AdminListen); err == nil {
		if address := net.ParseIP(host); host == "" || address.IsUnspecified() {
			host = "127.0.0.1"
		}
		o.Server = "http://" + net.JoinHostPort(host, port)
	}
	if p.service.AdminToken == "" && p.service.Own.KeyDir != "" {
		o.AdminTokenFile = filepath.Join(p.service.Own.KeyDir, "admin.token")
	}
	o.AdminTokenFile = cmp.Or(p.service.AdminTokenFile, o.AdminTokenFile)
	return o
}

// client talks to the admin listener.
type client struct {
	Operator
	program *Program
}

// parse takes the options out of args wherever they stand, and returns the
// arguments that remain, want of them.
func (p *Program) parse(args []string, into any, want int) ([]string, error) {
	var flags, rest []string
	for i := 0; i < len(args); i++ {
		switch {
		case !strings.HasPrefix(args[i], "-") || args[i] == "-":
			rest = append(rest, args[i])
		case strings.Contains(args[i], "=") || i+1 == len(args):
			flags = append(flags, args[i])
		default:
			flags = append(flags, args[i], args[i+1])
			i++
		}
	}
	labels, err := flag.Parse(flags, into)
	if err == nil && len(labels) > 0 {
		err = parser.Decode(labels, into, parser.DefaultRootName)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; --help lists the options", err)
	}
	if len(rest) != want {
		return nil, fmt.Errorf("%d arguments given, %d needed; see --help", len(rest), want)
	}
	for i, argument := range rest {
		if argument == "-" { // keeps a token out of the process list
			text, err := io.ReadAll(io.LimitReader(p.In, 64<<10))
			if err != nil {
				return nil, err
			}
			rest[i] = strings.TrimSpace(string(text))
		}
	}
	return rest, nil
}

func (p *Program) client(args []string, want int) (*client, []string, error) {
	o := newOptions(p)
	rest, err := p.parse(args, o, want)
	return &client{Operator: *o, program: p}, rest, err
}

// call sends a request and returns the answer's body.
func (c *client) call(ctx context.Context, method, path string, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Server, "/")+path, bytes.NewReader(encoded))
	if err != nil {
		return nil, fmt.Errorf("--server: %w", err)
	}
	secret, err := c.secret()
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+secret)
	request.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("nothing listens at %s; is authsvc running? name its admin listener with --server=URL", c.Server)
	}
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		var p refusal.Problem
		_ = json.Unmarshal(answer, &p)
		hint := ""
		if response.StatusCode == http.StatusUnauthorized {
			hint = " Give it with --adminToken=TOKEN or --adminTokenFile=FILE."
		}
		return nil, fmt.Errorf("%s: %s%s", response.Status, cmp.Or(p.Detail, strings.TrimSpace(string(answer))), hint)
	}
	return answer, nil
}

func (c *client) secret() (string, error) {
	if c.AdminToken != "" || c.AdminTokenFile == "" {
		return cmp.Or(c.AdminToken, c.program.service.AdminToken), nil
	}
	data, err := config.ReadFile(c.AdminTokenFile)
	if err != nil {
		return "", fmt.Errorf("admin token: %w; name it with --adminToken=TOKEN or --adminTokenFile=FILE", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// show prints an answer: as it came, or its members line by line.
func (c *client) show(answer []byte) error {
	if len(answer) == 0 {
		answer = []byte("{}\n")
	}
	if c.Output == "json" {
		_, err := c.program.Out.Write(answer)
		return err
	}
	var members map[string]any
	decoder := json.NewDecoder(bytes.NewReader(answer))
	decoder.UseNumber()
	if err := decoder.Decode(&members); err != nil {
		return err
	}
	if len(members) == 0 {
		_, err := fmt.Fprintln(c.program.Out, "done")
		return err
	}
	table := tabwriter.NewWriter(c.program.Out, 0, 0, 2, ' ', 0)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		value := members[name]
		if words, ok := value.([]any); ok {
			value = inWords(words)
		}
		switch value.(type) {
		case []any, map[string]any:
			encoded, err := json.Marshal(value)
			if err != nil {
				return err
			}
			value = string(encoded)
		}
		fmt.Fprintf(table, "%s\t%v\n", name, value)
	}
	return table.Flush()
}

// inWords is a list of texts as one text.
func inWords(list []any) any {
	words := make([]string, len(list))
	for i, element := range list {
		text, ok := element.(string)
		if !ok {
			return list
		}
		words[i] = text
	}
	return strings.Join(words, ", ")
}

func (p *Program) tokenIssue(ctx context.Context, args []string) error {
	o := newTokenOptions(p)
	rest, err := p.parse(args, o, 1)
	if err != nil {
		return err
	}
	c := &client{Operator: o.Operator, program: p}
	body := map[string]any{"user_id": rest[0], "claims": o.Claims, "ttl": o.TTL}
	return c.request(ctx, "POST", "/v1/tokens", body)
}

func (c *client) ask(ctx context.Context, method, path string, body any) ([]byte, error) {
	if c.Output != "text" && c.Output != "json" {
		return nil, fmt.Errorf("--output: %q: write text or json", c.Output)
	}
	return c.call(ctx, method, path, body)
}

// request asks and shows the answer. understood looks at it first: an answer
// that says that nothing was there to be done is an error of the command.
func (c *client) request(ctx context.Context, method, path string, body any, understood ...func(answer []byte) error) error {
	answer, err := c.ask(ctx, method, path, body)
	if err != nil {
		return err
	}
	for _, check := range understood {
		if err := check(answer); err != nil {
			return err
		}
	}
	return c.show(answer)
}

func (p *Program) tokenInspect(ctx context.Context, args []string) error {
	c, rest, err := p.client(args, 1)
	if err != nil {
		return err
	}
	return c.request(ctx, "POST", "/v1/tokens/introspect", map[string]string{"token": rest[0]})
}

// tokenExplain prints the explanation and then, as the command's error, what
// refuses the token.
func (p *Program) tokenExplain(ctx context.Context, args []string) error {
	c, rest, err := p.client(args, 1)
	if err != nil {
		return err
	}
	answer, err := c.ask(ctx, "POST", "/v1/tokens/explain", map[string]string{"token": rest[0]})
	if err != nil {
		return err
	}
	var e admin.Explanation
	if err := json.Unmarshal(answer, &e); err != nil {
		return err
	}
	if c.Output == "json" {
		err = c.show(answer)
	} else {
		err = printExplanation(p.Out, &e)
	}
	if err == nil && !e.Accepted {
		err = fmt.Errorf("the %s is refused: %s", e.Kind, e.Reason)
	}
	return err
}

func (p *Program) tokenRevoke(ctx context.Context, args []string) error {
	c, rest, err := p.client(args, 1)
	if err != nil {
		return err
	}
	return c.request(ctx, "POST", "/v1/tokens/revoke", map[string]string{"token": rest[0]}, func(answer []byte) error {
		var done admin.TokenRevoked
		if err := json.Unmarshal(answer, &done); err != nil || len(done.Revoked) > 0 {
			return err
		}
		return fmt.Errorf("nothing was revoked: %s; authsvc token explain says more", done.Reason)
	})
}

func (p *Program) userRevoke(ctx context.Context, args []string) error {
	c, rest, err := p.client(args, 1)
	if err != nil {
		return err
	}
	return c.request(ctx, "POST", "/v1/users/"+url.PathEscape(rest[0])+"/revoke", nil, func(answer []byte) error {
		var done admin.UserRevoked
		if err := json.Unmarshal(answer, &done); err != nil || done.Known {
			return err
		}
		return unknown(done)
	})
}

// unknown says that a name is perhaps not the one that was meant.
func unknown(u admin.UserRevoked) error {
	text := fmt.Sprintf("nothing is known of user %q: no living token was issued to or seen of one called so. Tokens that may turn up are void all the same.", u.UserID)
	if len(u.Prefixes) > 0 {
		text += fmt.Sprintf(" Users are called as services see them in X-User-ID; prefixes: %s.", strings.Join(u.Prefixes, ", "))
	}
	if len(u.DidYouMean) > 0 {
		text += fmt.Sprintf(" Did you mean %s?", strings.Join(u.DidYouMean, " or "))
	}
	return errors.New(text)
}

func (p *Program) limitShow(ctx context.Context, args []string) error {
	return p.limit(ctx, "GET", args)
}

func (p *Program) limitReset(ctx context.Context, args []string) error {
	return p.limit(ctx, "DELETE", args)
}

func (p *Program) limit(ctx context.Context, method string, args []string) error {
	c, rest, err := p.client(args, 2)
	if err != nil {
		return err
	}
	return c.request(ctx, method, "/v1/limits/"+url.PathEscape(rest[0])+"/"+url.PathEscape(rest[1]), nil)
}

func (p *Program) keysRotate(ctx context.Context, args []string) error {
	c, _, err := p.client(args, 0)
	if err != nil {
		return err
	}
	return c.request(ctx, "POST", "/v1/keys/rotate", nil)
}

// healthcheck is for container runtimes: it needs no secret.
func (p *Program) healthcheck(ctx context.Context, args []string) error {
	c, _, err := p.client(args, 0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.Server, "/")+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("--server: %w", err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", response.Status)
	}
	return c.show([]byte(`{"status":"ready"}` + "\n"))
}
