package firebase

import "sidegate/proxy/oidc"

// maxSubject is the longest uid in bytes:
// https://firebase.google.com/docs/auth/admin/manage-users allows 128
// characters, and the Admin SDK counts bytes.
const maxSubject = 128

// A payload is what is read of an ID token beyond the standard claims; the
// members are those of
// https://firebase.google.com/docs/rules/rules-and-auth#identify_users.
type payload struct {
	subject, tenant, provider string
	secondFactor              string
	email                     string
	emailVerified             bool
}

// readPayload reads the claims; one of a wrong type is refused, because what
// it was meant to say cannot be known.
func readPayload(t *oidc.Token) (payload, error) {
	claims := t.Claims
	if claims.Has("act") {
		return payload{}, oidc.Refuse(oidc.ReasonClaim, "act: this identity has no actors")
	}
	// The audience of an ID token is one project; the Admin SDK takes no list.
	if _, ok := claims.Text("aud"); !ok {
		return payload{}, oidc.Refuse(oidc.ReasonAudience, "aud is a list")
	}
	if err := t.RefuseLookalikes(claims, "firebase", "email", "email_verified", "uid", "user_id"); err != nil {
		return payload{}, err
	}
	var p payload
	var err error
	if p.subject, err = subject(claims); err != nil {
		return payload{}, err
	}
	if p.email, err = text(claims, "email"); err != nil {
		return payload{}, err
	}
	if p.emailVerified, err = boolean(claims, "email_verified"); err != nil {
		return payload{}, err
	}
	return p, p.readFirebase(t)
}

// readFirebase reads the member `firebase`, which every ID token has.
func (p *payload) readFirebase(t *oidc.Token) (err error) {
	object, ok := t.Claims.Object("firebase")
	if !ok {
		return oidc.Refuse(oidc.ReasonClaim, "firebase is missing or not an object")
	}
	if err := t.RefuseLookalikes(object, "tenant", "sign_in_provider", "identities", "sign_in_second_factor"); err != nil {
		return err
	}
	if _, ok := object.Object("identities"); !ok && object.Has("identities") {
		return oidc.Refuse(oidc.ReasonClaim, "firebase.identities is not an object")
	}
	if p.provider, err = text(object, "sign_in_provider"); err != nil {
		return err
	}
	if p.provider == "" {
		return oidc.Refuse(oidc.ReasonClaim, "firebase.sign_in_provider is missing")
	}
	if p.secondFactor, err = text(object, "sign_in_second_factor"); err != nil {
		return err
	}
	if object.Has("tenant") {
		if p.tenant, ok = object.Text("tenant"); !ok || p.tenant == "" {
			return oidc.Refuse(oidc.ReasonTenant, "firebase.tenant is not text, or empty")
		}
	}
	return nil
}

// subject is the uid. It may hold anything that a developer who mints custom
// tokens wrote ("../bob", too): what is refused here can stand nowhere.
func subject(claims oidc.Object) (string, error) {
	value, _ := claims.Claim("sub")
	sub, err := oidc.CheckSubject("sub", value, maxSubject)
	if err != nil {
		return "", err
	}
	// Firebase repeats the uid as user_id; the Admin SDK reads uid as text.
	for _, name := range []string{"user_id", "uid"} {
		if same, ok := claims.Text(name); claims.Has(name) && (!ok || name == "user_id" && same != sub) {
			return "", oidc.Refuse(oidc.ReasonSubject, "%s is not what sub is", name)
		}
	}
	return sub, nil
}

func text(object oidc.Object, name string) (string, error) {
	s, ok := object.Text(name)
	if !ok && object.Has(name) {
		return "", oidc.Refuse(oidc.ReasonClaim, "%s is not text", name)
	}
	return s, nil
}

func boolean(object oidc.Object, name string) (bool, error) {
	value, there := object.Claim(name)
	b, ok := value.(bool)
	if !ok && there {
		return false, oidc.Refuse(oidc.ReasonClaim, "%s is neither true nor false", name)
	}
	return b, nil
}
