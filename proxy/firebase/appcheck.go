package firebase

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"sidegate/policy"
	"sidegate/proxy/oidc"
)

// An AppCheck verifies App Check tokens of one project, as
// https://firebase.google.com/docs/app-check/custom-resource-backend says. They
// vouch for an app, not for a user: the Identity's UID is the app's ID, and is
// nobody's. It is safe for concurrent use.
type AppCheck struct {
	project string
	leeway  time.Duration
	keys    *oidc.KeySet
	now     func() time.Time
}

var _ oidc.Provider = (*AppCheck)(nil)

// NewAppCheck makes an AppCheck, of Options' Project, Leeway, KeySet and Now.
func NewAppCheck(o Options) (*AppCheck, error) {
	if o.Name == "" {
		o.Name = "app-check"
	}
	o.Namespace = o.Name
	if _, err := newClaims(idTokens, o); err != nil {
		return nil, err
	}
	if o.KeySet == nil {
		return nil, fmt.Errorf("identity %s: it needs keys", o.Name)
	}
	keys, err := o.KeySet(AppCheckKeysURL)
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", o.Name, err)
	}
	a := &AppCheck{project: o.Project, leeway: o.Leeway, keys: keys, now: o.Now}
	if a.now == nil {
		a.now = time.Now
	}
	return a, nil
}

// Accepts implements oidc.Provider. An issuer has the project's number, which
// the configuration does not know: an AppCheck is the only provider of its Set.
func (a *AppCheck) Accepts() []oidc.Selector { return nil }

// Epoch implements oidc.Provider.
func (a *AppCheck) Epoch() uint64 { return a.keys.Epoch() }

// appCheckIssuer has the project's number.
var appCheckIssuer = regexp.MustCompile(`^https://firebaseappcheck\.googleapis\.com/([0-9]{1,20})$`)

// Verify implements oidc.Provider.
func (a *AppCheck) Verify(ctx context.Context, t *oidc.Token) (oidc.Verified, error) {
	epoch := a.Epoch()
	issuer, _ := t.Claims.Text("iss")
	number := appCheckIssuer.FindStringSubmatch(issuer)
	if number == nil {
		return oidc.Verified{}, oidc.Refuse(oidc.ReasonIssuer, "iss is not that of App Check")
	}
	rules := oidc.Rules{Issuer: issuer, Audiences: []string{"projects/" + a.project}, Leeway: a.leeway, IssuedAt: true}
	times, err := rules.Check(t, a.now())
	if err != nil {
		return oidc.Verified{}, err
	}
	// aud holds the project by its ID and by its number: by the latter the
	// issuer is bound to the project.
	claim, _ := t.Claims.Claim("aud")
	if aud, _ := claim.([]any); !slices.Contains(aud, any("projects/"+number[1])) {
		return oidc.Verified{}, oidc.Refuse(oidc.ReasonAudience, "aud does not hold the issuer's project")
	}
	if typ, _ := t.Header.Text("typ"); typ != "JWT" {
		return oidc.Verified{}, oidc.Refuse(oidc.ReasonHeader, "typ is not JWT")
	}
	sub, _ := t.Claims.Claim("sub")
	app, err := oidc.CheckSubject("sub", sub, oidc.MaxSubject)
	if err != nil {
		return oidc.Verified{}, err
	}
	if err := a.keys.Verify(ctx, t, algorithms); err != nil {
		return oidc.Verified{}, err
	}
	id := &policy.Identity{Issuer: issuer, UID: app, Expires: times.Expires}
	return oidc.Verified{Identity: id, Until: rules.Until(times), Epoch: epoch}, nil
}
