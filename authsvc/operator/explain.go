package operator

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/sluice-gateway/sluice/authsvc/admin"
)

func yes(ok bool, good, bad string) string {
	if ok {
		return good
	}
	return bad
}

// printExplanation writes an explanation for a terminal.
func printExplanation(w io.Writer, e *admin.Explanation) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s\t%s\n", e.Kind, yes(e.Accepted, "accepted", "refused: "+e.Reason))
	for _, line := range [][2]string{{"token id", e.TokenID}, {"issuer", e.Issuer}, {"user", e.User}} {
		if line[1] != "" {
			fmt.Fprintf(table, "%s\t%s\n", line[0], line[1])
		}
	}
	fmt.Fprintf(table, "\ncheck\t\texpected\tfound\n")
	for _, f := range e.Checks {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.Check, yes(f.OK, "ok", "NO"), f.Expected, f.Found)
	}
	if len(e.Headers) > 0 {
		fmt.Fprintf(table, "\nheaders\t\n")
	}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		fmt.Fprintf(table, "%s\t%s\n", name, e.Headers[name])
	}
	if len(e.Limits) > 0 {
		fmt.Fprintf(table, "\nlimit\tin\tused\tleft\tbecause\n")
	}
	for _, l := range e.Limits {
		fmt.Fprintf(table, "%s %d\t%ds\t%d\t%d\t%s\n", l.Name, l.Limit, l.Window, l.Used, l.Remaining, l.Because)
	}
	return table.Flush()
}
