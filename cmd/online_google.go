package cmd

import (
	"context"
	"slices"
	"strings"

	"cloud.google.com/go/auth"

	"sidegate/proxy/google"
)

// googleProbes ask for the machine's Google credentials, where something needs
// them.
func googleProbes(s settings) []probe {
	needs := googleNeeds(s)
	if len(needs) == 0 {
		return nil
	}
	b := probe{id: "credentials.google"}
	b.run = func(ctx context.Context) []check {
		out := []check{googleCredentialsCheck(ctx, b, s, strings.Join(needs, ", "))}
		for _, u := range s.config.Upstreams {
			token := probe{id: "upstream.id_token", subject: u.Name}
			switch {
			case u.IDToken == "":
			case out[0].Status == statusFail:
				out = append(out, token.skip("not looked at: first mend credentials.google"))
			default:
				out = append(out, checkIDToken(ctx, token, u.IDToken))
			}
		}
		return out
	}
	return []probe{b}
}

func googleCredentialsCheck(ctx context.Context, b probe, s settings, needs string) check {
	if file := s.env.get("GOOGLE_APPLICATION_CREDENTIALS"); file != "" { // of which the library does not say what is wrong
		if _, err := readBounded(file, maxSecretBytes); err != nil {
			return b.fails("mend the variable, or mount the file where it says", "GOOGLE_APPLICATION_CREDENTIALS names a file that cannot be read: %v", err)
		}
	}
	made, err := googleFromAWS(ctx, s.env)
	if err != nil {
		return b.fails("mend the file, or make it anew: gcloud iam workload-identity-pools create-cred-config --aws", "the gateway does not start: %v", err)
	}
	return checkGoogle(ctx, b, needs, made)
}

// checkIDToken asks for a token as the gateway does: not all credentials that give
// others give these.
func checkIDToken(ctx context.Context, b probe, audience string) check {
	got := make(chan error, 1) // the library does not obey ctx everywhere
	go func() { got <- google.TryIDToken(ctx, audience) }()
	const advice = "see credentials.google; let the process have a service account's credentials: attached, by a key file, or impersonated (roles/iam.serviceAccountOpenIdTokenCreator)"
	select {
	case <-ctx.Done():
		return b.fails(advice, "no ID token for %s in time: requests to the app get 503", audience)
	case err := <-got:
		if err != nil {
			return b.fails(advice, "no ID token for %s: requests to the app get 503: %v", audience, err)
		}
	}
	return b.pass("ID tokens for %s are given", audience)
}

// googleNeeds are the keys of sidegate.yaml that use the machine's account.
func googleNeeds(s settings) (out []string) {
	c := s.config
	if s.insecure.firestoreEmulator == "" {
		for key, f := range map[string]*FirestoreConfig{"storage.firestore": c.Storage.Firestore, "lookups.firestore": c.Lookups, "audit.firestore": c.Audit.Firestore} {
			if f != nil {
				out = append(out, key)
			}
		}
	}
	for _, id := range c.Identities {
		if id.Firebase != nil && id.Firebase.Revocation > 0 && s.insecure.authEmulator == "" {
			out = append(out, "identities."+id.Name+".firebase.revocation")
		}
	}
	for _, u := range c.Upstreams {
		if u.IDToken != "" {
			out = append(out, "upstreams."+u.Name+".id_token")
		}
	}
	for _, b := range c.Buckets {
		if b.Role != nil {
			out = append(out, "buckets."+b.Name+".credentials.role")
		}
	}
	slices.Sort(out)
	return out
}

func checkGoogle(ctx context.Context, b probe, needs string, made *auth.Credentials) check {
	type answer struct {
		a   google.Account
		err error
	}
	got := make(chan answer, 1) // the library does not obey ctx everywhere
	go func() {
		a, err := google.FindAccount(ctx, made)
		got <- answer{a, err}
	}()
	const advice = "on Google Cloud give the service, pod or machine a service account; elsewhere use Workload Identity Federation, or name a key file by GOOGLE_APPLICATION_CREDENTIALS"
	select {
	case <-ctx.Done():
		return b.fails(advice, "no token in time, which %s needs", needs)
	case g := <-got:
		as := ""
		if g.a.Email != "" {
			as = ", account " + g.a.Email
		}
		switch {
		case g.err != nil:
			return b.fails(advice, "no Google credentials, which %s needs: %v", needs, g.err)
		case g.a.Kind == google.KindServiceAccount:
			return b.warn("use an attached service account or Workload Identity Federation, whose credentials end by themselves, and delete the key",
				"a key file of a service account%s, for %s", as, needs)
		case g.a.Kind == google.KindUser:
			return b.warn("use a service account in production", "a person's own credentials (gcloud)%s, for %s", as, needs)
		case g.a.Kind == google.KindAWS:
			return b.pass("of this container's role of AWS, by workload identity federation, for %s", needs)
		case g.a.Kind == google.KindMetadata:
			return b.pass("of the metadata server%s, for %s", as, needs)
		}
		return b.pass("%s%s, for %s", g.a.Kind, as, needs)
	}
}
