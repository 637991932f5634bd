package cmd

import (
	"errors"
	"fmt"
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
	return errors.Join(errs...)
}

func isHostPort(s string) bool {
	host, port, ok := splitAddress(s)
	return ok && host != "" && port != 0
}
