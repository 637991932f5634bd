package cmd

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// emulatorVariables are those that Google's SDKs obey unasked; in production
// either one is a hole.
var emulatorVariables = []struct{ name, effect string }{
	{"FIREBASE_AUTH_EMULATOR_HOST", "makes unsigned tokens valid"},
	{"FIRESTORE_EMULATOR_HOST", "puts an emulator in place of Firestore for sessions, lookups and audit log"},
}

// checkEnvironment refuses what stands in the environment and not in the file.
func (l *configLoader) checkEnvironment() error {
	var errs []error
	for _, v := range emulatorVariables {
		value := l.env.get(v.name)
		switch {
		case value == "":
		case !l.insecure.emulator:
			errs = append(errs, fmt.Errorf("%s is set, which %s: unset it, or start with --insecure-emulator", v.name, v.effect))
		case !isHostPort(value):
			errs = append(errs, fmt.Errorf("%s must be host:port, without a scheme", v.name))
		default:
			l.warnings = append(l.warnings, fmt.Sprintf("--insecure-emulator: %s %s (%s); never do this in production", v.name, v.effect, value))
		}
	}
	l.warnings = append(l.warnings, uselessProxies(l.env)...)
	return errors.Join(errs...)
}

// uselessProxies tells of proxies that are no URL: net/http then asks without one, or
// a host that is not there, and says nothing. Their values are not told, which hold
// passwords.
func uselessProxies(env environment) (out []string) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		one := httpproxy.Config{HTTPProxy: env.get(name)}
		by, err := one.ProxyFunc()(&url.URL{Scheme: "http", Host: "store.example"})
		// What is no URL is taken for a host, too: then that is called "http:".
		if one.HTTPProxy != "" && (err != nil || by == nil || strings.HasPrefix(by.Path, "//")) {
			out = append(out, name+" is no URL such as http://proxy.example:3128, so that the proxy is not used: in a user or password write other characters than letters and digits as %40 and so on")
		}
	}
	return out
}

func isHostPort(s string) bool {
	host, port, ok := splitAddress(s)
	return ok && host != "" && port != 0
}
