package listener

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
)

// Tracing sends one span a request to an OpenTelemetry collector, as part of
// the trace that the gateway's traceparent header names (W3C Trace Context).
type Tracing struct {
	provider *sdktrace.TracerProvider // nil: no collector is configured
	tracer   trace.Tracer
}

// OpenTracing needs no collector: without one it does nothing. Version is what
// traces say of authsvc.
func OpenTracing(ctx context.Context, c config.Tracing, version string, log *slog.Logger) (*Tracing, error) {
	if c.Endpoint == "" {
		return &Tracing{}, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(strings.TrimSuffix(c.Endpoint, "/")+"/v1/traces"))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(logged{exporter, log}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.SampleRate))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", c.ServiceName),
			attribute.String("service.version", version),
		)),
	)
	return &Tracing{provider: provider, tracer: provider.Tracer("github.com/sluice-gateway/sluice/authsvc")}, nil
}

// logged tells of failures in authsvc's log. The SDK's own way is a handler for
// the whole process, which prints plain lines on standard error.
type logged struct {
	sdktrace.SpanExporter
	log *slog.Logger
}

func (l logged) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := l.SpanExporter.ExportSpans(ctx, spans); err != nil {
		l.log.Warn("traces were not sent", "spans", len(spans), "error", err)
	}
	return nil
}

// begin opens the span of a request; the function it returns ends it.
func (t *Tracing) begin(c echo.Context) (end func(status int, no *refusal.Refusal)) {
	if t.provider == nil {
		return func(int, *refusal.Refusal) {}
	}
	request := c.Request()
	ctx := propagation.TraceContext{}.Extract(request.Context(), propagation.HeaderCarrier(request.Header))
	name := method(request.Method) + " " + c.Path()
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", method(request.Method)),
		attribute.String("http.route", c.Path()),
		attribute.String("sluice.request_id", RequestID(c)),
	))
	c.SetRequest(request.WithContext(ctx))
	return func(status int, no *refusal.Refusal) {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if no != nil && no.Code != "" {
			span.SetAttributes(attribute.String("error.type", no.Code))
		}
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
		span.End()
	}
}

// Close sends what is left.
func (t *Tracing) Close(ctx context.Context) error {
	if t.provider == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}
