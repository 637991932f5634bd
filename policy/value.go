package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// typed gives a claim's or a document's value as the type that the policy
// declares: string, int64, float64, bool, time.Time, a []T or a map[string]T
// of these. An error says that it is of another type, or larger than policies
// count with.
func (t claimType) typed(v any) (any, error) {
	switch t.container {
	case "list":
		list, ok := v.([]any)
		if !ok {
			return nil, fmt.Errorf("is no %s", t)
		}
		if len(list) > maxElements {
			return nil, fmt.Errorf("holds more than %d elements", maxElements)
		}
		return typedList(t.scalar, list)
	case "map":
		m, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("is no %s", t)
		}
		if len(m) > maxElements {
			return nil, fmt.Errorf("holds more than %d elements", maxElements)
		}
		return typedMap(t.scalar, m)
	}
	return typedScalar(t.scalar, v)
}

func typedList(scalar string, list []any) (any, error) {
	switch scalar {
	case "string":
		return listOf[string](scalar, list)
	case "int":
		return listOf[int64](scalar, list)
	case "double":
		return listOf[float64](scalar, list)
	case "bool":
		return listOf[bool](scalar, list)
	}
	return listOf[time.Time](scalar, list)
}

func listOf[T any](scalar string, list []any) ([]T, error) {
	out := make([]T, len(list))
	for i, v := range list {
		x, err := typedScalar(scalar, v)
		if err != nil {
			return nil, fmt.Errorf("element %d %w", i, err)
		}
		out[i] = x.(T)
	}
	return out, nil
}

func typedMap(scalar string, m map[string]any) (any, error) {
	switch scalar {
	case "string":
		return mapOf[string](scalar, m)
	case "int":
		return mapOf[int64](scalar, m)
	case "double":
		return mapOf[float64](scalar, m)
	case "bool":
		return mapOf[bool](scalar, m)
	}
	return mapOf[time.Time](scalar, m)
}

func mapOf[T any](scalar string, m map[string]any) (map[string]T, error) {
	out := make(map[string]T, len(m))
	for k, v := range m {
		if len(k) > maxString {
			return nil, errors.New("has a key that is too long")
		}
		x, err := typedScalar(scalar, v)
		if err != nil {
			return nil, fmt.Errorf("an element %w", err)
		}
		out[k] = x.(T)
	}
	return out, nil
}

func typedScalar(scalar string, v any) (any, error) {
	switch scalar {
	case "string":
		if s, ok := boundedString(v); ok {
			return s, nil
		}
	case "bool":
		if b, ok := v.(bool); ok {
			return b, nil
		}
	case "int":
		if i, ok := asInt(v); ok {
			return i, nil
		}
	case "double":
		if f, ok := asDouble(v); ok {
			return f, nil
		}
	case "timestamp":
		if t, ok := asTime(v); ok {
			return t, nil
		}
	}
	return nil, fmt.Errorf("is no %s", scalar)
}

// asInt takes whole numbers: those of JSON, and those of documents.
func asInt(v any) (int64, bool) {
	switch n := v.(type) {
	case int64:
		return n, true
	case json.Number:
		i, err := strconv.ParseInt(n.String(), 10, 64)
		return i, err == nil
	}
	return 0, false
}

func asDouble(v any) (float64, bool) {
	var f float64
	switch n := v.(type) {
	case float64:
		f = n
	case int64:
		f = float64(n)
	case json.Number:
		var err error
		if f, err = n.Float64(); err != nil {
			return 0, false
		}
	default:
		return 0, false
	}
	return f, !math.IsNaN(f) && !math.IsInf(f, 0)
}

// maxTime bounds seconds since 1970: the last that CEL's timestamps can hold
// (9999-12-31).
const maxTime = 253402300799

// asTime takes a document's timestamp, a NumericDate (RFC 7519, section 2) and
// RFC 3339.
func asTime(v any) (time.Time, bool) {
	switch t := v.(type) {
	case time.Time:
		return t, true
	case string:
		at, err := time.Parse(time.RFC3339Nano, t)
		return at, err == nil && len(t) <= 64
	}
	if s, ok := asDouble(v); ok && s >= 0 && s <= maxTime {
		whole, part := math.Modf(s)
		return time.Unix(int64(whole), int64(part*float64(time.Second))).UTC(), true
	}
	return time.Time{}, false
}
