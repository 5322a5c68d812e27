package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

// TestGRPC is design: streams for gRPC and for large bodies: through the shipped
// protected chain, whose limit on bad tokens watches every answer.
func TestGRPC(t *testing.T) {
	for _, wiring := range []string{stack.Fast, stack.Classic} {
		for _, form := range forms {
			t.Run(wiring+", "+form, func(t *testing.T) {
				t.Parallel()
				s := open(t, form, wiring, 1)
				s.routeGRPC(startGRPC(t))
				t.Run("calls", func(t *testing.T) { grpcCalls(s.on(t)) })
				t.Run("a large body", func(t *testing.T) { largeBody(s.on(t)) })
			})
		}
	}
}

// startGRPC is a server that echoes messages of any method, one by one, but for
// /grpc.test/Fail; the first tells which metadata came with the call.
func startGRPC(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if method, _ := grpc.MethodFromServerStream(stream); method == "/grpc.test/Fail" {
			return status.Error(codes.FailedPrecondition, "as asked")
		}
		told, _ := metadata.FromIncomingContext(stream.Context())
		if err := stream.SendMsg(wrapperspb.String(fmt.Sprintf("user %q, authorization %q", told["x-user-id"], told["authorization"]))); err != nil {
			return err
		}
		for {
			var message wrapperspb.StringValue
			if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
		}
	}))
	go func() { _ = server.Serve(listener) }() // ends with Stop
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// routeGRPC puts the server behind the same chain as /echo.
func (s *site) routeGRPC(address string) {
	s.t.Helper()
	content, err := os.ReadFile(s.dynamic)
	if err != nil {
		s.t.Fatal(err)
	}
	text := string(content)
	at := strings.Index(text, "\n    echo:\n      rule:")
	if at < 0 {
		s.t.Fatal("no router named echo")
	}
	router, _, _ := strings.Cut(text[at+1:], "\n    echo-public:")
	router = strings.NewReplacer("    echo:\n", "    grpc:\n", "PathPrefix(`/echo`) || Path(`/events`) || Path(`/socket`)", "PathPrefix(`/grpc.test/`)", "service: echo", "service: grpc").Replace(router)
	text = text[:at+1] + router + "\n" + text[at+1:] // before the router it was made from
	text = strings.Replace(text, "\n  services:\n", "\n  services:\n    grpc: {loadBalancer: {servers: [{url: 'h2c://"+address+"'}]}}\n", 1)
	s.rewrite(text)
	harness.Eventually(s.t, 20*time.Second, "the new route is served", func() error {
		if got := s.get("/grpc.test/Anything"); got.Status != http.StatusUnauthorized {
			return fmt.Errorf("%d", got.Status)
		}
		return nil
	})
}

func grpcCalls(s *site) {
	t := s.t
	connection, err := grpc.NewClient(strings.TrimPrefix(s.ready.HTTPS, "https://"),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	begin := func(ctx context.Context, method string) grpc.ClientStream {
		stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	receive := func(stream grpc.ClientStream) (string, error) {
		var message wrapperspb.StringValue
		err := stream.RecvMsg(&message)
		return message.Value, err
	}

	anonymous := begin(ctx, "/grpc.test/Chat")
	if _, err := receive(anonymous); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
	known := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+s.token("grace"), "x-user-id", "root")

	chat := begin(known, "/grpc.test/Chat")
	if first, err := receive(chat); err != nil || first != `user ["grace"], authorization []` {
		t.Errorf("%q, %v", first, err)
	}
	for i := range 10 { // each answer comes before the next question is asked
		want := fmt.Sprintf("message %d", i)
		if err := chat.SendMsg(wrapperspb.String(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := receive(chat); err != nil || got != want {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
	}
	if err := chat.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := receive(chat); !errors.Is(err, io.EOF) { // grpc-status 0 came in the trailers
		t.Errorf("at the end: %v", err)
	}
	if header, err := chat.Header(); err != nil || len(header.Get("ratelimit")) != 1 || len(header.Get("x-request-id")) != 1 {
		t.Errorf("%v, %v", header, err)
	}

	failing := begin(known, "/grpc.test/Fail")
	if _, err := receive(failing); status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != "as asked" {
		t.Errorf("a call that fails: %v", err)
	}
}

// largeBody is 100 MB each way's worth of patience: the chain keeps none of it.
func largeBody(s *site) {
	t := s.t
	const size = 100_000_000
	request, err := http.NewRequest("POST", s.ready.HTTPS+"/echo", io.LimitReader(harness.Endless{}, size))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.token("heidi"))
	response, err := s.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if got := s.echo.Last(t).BodySize; response.StatusCode != http.StatusOK || got != size {
		t.Errorf("%s, %d bytes of %d", response.Status, got, size)
	}
}
