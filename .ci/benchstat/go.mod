// What `make bench` compares with, in a module of its own: its dependencies are
// none of the gateway's, nor move a version of it, or of what makes a release.
module sidegate/ci/benchstat

go 1.26.0

toolchain go1.26.8

tool golang.org/x/perf/cmd/benchstat

require (
	github.com/aclements/go-moremath v0.0.0-20210112150236-f10218a38794 // indirect
	golang.org/x/perf v0.0.0-20260908200009-22c9c6c9d4da // indirect
)
