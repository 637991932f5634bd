package cmd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestConfigurationsOfPagesLoad loads every sidegate.yaml that a page shows.
func TestConfigurationsOfPagesLoad(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../examples/*/README.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	p := place{env: map[string]string{"GOOGLE_CLOUD_PROJECT": "acme-prod", "S3_BUCKET": "acme-photos"}}
	block := regexp.MustCompile("(?s)```yaml\n(version: sidegate-config/v1\n.*?)```")
	loaded := 0
	for _, page := range pages {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range block.FindAllStringSubmatch(string(data), -1) {
			if strings.Contains(b[1], "assertion: {key:") || strings.Contains(b[1], "assertion:\n") {
				continue // it needs a key; the example's own test has one
			}
			if _, _, err := p.load(b[1]); err != nil {
				t.Errorf("%s: %v\n%s", page, err, b[1])
			}
			if err := fitsSchema(b[1]); err != nil {
				t.Errorf("%s: loads, and does not fit the schema: %v\n%s", page, err, b[1])
			}
			loaded++
		}
	}
	if loaded < 14 {
		t.Errorf("only %d were found", loaded)
	}
}
