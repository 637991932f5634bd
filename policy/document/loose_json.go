package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// A jsonReader reads valid JSON as nodes, with their places.
type jsonReader struct {
	data []byte
	dec  *json.Decoder
	at   int // the offset up to which lines are counted
	line int
	from int // the offset at which that line begins
}

func newJSONReader(data []byte) *jsonReader {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return &jsonReader{data: data, dec: dec, line: 1}
}

func (r *jsonReader) read() (*yaml.Node, error) { return r.value(0) }

func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	if depth > 1000 {
		return nil, errors.New("values are nested too deep")
	}
	n := r.node()
	token, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if v == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		for r.dec.More() { // keys are values here, too
			c, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
		_, err = r.dec.Token()
		return n, err
	case string:
		n.Tag, n.Value, n.Style = "!!str", v, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!float", v.String()
	case bool:
		n.Tag, n.Value = "!!bool", fmt.Sprint(v)
	default:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}

// node is a scalar at the place of the next token.
func (r *jsonReader) node() *yaml.Node {
	start := int(r.dec.InputOffset())
	for start < len(r.data) && bytes.IndexByte([]byte(" \t\r\n,:"), r.data[start]) >= 0 {
		start++
	}
	for ; r.at < start; r.at++ {
		if r.data[r.at] == '\n' {
			r.line, r.from = r.line+1, r.at+1
		}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: utf8.RuneCount(r.data[r.from:start]) + 1}
}
