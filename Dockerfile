# Every image of ours. The services hold one static program and run as a user
# without a name; gateway is the official Traefik with its program replaced by
# the one that has the plugin compiled in.

FROM golang:1.26 AS source
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .

FROM source AS programs
ARG VERSION= COMMIT=
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -o /out/ \
      -ldflags="-s -w -X github.com/sluice-gateway/sluice/internal/version.tag=$VERSION -X github.com/sluice-gateway/sluice/internal/version.commit=$COMMIT" \
      ./cmd/authsvc ./services/cmd/upstream ./deploy/secrets \
 && mkdir -p /empty/keys /empty/redis /empty/gateway /empty/authsvc /empty/users /empty/monitor /empty/grafana /empty/certificates

# A named volume takes over the owner of the folder it first covers. That is
# how programs without any capability come to folders they may write to.
FROM scratch AS secrets
COPY --from=programs --chown=65532:65532 /empty/ /secrets/
COPY --from=programs /out/secrets /secrets-command
USER 65532:65532
ENTRYPOINT ["/secrets-command"]
CMD ["/secrets"]

FROM scratch AS authsvc
COPY --from=programs /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=programs --chown=65532:65532 /empty/keys /var/lib/sluice/keys
COPY --from=programs /out/authsvc /authsvc
USER 65532:65532
EXPOSE 9000 9001
HEALTHCHECK --interval=2s --timeout=2s --retries=3 CMD ["/authsvc", "healthcheck"]
ENTRYPOINT ["/authsvc"]

FROM scratch AS upstream
COPY --from=programs /out/upstream /upstream
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=2s --timeout=2s --retries=3 CMD ["/upstream", "--healthcheck"]
ENTRYPOINT ["/upstream"]

# Late in the file, because a builder without BuildKit makes every stage above
# the one it is asked for, and this one takes minutes.
FROM source AS traefik
RUN SLUICE_CACHE=/out go run ./cmd/sluice traefik build --output=/out/traefik

FROM traefik:v3.7.13 AS gateway
COPY --from=traefik /out/traefik /usr/local/bin/traefik
COPY .traefik.yml /plugins-local/src/github.com/sluice-gateway/sluice/
COPY plugin /plugins-local/src/github.com/sluice-gateway/sluice/plugin
USER 65532:65532
