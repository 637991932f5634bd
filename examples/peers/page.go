package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	pageName  = "performance.md"
	chartName = "performance.svg"
)

// write puts the results into the page and the chart beside it.
func (r report) write(docs string) error {
	name := filepath.Join(docs, pageName)
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	page := string(text)
	for block, now := range map[string]string{"machine": r.machine, "table": r.table(), "goals": r.goals()} {
		if page, err = replaceBlock(page, block, now); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := os.WriteFile(name, []byte(page), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, chartName), []byte(r.chart()), 0o644)
}

func marks(block string) (begin, end string) {
	return "<!-- bench-peers: " + block + " -->\n", "\n<!-- end of " + block + " -->"
}

// replaceBlock puts text between the marks of the block. Each mark is there
// exactly once: else a run could write over what somebody wrote.
func replaceBlock(page, block, text string) (string, error) {
	before, _, after, err := cutBlock(page, block)
	if err != nil {
		return "", err
	}
	return before + text + after, nil
}

// cutBlock gives the page up to the block, with its mark, the block, and the
// rest.
func cutBlock(page, block string) (before, within, after string, err error) {
	begin, end := marks(block)
	if strings.Count(page, begin) != 1 || strings.Count(page, end) != 1 {
		return "", "", "", fmt.Errorf("the marks of the block %s are not there once each", block)
	}
	from, to := strings.Index(page, begin)+len(begin), strings.Index(page, end)
	if to < from {
		return "", "", "", fmt.Errorf("the block %s ends before it begins", block)
	}
	return page[:from], page[from:to], page[to:], nil
}
