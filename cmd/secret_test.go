package cmd

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestSecretHidesItself(t *testing.T) {
	s := NewSecret(secretText)
	if s.Reveal() != secretText || !s.IsSet() || (Secret{}).IsSet() {
		t.Fatal("a secret does not hold its value")
	}
	holder := struct {
		S Secret
		P *Secret
	}{s, &s}
	asJSON, err := json.Marshal(map[string]any{"a": s, "b": holder})
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{string(asJSON), fmt.Errorf("x %w %v", fmt.Errorf("%v", s), holder).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s), fmt.Sprintf(verb, holder))
	}
	for _, text := range shown {
		if strings.Contains(text, secretText) || strings.Contains(text, fmt.Sprintf("%x", secretText)) {
			t.Errorf("the secret shows: %s", text)
		}
	}
}
