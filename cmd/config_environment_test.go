package cmd

import (
	"strings"
	"testing"
)

// TestUselessProxies: a proxy that net/http leaves out without a word is told of,
// and its password is not.
func TestUselessProxies(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		for value, bad := range map[string]bool{
			"": false, "http://proxy.example:3128": false, "proxy.example:3128": false, "http://gate:hunter%402@proxy.example": false, "socks5://proxy.example": false,
			"http://gate:hunter%2x@proxy.example": true, "http://gate:hunter2 @proxy.example": true, "http://gate:hunter2@proxy.example:a": true,
		} {
			_, warnings, err := place{env: map[string]string{name: value}}.load(versionLine)
			told := strings.Join(warnings, "\n")
			if err != nil || strings.Contains(told, name+" is no URL") != bad || strings.Contains(told, "hunter") {
				t.Errorf("%s=%s: %q, %v", name, value, told, err)
			}
		}
	}
}
