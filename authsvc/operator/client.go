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
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/sluice-gateway/sluice/authsvc/admin"
	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
)

// client talks to the admin listener.
type client struct {
	Operator
	program *Program
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
