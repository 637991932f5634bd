// Package cmd is the sidegate program: its commands, its configuration, and
// the wiring of the gateway's parts. Only here is the environment read and
// only here are implementations chosen.
package cmd
