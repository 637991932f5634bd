package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// keptTexts are what an issuer and its users can write.
var keptTexts = []string{"u", "", "é\u202e\x00\"", `\x41`, strings.Repeat("x", 5000), "\xff"}

// TestKeptIsAsFresh: a line says the same of an identity and of inputs, whether
// that was made before or is made now, beside what else may need the room.
func TestKeptIsAsFresh(t *testing.T) {
	kept := 0
	for _, s := range keptTexts {
		for _, n := range []int{0, 1, 20, 300} {
			roles := []any{json.Number("1.50"), nil, true, map[string]any{s: s, "b": "c"}}
			for i := range n {
				roles = append(roles, fmt.Sprint(s, i))
			}
			inputs := map[string]any{"claims": map[string]any{"roles": roles, s: 1}, "absent": []string{"plan", s}, "email": s, "second_factor": ""}
			fresh := &Event{ID: "i", Request: &Request{QueryKeys: slices.Repeat([]string{strings.Repeat("k", 64)}, 32)},
				Identity: &Identity{Name: "users", UID: s, Actor: s, AuthTime: noon, TokenHash: "ab"}, Decision: &Decision{Effect: "allow", Inputs: inputs}}
			event, decision := *fresh, *fresh.Decision
			event.Decision = &decision
			if k := KeepIdentity(fresh.Identity); k.Text != "" {
				event.Identity, event.KeptIdentity, kept = nil, &k, kept+1
			}
			if k := KeepInputs(inputs); k.Text != "" {
				decision.Inputs, decision.KeptInputs, kept = nil, &k, kept+1
			}
			if is, want := encode(t, &event), encode(t, fresh); !bytes.Equal(is, want) {
				t.Errorf("%.20q, %d:\n%s\n%s", s, n, is, want)
			}
		}
	}
	if kept < 20 {
		t.Errorf("%d were kept", kept)
	}
	for _, inputs := range []map[string]any{nil, {"claims": math.Inf(1)}} { // the latter no line can hold
		if k := KeepInputs(inputs); k.Text != "" {
			t.Errorf("%v is kept as %q", inputs, k.Text)
		}
	}
}

// What was kept and finds no room is not on record in part, and the line says so.
func TestKeptWithoutRoomIsCut(t *testing.T) {
	k := KeepInputs(map[string]any{"email": "alice@acme.dev"})
	shadow := map[string]string{}
	for i := range 30 {
		shadow[strings.Repeat(string(rune('a'+i)), 1000)] = "deny"
	}
	e := decode(t, encode(t, &Event{Decision: &Decision{Shadow: shadow, KeptInputs: &k}}))
	if len(e.Decision.Inputs) != 0 || !slices.Contains(e.Cut, "decision.inputs") {
		t.Errorf("%v, cut %q", e.Decision.Inputs, e.Cut)
	}
}
