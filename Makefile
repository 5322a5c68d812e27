# Sluice. `make help` lists what there is to do.

GO          ?= go
GOLANGCI    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
BENCHSTAT   := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
ACTIONLINT  := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
VULNFLAGS   ?= # for example -db=file:///path, a copy of the database
FUZZTIME    ?= 30s
COUNT       ?= 10

# Programs of the system that tests need, and the Debian packages they come in.
PROGRAMS := redis-server redis-cli
PACKAGES := redis-server redis-tools

# What compose and drills make stand-ins of images from: as in test/compose.
COMPOSE_PROGRAMS := /bin/busybox /etc/ssl/certs/ca-certificates.crt /usr/bin/redis-server /usr/bin/redis-cli /usr/bin/prometheus /usr/bin/prometheus-redis-exporter ip nsenter
COMPOSE_PACKAGES := busybox-static ca-certificates redis-server redis-tools prometheus prometheus-redis-exporter iproute2 util-linux

# have ends a recipe well if all programs or files of $(1) are there; install
# installs the packages $(1), where apt-get is at hand.
have = missing=; for p in $(1); do test -e $$p || command -v $$p >/dev/null || missing=yes; done; test -z "$$missing" && exit 0
install = command -v apt-get >/dev/null || { echo "please install: $(1)"; exit 1; }; \
	sudo=; test "$$(id -u)" = 0 || sudo=sudo; \
	$$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(1)

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Not `go run`, which ends with an error after Ctrl-C however its program ends.
up: ## run the whole gateway on this machine, ARGS=--help lists its flags; Ctrl-C ends it
	$(GO) build -o bin/sluice ./cmd/sluice && exec bin/sluice up $(ARGS)

demo: ## let the gateway show what it promises, and check it
	$(GO) run ./cmd/sluice demo

traefik: ## build the real Traefik with the plugin compiled in (minutes the first time)
	$(GO) run ./cmd/sluice traefik build

test: tools lint vuln unit e2e bench-short ## everything that has to pass, in less than 15 minutes once Traefik is built

unit: tools ## unit, property and fault tests of the packages
	$(GO) test -race -timeout 10m ./...

e2e: tools traefik ## the plugin in both forms, and the gateway from outside
	cd test && $(GO) test -timeout 14m ./...

lint: ## golangci-lint in all modules, as .golangci.yml says; actionlint
	$(GO) run $(GOLANGCI) run ./...
	cd test && $(GO) run $(GOLANGCI) run ./...
	cd bench/compare && $(GO) run $(GOLANGCI) run ./...
	$(GO) run $(ACTIONLINT) -shellcheck= -pyflakes=

# Without the database nothing is known, which is said and is no failure: tests
# run offline too. What it finds is one.
vuln: ## known vulnerabilities in code that is called; asks vuln.go.dev
	@for module in . test; do \
	  found=$$(cd $$module && $(GO) run $(GOVULNCHECK) $(VULNFLAGS) ./... 2>&1); status=$$?; \
	  case "$$status $$found" in \
	    0*) echo "$$module: no known vulnerability is called" ;; \
	    *"fetching vulnerabilities"*) echo "$$module: NOT CHECKED for vulnerabilities: the database does not answer" ;; \
	    *) echo "$$found"; exit 1 ;; \
	  esac; \
	done

fuzz: ## every fuzz target for FUZZTIME (30s)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
	  sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' "$$file" | while read -r target; do \
	    echo "$$target ($$(dirname "$$file"))"; \
	    (cd "$$(dirname "$$file")" && $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) .) || exit 1; \
	  done || exit 1; \
	done

bench: bench-tools traefik ## throughput, latency and cost beside what it replaces; writes bench/RESULTS.md (twenty minutes)
	cd bench/compare && $(GO) run .

bench-short: tools ## whether every chain that bench compares answers right
	cd bench/compare && $(GO) test -timeout 5m ./...

# Ten runs of each, so that benchstat can tell how far they are apart. What the
# plugin logs meanwhile would stand in the middle of its lines.
QUIETLY := -exec "sh -c 'exec \"\$$0\" \"\$$@\" 2>/dev/null'"
bench-go: tools ## what one call of each hot function takes: the plugin in both forms, RESP, rule, script, tokens
	@out=$$(mktemp) && trap 'rm -f "$$out"' EXIT && \
	$(GO) test $(QUIETLY) -p 1 ./plugin/... ./authsvc/... -run '^$$' -bench . -benchmem -benchtime 100ms -count $(COUNT) >"$$out" && \
	(cd test && $(GO) test $(QUIETLY) ./forms -run '^$$' -bench HotPath -benchmem -benchtime 100ms -count $(COUNT)) >>"$$out" && \
	sed -i '/^sluice: /d' "$$out" && $(GO) run $(BENCHSTAT) "$$out"

# What `make bench` compares with and drives with; without nginx its chain is left out.
bench-tools: tools
	@$(call have,wrk /usr/sbin/nginx); $(call install,wrk nginx-light libnginx-mod-http-lua lua-nginx-redis)

accuracy: tools ## how exact the limits are, beside Traefik's own; writes bench/ACCURACY.md
	$(GO) run ./bench accuracy

schedules: tools ## a million schedules of each kind for the rule of small limits (ten minutes)
	$(GO) test ./plugin/window -run 'Log|Tiers|Honest|Alone' -timeout 60m -schedules 1000000 -v

faults: tools ## every fault in every state, with times; writes test/faults/RESULTS.md (three quarters of an hour)
	cd test && $(GO) test ./faults -run '^TestCampaign$$' -timeout 90m -campaign

identity: tools traefik ## revocation latency, and each part away; writes test/identity/RESULTS.md
	cd test && $(GO) test ./identity -timeout 30m -campaign

compose: compose-tools ## compose.yaml on this machine's Docker engine; writes test/e2e/COMPOSE.md (ten minutes)
	cd test && $(GO) test ./e2e -run '^TestCompose$$' -docker -timeout 45m -v

drills: compose-tools ## compose.yaml hurt 120 times under traffic; writes test/e2e/DRILLS.md (half an hour)
	cd test && $(GO) test ./e2e -run '^TestDrills$$' -docker -rounds 5 -timeout 60m -v

tools: ## install the system's programs that tests need, where apt-get is at hand
	@$(call have,$(PROGRAMS)); $(call install,$(PACKAGES))

compose-tools: # and those that images are made from here
	@$(call have,$(COMPOSE_PROGRAMS)); $(call install,$(COMPOSE_PACKAGES))

release: ## archives, the chart, checksums and bills of materials of TAG for PLATFORMS, into dist/ (a quarter of an hour)
	.github/release.sh

release-snapshot: ## the same of this commit for this machine alone; what came out runs the tour in an empty folder
	PLATFORMS="$$($(GO) env GOOS)/$$($(GO) env GOARCH)" .github/release.sh
	.github/release.sh try

clean: ## remove what was built into this tree
	rm -rf bin dist .sluice

.PHONY: help up demo traefik test unit e2e lint vuln fuzz bench bench-short bench-go bench-tools accuracy schedules faults identity compose drills tools compose-tools release release-snapshot clean
