package oidc

import (
	"slices"
	"strconv"
	"time"
)

// DefaultLeeway is what sidegate.yaml's `leeway` is where it is not written.
const DefaultLeeway = 60 * time.Second

// MaxLeeway bounds the leeway: five minutes is what the Firebase Admin SDK
// allows, and nobody needs more between clocks that are set.
const MaxLeeway = 5 * time.Minute

// Rules are what the standard claims must be (RFC 7519, section 4.1).
type Rules struct {
	// Issuer is what iss must be, byte for byte.
	Issuer string
	// Audiences are those of which aud must be one or, where aud is a list,
	// hold one.
	Audiences []string
	// Leeway is how far the clocks of issuer and gateway may differ; zero
	// means not at all.
	Leeway time.Duration
	// IssuedAt demands iat, AuthTime demands auth_time (OpenID Connect Core
	// 1.0, section 2). Both are checked wherever they are present; exp is
	// always demanded.
	IssuedAt, AuthTime bool
}

// Times are a token's times, to the second; those it does not have are zero.
type Times struct{ Expires, NotBefore, IssuedAt, AuthTime time.Time }

// Check checks a token's standard claims at a moment. The error is always a
// *proxy.TokenError; where a time is at fault its Detail names the token's and
// the gateway's, so that a clock that is off can be told from an old token.
func (r Rules) Check(t *Token, now time.Time) (Times, error) {
	if iss, ok := t.Claims.Text("iss"); !ok || iss != r.Issuer || iss == "" {
		return Times{}, Refuse(ReasonIssuer, "iss is not %s", strconv.Quote(r.Issuer))
	}
	if audience, err := audiences(t.Claims); err != nil {
		return Times{}, err
	} else if !slices.ContainsFunc(audience, func(a string) bool { return a != "" && slices.Contains(r.Audiences, a) }) {
		return Times{}, Refuse(ReasonAudience, "aud is none of %q", r.Audiences)
	}
	times, err := readTimes(t.Claims)
	if err != nil {
		return Times{}, err
	}
	return times, r.checkTimes(times, now)
}

func (r Rules) checkTimes(times Times, now time.Time) error {
	switch {
	case times.Expires.IsZero():
		return Refuse(ReasonClaim, "exp is missing")
	case r.IssuedAt && times.IssuedAt.IsZero():
		return Refuse(ReasonClaim, "iat is missing")
	case r.AuthTime && times.AuthTime.IsZero():
		return Refuse(ReasonClaim, "auth_time is missing")
	case !now.Before(r.Until(times)):
		return r.wrongTime(ReasonExpired, "exp", times.Expires, now)
	}
	latest := now.Add(r.Leeway)
	switch {
	case times.NotBefore.After(latest):
		return r.wrongTime(ReasonNotYet, "nbf", times.NotBefore, now)
	case times.IssuedAt.After(latest):
		return r.wrongTime(ReasonIssuedAt, "iat", times.IssuedAt, now)
	case times.AuthTime.After(latest):
		return r.wrongTime(ReasonAuthTime, "auth_time", times.AuthTime, now)
	}
	return nil
}

// Until is the first moment at which Check refuses the token as expired.
func (r Rules) Until(times Times) time.Time { return times.Expires.Add(r.Leeway) }

func (r Rules) wrongTime(reason, claim string, is, now time.Time) error {
	return Refuse(reason, "%s is %s, this clock says %s, leeway %s: a token that was just issued means that a clock is off",
		claim, is.Format(time.RFC3339), now.UTC().Format(time.RFC3339), r.Leeway)
}

// audiences is aud, text or a list of text, never empty.
func audiences(claims Object) ([]string, error) {
	if aud, ok := claims.Text("aud"); ok {
		return []string{aud}, nil
	}
	claim, _ := claims.Claim("aud")
	if aud, ok := claim.([]any); ok {
		list := make([]string, 0, len(aud))
		for _, a := range aud {
			text, ok := a.(string)
			if !ok {
				return nil, Refuse(ReasonAudience, "aud holds something that is not text")
			}
			list = append(list, text)
		}
		return list, nil
	}
	return nil, Refuse(ReasonAudience, "aud is neither text nor a list")
}

func readTimes(claims Object) (times Times, err error) {
	if times.Expires, err = readTime(claims, "exp"); err != nil {
		return Times{}, err
	}
	if times.NotBefore, err = readTime(claims, "nbf"); err != nil {
		return Times{}, err
	}
	if times.IssuedAt, err = readTime(claims, "iat"); err != nil {
		return Times{}, err
	}
	times.AuthTime, err = readTime(claims, "auth_time")
	return times, err
}

// maxSeconds is the last second of the year 9999, the last that RFC 3339 can
// write.
const maxSeconds = 253402300799

// readTime reads a NumericDate. RFC 7519 allows fractions, but no issuer
// sends them, and readers differ in what they make of them: only whole
// seconds from 1 to the year 9999 count. Zero is refused because a zero time
// stands for an absent claim.
func readTime(claims Object, name string) (time.Time, error) {
	number, there, ok := claims.number(name)
	if !there {
		return time.Time{}, nil
	}
	if !ok {
		return time.Time{}, Refuse(ReasonClaim, "%s is not a number", name)
	}
	seconds, err := strconv.ParseInt(number, 10, 64)
	if err != nil || seconds < 1 || seconds > maxSeconds {
		return time.Time{}, Refuse(ReasonClaim, "%s is not a whole number of seconds from 1 to the year 9999", name)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
