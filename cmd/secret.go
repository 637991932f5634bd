package cmd

import (
	"encoding/json"
	"fmt"
	"io"
)

// A Secret is a value that nothing prints: not fmt with any verb, not JSON, not
// a log. Only Reveal gives it away.
type Secret struct{ value string }

// NewSecret makes a Secret of a value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal is the value, for the one place that needs it.
func (s Secret) Reveal() string { return s.value }

// IsSet reports whether there is a value.
func (s Secret) IsSet() bool { return s.value != "" }

const hidden = "(secret)"

func (s Secret) String() string { return hidden }

// Format hides the value from every verb, %#v and %x too.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalJSON hides the value.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(hidden) }

// MarshalText hides the value from encoders that prefer text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
