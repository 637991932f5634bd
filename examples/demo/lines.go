package main

import (
	_ "embed"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

//go:embed lines.sh.tmpl
var linesText string

// linesTemplate makes what the demo prints: all of it is valid shell.
var linesTemplate = template.Must(template.New("lines").Funcs(template.FuncMap{"quote": quote}).Parse(linesText))

// printLines prints the tokens and the lines to paste.
func (d *demo) printLines(w io.Writer) error {
	tokens := map[string]string{}
	for _, u := range users {
		token, err := d.issuer.token(u, time.Now())
		if err != nil {
			return err
		}
		tokens[u.UID] = token
	}
	err := linesTemplate.Execute(w, map[string]any{
		"Gateway":  d.url,
		"Admin":    d.adminURL,
		"Issuer":   d.issuerURL,
		"App":      d.appURL,
		"Store":    d.store.url,
		"Dir":      d.dir,
		"Tokens":   tokens,
		"Sidegate": sidegateProgram(),
	})
	if err != nil {
		return fmt.Errorf("print the lines: %w", err)
	}
	return nil
}

// sidegateProgram is the path of the sidegate program beside this one, where
// `make demo` puts it; empty where there is none.
func sidegateProgram() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	path := filepath.Join(filepath.Dir(self), "sidegate")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// writePhoto writes a picture, so that there is a real file to upload.
func writePhoto(path string) error {
	const side = 256
	picture := image.NewRGBA(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			picture.SetRGBA(x, y, color.RGBA{R: uint8(x), G: uint8(y), B: uint8(x ^ y), A: 255})
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make the picture: %w", err)
	}
	if err := png.Encode(f, picture); err != nil {
		f.Close()
		return fmt.Errorf("write the picture: %w", err)
	}
	return f.Close()
}
