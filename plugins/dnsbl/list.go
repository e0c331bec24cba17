package dnsbl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// What lists are of.
const (
	ofClient = "client" // the client's address
	ofName   = "name"   // its name in the DNS, if that leads back to it
	ofHelo   = "helo"
	ofSender = "sender" // the domain of the reverse-path
)

// list is a list in the DNS, with how it has fared.
type list struct {
	zone, name string
	of         []string
	weight     float64
	answers    []pattern
	test       string // the entry it must have; "": what RFC 5782 says, "off": none

	mu       sync.Mutex
	failures int       // since it answered last
	away     time.Time // left alone until then
	why      string    // why; "" while all is well
	nextTest time.Time
	testing  chan struct{} // closed when the test that is under way is over
}

const (
	maxFailures = 5 // in a row
	pauseTime   = 5 * time.Minute
	brokenTime  = time.Hour
	testEvery   = time.Hour
)

var (
	loopback   = netip.MustParsePrefix("127.0.0.0/8")
	errorCodes = netip.MustParsePrefix("127.255.255.0/24") // of Spamhaus and others: "not for you"
	errAway    = errors.New("it is left alone")
)

// lookup returns what the list answers about a name below its zone; nothing: it is not listed.
func (l *list) lookup(ctx context.Context, d *asker, subject string) ([]netip.Addr, error) {
	if err := l.ready(ctx, d); err != nil {
		return nil, err
	}
	r, err := d.ask(ctx, subject+"."+l.zone, dns.TypeA)
	if err != nil {
		l.failed(ctx, d.now(), err)
		return nil, err
	}
	if err := legal(r.addrs); err != nil {
		l.leave(d.now().Add(brokenTime), err.Error())
		return nil, err
	}
	l.answered(d.now())
	return r.addrs, nil
}

// legal tells the answers of a list from those of a server that wants no questions, and of a
// domain that has been sold.
func legal(addrs []netip.Addr) error {
	for _, a := range addrs {
		if errorCodes.Contains(a) {
			return fmt.Errorf("it does not want to be asked by this resolver (%s)", a)
		}
		if !loopback.Contains(a) {
			return fmt.Errorf("it answers %s, which no list does (RFC 5782)", a)
		}
	}
	return nil
}

// ready waits for the first test of the list. Later ones do not keep anybody waiting.
func (l *list) ready(ctx context.Context, d *asker) error {
	l.mu.Lock()
	now := d.now()
	if now.Before(l.away) {
		l.mu.Unlock()
		return errAway
	}
	first := l.nextTest.IsZero() || l.why != ""
	if l.test != "off" && l.testing == nil && (first || !now.Before(l.nextTest)) {
		done := make(chan struct{})
		l.testing = done
		go func() {
			defer close(done)
			l.runTest(context.WithoutCancel(ctx), d)
		}()
	}
	wait := l.testing
	l.mu.Unlock()
	if wait == nil || !first {
		return nil
	}
	select {
	case <-wait:
	case <-ctx.Done():
		return ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why != "" || l.nextTest.IsZero() {
		return errAway
	}
	return nil
}

// runTest asks for entries that every list must and must not have (RFC 5782 §5). The time for
// each of the two questions is the asker's.
func (l *list) runTest(ctx context.Context, d *asker) {
	fault, err := l.tested(ctx, d)
	switch {
	case err != nil:
		l.failed(ctx, d.now(), err)
	case fault != "":
		l.leave(d.now().Add(brokenTime), fault)
	default:
		l.answered(d.now())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.testing = nil
	if err == nil && fault == "" {
		l.nextTest = d.now().Add(testEvery)
	}
}

func (l *list) tested(ctx context.Context, d *asker) (fault string, err error) {
	has, not := "test", "invalid"
	if slices.Contains(l.of, ofClient) {
		has, not = "127.0.0.2", "127.0.0.1"
	}
	if l.test != "" {
		has = l.test
	}
	for _, entry := range []string{has, not} {
		subject := entry
		if a, err := netip.ParseAddr(entry); err == nil {
			subject = reversed(a)
		}
		r, err := d.ask(ctx, subject+"."+l.zone, dns.TypeA)
		if err != nil {
			return "", err
		}
		if err := legal(r.addrs); err != nil {
			return err.Error(), nil
		}
		if listed := len(r.addrs) > 0; listed != (entry == has) {
			if listed {
				return fmt.Sprintf("it lists %s, which no list has (RFC 5782): everything would be listed", entry), nil
			}
			return fmt.Sprintf("it does not list %s, which every list has (RFC 5782): it may be gone; set test if it has another entry for tests", entry), nil
		}
	}
	return "", nil
}

// failed counts a question without an answer.
func (l *list) failed(ctx context.Context, now time.Time, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return // the client has gone
	}
	l.mu.Lock()
	l.failures++
	enough := l.failures >= maxFailures
	l.mu.Unlock()
	if enough {
		l.leave(now.Add(pauseTime), fmt.Sprintf("no answer %d times in a row: %v", maxFailures, err))
	}
}

// leave leaves the list alone until then.
func (l *list) leave(until time.Time, why string) {
	l.mu.Lock()
	said := l.why != ""
	l.away, l.why = until, why
	l.failures = maxFailures - 1 // one more is enough then
	l.mu.Unlock()
	if !said {
		slog.Warn("list is left alone", "list", l.name, "why", why, "until", until.UTC().Format(time.RFC3339))
	}
}

// answered ends a pause that is over. What was asked before it began does not.
func (l *list) answered(now time.Time) {
	l.mu.Lock()
	if now.Before(l.away) {
		l.mu.Unlock()
		return
	}
	said := l.why != ""
	l.failures, l.why, l.away = 0, "", time.Time{}
	l.mu.Unlock()
	if said {
		slog.Info("list answers again", "list", l.name)
	}
}

// weigh returns what the answers of a list count. Each pattern counts once, and once counts
// what fits none.
func (l *list) weigh(addrs []netip.Addr) float64 {
	var sum float64
	seen := make([]bool, len(l.answers))
	other := false
	for _, a := range addrs {
		fits := false
		for i, p := range l.answers {
			if p.matches(a) {
				fits = true
				if !seen[i] {
					seen[i], sum = true, sum+p.weight
				}
			}
		}
		if !fits && !other {
			other, sum = true, sum+l.weight
		}
	}
	return sum
}

// reversed is how an address is asked for: its octets, or its nibbles, from the last to the
// first (RFC 5782 §2.1, §2.4).
func reversed(a netip.Addr) string {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return fmt.Sprintf("%d.%d.%d.%d", b[3], b[2], b[1], b[0])
	}
	const digits = "0123456789abcdef"
	b := a.As16()
	var out strings.Builder
	for i := 15; i >= 0; i-- {
		out.WriteByte(digits[b[i]&15])
		out.WriteByte('.')
		out.WriteByte(digits[b[i]>>4])
		if i > 0 {
			out.WriteByte('.')
		}
	}
	return out.String()
}
