# Everything there is to run. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION ?=
# One set of build flags everywhere, as in the Dockerfile: what is built once
# is taken from Go's cache ever after. Without grpcnotrace, grpc brings pages of
# HTML templates that nobody asks for, and with them the linker keeps every
# exported method of every library: half as much again on disk and in memory.
# And without disable_grpc_modules, which is of cloud.google.com/go/storage, the
# Firebase SDK brings grpc's client of service meshes (xDS) with Envoy's whole
# API, for Cloud Storage by gRPC, that nothing here asks for.
BUILD := CGO_ENABLED=0 go build -trimpath -tags grpcnotrace,disable_grpc_modules
LDFLAGS := -s -w $(if $(VERSION),-X sidegate/cmd.version=$(VERSION))
# The race detector needs cgo and a C compiler.
RACE := $(shell command -v gcc >/dev/null 2>&1 && echo -race)
FUZZTIME ?= 10s
KILLS ?= 500
FAULTS ?= 10000
SOAK ?= 30m

.PHONY: help build demo test unit e2e image-test soak-kill soak-faults soak-load walk lint bench bench-peers pgo fuzz image release release-check release-test components

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 14

build: ## bin/sidegate
	@$(BUILD) -ldflags '$(LDFLAGS)' -o bin/sidegate ./cmd/sidegate

# Without the profile: with it, everything would be compiled twice, for it and for bin/demo.
demo: ## everything on this machine: prints tokens and curl lines (ARGS='--data DIR' keeps the data)
	@echo '# building (some minutes the first time)'
	@$(BUILD) -pgo=off -ldflags '$(LDFLAGS)' -o bin/sidegate ./cmd/sidegate
	@cd examples/demo && $(BUILD) -o ../../bin/demo .
	@exec bin/demo $(ARGS)

test: components unit e2e image-test release-test ## every test; installs what it needs

unit: ## the tests of the packages, a moment each once built
	@echo 'make: tests of the packages$(if $(RACE), with the race detector, (no gcc: without the race detector)) (the first build takes some minutes)'
	@go test $(RACE) ./...

e2e: ## the end-to-end tests in examples/demo, against real components
	@echo 'make: end-to-end tests (the first build takes some minutes)'
	@cd examples/demo && go vet ./... && go test -v -count=1 -timeout 40m ./...

image-test: ## build and look into the Dockerfile's image, without a registry
	@.ci/image-test

soak-kill: ## kill -9 under load, KILLS times at each level of `audit.survive`, and as often while uploads are signed
	@cd examples/demo && SIDEGATE_KILLS=$(KILLS) go test -v -count=1 -timeout 4h -run 'TestKilledUnderLoad|TestPresignKilled' .

soak-faults: ## each fault of an app, a caller or Firestore, FAULTS times, and 1,000 slow callers: nothing may be left of them
	@SIDEGATE_FAULTS=$(FAULTS) go test -v -count=1 -timeout 2h -run 'TestF[0-9]' ./proxy ./storage/audit
	@cd examples/demo && SIDEGATE_SLOW=1000 go test -v -count=1 -timeout 1h -run TestF26SlowCallers .

soak-load: ## mixed load for SOAK, with reloads, new keys and slow callers: memory, goroutines and descriptors stay, the audit log is whole
	@cd examples/demo && SIDEGATE_SOAK=$(SOAK) go test -v -count=1 -timeout 4h -run TestSoakLoad .

walk: ## README.md followed to the letter in a bare Debian (as root, with debootstrap)
	@.ci/walk

lint: ## gofmt, vet, staticcheck, govulncheck
	@bad=$$(gofmt -l .); if [ -n "$$bad" ]; then echo "gofmt: not formatted:"; echo "$$bad"; exit 1; fi
	@go vet ./...
	@cd examples/demo && go vet ./...
	@go build -o bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	@bin/staticcheck ./...
	@cd examples/demo && ../../bin/staticcheck ./...
	@.ci/vulnerabilities

bench: ## benchmarks, by benchstat; BASE=rev: beside those of another commit, in turns (COUNT=6 BENCH=regexp PKG=./proxy)
	@BASE='$(BASE)' COUNT='$(COUNT)' BENCH='$(BENCH)' PKG='$(PKG)' .ci/bench

# Go's compiler reads it wherever cmd/sidegate is built, and puts together what is called most.
pgo: ## cmd/sidegate/default.pgo anew: where sidegate spends its time under the loads of bench-peers (about 5 minutes, on a quiet machine)
	@$(BUILD) -ldflags '$(LDFLAGS)' -o bin/sidegate ./cmd/sidegate
	@$(BUILD) -o bin/peers ./examples/peers
	@exec bin/peers --rounds 2 --slice 3s --only 'sidegate*' --profile cmd/sidegate/default.pgo

# Only a whole run may write the docs.
bench-peers: ## what a request costs here and in other proxies: writes docs/performance.md (ROUNDS=3 ONLY='sidegate,haproxy*' AGAINST=program: only a look)
	@$(BUILD) -ldflags '$(LDFLAGS)' -o bin/sidegate ./cmd/sidegate
	@$(BUILD) -o bin/peers ./examples/peers
	@exec bin/peers $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only '$(ONLY)') $(if $(AGAINST),--against '$(AGAINST)') $(if $(DIR),--dir '$(DIR)') $(if $(ROUNDS)$(ONLY)$(AGAINST),,--docs docs)

fuzz: ## each fuzz test for FUZZTIME
	@.ci/fuzz $(FUZZTIME)

image: ## the image `sidegate`, with docker or buildah (VERSION=v1.2.3)
	@VERSION='$(VERSION)' .ci/image

release: ## VERSION=v1.2.3: archives, SBOMs and SHA256SUMS of what is committed, in dist/
	@rm -rf dist
	@.ci/release '$(VERSION)' dist
	@echo 'make: dist/ has'; cat dist/SHA256SUMS

release-check: ## a release made twice, in different folders, the second time without Go's cache: every byte the same
	@VERSION='$(or $(VERSION),v0.0.0-check)' .ci/release-check whole

release-test: ## the same for this platform only, and the SBOM held against the program
	@.ci/release-check

components:
	@.ci/components
