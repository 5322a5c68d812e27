package harness

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"sort"
	"time"
)

// Hit is one line of a web log.
type Hit struct {
	Client netip.Addr
	At     time.Time
	Method string
	Path   string
	Status int
	Size   int
}

// clfTime is the time of the Common Log Format.
const clfTime = "02/Jan/2006:15:04:05 -0700"

var clfLine = regexp.MustCompile(`^(\S+) \S+ \S+ \[([^\]]+)\] "([A-Z]+) (\S+) HTTP/[0-9.]+" (\d{3}) (\d+|-)$`)

// WriteWebLog writes a day of a small shop in Common Log Format, squeezed into
// the given span: many who look around, a few who come back and back, and one
// robot that does not pause. Equal seeds write equal logs.
func WriteWebLog(to io.Writer, seed uint64, start time.Time, span time.Duration, clients, hits int) error {
	random := rand.New(rand.NewPCG(seed, seed))
	popular := rand.NewZipf(random, 1.3, 2, uint64(clients-1))
	lines := make([]Hit, hits)
	for i := range lines {
		client := popular.Uint64()
		lines[i] = Hit{
			Client: netip.AddrFrom4([4]byte{198, 51, byte(100 + client>>8), byte(client)}),
			At:     start.Add(time.Duration(random.Int64N(int64(span)))),
			Method: "GET",
			Path:   fmt.Sprintf("/v1/products/p-%d", 1001+random.IntN(24)),
			Status: 200,
			Size:   40 + random.IntN(60),
		}
	}
	sort.SliceStable(lines, func(i, j int) bool { return lines[i].At.Before(lines[j].At) })
	buffered := bufio.NewWriter(to)
	for _, hit := range lines {
		fmt.Fprintf(buffered, "%s - - [%s] \"%s %s HTTP/1.1\" %d %d\n", hit.Client, hit.At.Format(clfTime), hit.Method, hit.Path, hit.Status, hit.Size)
	}
	return buffered.Flush()
}

// ReadWebLog reads a Common Log Format; lines of any other form are an error.
func ReadWebLog(from io.Reader) ([]Hit, error) {
	var all []Hit
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		part := clfLine.FindStringSubmatch(lines.Text())
		if part == nil {
			return nil, fmt.Errorf("line %d is not in Common Log Format: %.200q", len(all)+1, lines.Text())
		}
		client, err := netip.ParseAddr(part[1])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(all)+1, err)
		}
		at, err := time.Parse(clfTime, part[2])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(all)+1, err)
		}
		hit := Hit{Client: client, At: at, Method: part[3], Path: part[4]}
		if _, err := fmt.Sscan(part[5], &hit.Status); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(all)+1, err)
		}
		if part[6] != "-" {
			if _, err := fmt.Sscan(part[6], &hit.Size); err != nil {
				return nil, fmt.Errorf("line %d: %w", len(all)+1, err)
			}
		}
		all = append(all, hit)
	}
	return all, lines.Err()
}
