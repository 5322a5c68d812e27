package main

import (
	"fmt"
	"html"
	"strings"
)

// chart draws the throughput of the chains that matter most against bare
// Traefik, as bars with their confidence intervals. Its colours read on light
// and dark pages.
func chart(b *bed, r *results) string {
	const width, label, row, top = 900, 330, 26, 48
	type bar struct {
		title string
		of    interval
		color string
	}
	var bars []bar
	longest := 1.0
	for _, c := range b.chains {
		if !c.chart || len(r.closed[c.name]) == 0 {
			continue
		}
		of := bootstrap(ratios(r.closed[c.name], r.closed["bare"], rate), geometric)
		color := "#8b949e"
		switch {
		case c.ours && c.gateway == compiled:
			color = "#1f6feb"
		case c.ours:
			color = "#58a6ff"
		}
		bars = append(bars, bar{c.title, of, color})
		longest = max(longest, of.high)
	}
	height := top + row*len(bars) + 16
	scale := (width - label - 70) / longest
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img" aria-label="Throughput against bare Traefik">`+"\n", width, height)
	fmt.Fprintf(&s, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	fmt.Fprintf(&s, `<text x="12" y="22" font-size="15" font-weight="bold" fill="#1f2328">Throughput against bare Traefik = 1.00 (one machine, one run, 95%% intervals)</text>`+"\n")
	fmt.Fprintf(&s, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#d0d7de" stroke-dasharray="4 3"/>`+"\n", label+scale, top-8, label+scale, height-12)
	for i, one := range bars {
		y := top + i*row
		end := label + one.of.middle*scale
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end" fill="#1f2328">%s</text>`+"\n", label-8, y+14, html.EscapeString(one.title))
		fmt.Fprintf(&s, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", label, y, one.of.middle*scale, row-8, one.color)
		fmt.Fprintf(&s, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#1f2328"/>`+"\n", label+one.of.low*scale, y+(row-8)/2, label+one.of.high*scale, y+(row-8)/2)
		fmt.Fprintf(&s, `<text x="%.1f" y="%d" fill="#1f2328">%.2f</text>`+"\n", max(end, label+one.of.high*scale)+6, y+14, one.of.middle)
	}
	s.WriteString("</svg>\n")
	return s.String()
}
