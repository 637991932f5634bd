package main

import (
	"fmt"
	"html"
	"strings"
)

// The chart's measures, in pixels.
const (
	barTop, barHeight, barStep = 44, 16, 24
	barLeft, barWidth          = 400, 420
	chartWidth                 = barLeft + barWidth + 60
)

var colours = map[kind]string{reference: "#6b7280", forwards: "#9ca3af", verifies: "#b45309", gateway: "#1d4ed8"}

// chart is an SVG: a bar for each row that was measured, as long as its CPU for
// a request, with its quartiles, and a line where the bare ReverseProxy is.
func (r report) chart() string {
	var measured []result
	most := 1.0
	for _, x := range r.results {
		if x.missing == nil {
			measured = append(measured, x)
			most = max(most, x.cpu.high)
		}
	}
	height := barTop + barStep*len(measured) + 30
	at := func(ratio float64) float64 { return barLeft + ratio/most*barWidth }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img">`+"\n", chartWidth, height)
	fmt.Fprintf(&b, "<title>CPU of the proxy for each request, relative to a bare httputil.ReverseProxy</title>\n")
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", chartWidth, height)
	fmt.Fprintf(&b, `<text x="10" y="20" font-size="14" font-weight="bold" fill="#111827">CPU for each request, beside a bare httputil.ReverseProxy; shorter is better</text>`+"\n")
	for i, x := range measured {
		y := barTop + i*barStep
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="#111827">%s</text>`+"\n", barLeft-8, y+12, html.EscapeString(plain(x.title)))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", barLeft, y, at(x.cpu.median)-barLeft, barHeight, colours[x.kind])
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#111827"/>`+"\n", at(x.cpu.low), y+barHeight/2, at(x.cpu.high), y+barHeight/2)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="#111827">%.2f</text>`+"\n", at(x.cpu.high)+6, y+12, x.cpu.median)
	}
	fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#6b7280" stroke-dasharray="4 3"/>`+"\n", at(1), barTop-8, at(1), height-26)
	x := 10
	for _, k := range []kind{reference, forwards, verifies, gateway} {
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d" fill="#111827">%s</text>`+"\n", x, height-18, colours[k], x+18, height-8, k)
		x += 140
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// plain is text without Markdown.
func plain(title string) string { return strings.NewReplacer("`", "", "*", "").Replace(title) }
