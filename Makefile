# Sluice. `make help` lists what there is to do.

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 30s

# Programs of the system that tests need, and the Debian packages they come in.
PROGRAMS := redis-server redis-cli
PACKAGES := redis-server redis-tools

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## run the whole gateway on this machine; Ctrl-C ends it
	$(GO) run ./cmd/sluice up

demo: ## let the gateway show what it promises, and check it
	$(GO) run ./cmd/sluice demo

traefik: ## build the real Traefik with the plugin compiled in (minutes the first time)
	$(GO) run ./cmd/sluice traefik build

test: tools lint unit e2e ## everything that has to pass, in less than 15 minutes once Traefik is built

unit: tools ## unit, property and fault tests of the packages
	$(GO) test -race -timeout 10m ./...

e2e: tools traefik ## the plugin in both forms, and the gateway from outside
	cd test && $(GO) test -timeout 14m ./...

lint: ## gofmt, go vet and staticcheck, in both modules
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) vet ./...
	cd test && $(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	cd test && $(GO) run $(STATICCHECK) ./...

fuzz: ## every fuzz target for FUZZTIME (30s)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
	  sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' "$$file" | while read -r target; do \
	    echo "$$target ($$(dirname "$$file"))"; \
	    (cd "$$(dirname "$$file")" && $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) .) || exit 1; \
	  done || exit 1; \
	done

accuracy: tools ## how exact the limits are, beside Traefik's own; writes bench/ACCURACY.md
	$(GO) run ./bench accuracy

faults: tools ## every fault in every state, with times; writes test/faults/RESULTS.md (half an hour)
	cd test && $(GO) test ./faults -run '^TestCampaign$$' -timeout 60m -campaign

tools: ## install the system's programs that tests need, where apt-get is at hand
	@missing=; for p in $(PROGRAMS); do command -v $$p >/dev/null || missing=yes; done; \
	test -z "$$missing" && exit 0; \
	command -v apt-get >/dev/null || { echo "please install: $(PROGRAMS)"; exit 1; }; \
	sudo=; test "$$(id -u)" = 0 || sudo=sudo; \
	$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq $(PACKAGES)

clean: ## remove what was built into this tree
	rm -rf bin .sluice

.PHONY: help up demo traefik test unit e2e lint fuzz accuracy faults tools clean
