package dnsbl

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/plugins/internal/peer"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// subject is what a list is asked about.
type subject struct {
	of    string
	text  string // as a reply names it
	query string // as it stands before the list's zone
}

// subjects are what is known of a client at a stage.
func (p *Plugin) subjects(ctx context.Context, a *sdk.Attempt) []subject {
	addr := peer.Addr(&a.Envelope.Client)
	all := []subject{{ofClient, addr.String(), reversed(addr)}}
	if a.Stage == sdk.AtConnect {
		return all
	}
	add := func(of string, d mail.Domain) {
		// A name with one label is in no list, and a literal is no name.
		if _, literal := d.Literal(); !literal && strings.Contains(d.String(), ".") && len(d.String()) < 190 && p.asked(of) {
			all = append(all, subject{of, d.String(), d.String()})
		}
	}
	add(ofSender, a.Envelope.ReversePath.Domain)
	if d, err := mail.ParseDomain(strings.TrimSuffix(a.Envelope.Client.Helo, ".")); err == nil {
		add(ofHelo, d)
	}
	if p.asked(ofName) {
		add(ofName, p.name(ctx, &a.Envelope.Client))
	}
	return all
}

// asked reports whether there is a list of that.
func (p *Plugin) asked(of string) bool {
	return slices.ContainsFunc(p.lists, func(l *list) bool { return slices.Contains(l.of, of) })
}

// name is the client's name, if one leads back to it: others anybody could have.
func (p *Plugin) name(ctx context.Context, c *mail.Client) mail.Domain {
	// Time of its own: a slow name is not to look as if the lists were.
	ctx, cancel := context.WithTimeout(ctx, p.s.Timeout/2)
	defer cancel()
	name, _ := peer.Name(ctx, p.resolver, c, func(name string) bool { _, err := mail.ParseDomain(name); return err == nil })
	d, _ := mail.ParseDomain(name)
	return d
}

// hit is what a list answered.
type hit struct {
	place   int // of the list
	list    *list
	subject subject
	answers []netip.Addr
	weight  float64
}

// result is what all lists answered.
type result struct {
	score      float64
	hits       []hit    // one for a list, the heaviest first
	unanswered []string // the lists that did not
}

// collect asks every list about what it has, all at the same time.
func (p *Plugin) collect(ctx context.Context, subjects []subject) result {
	ctx, cancel := context.WithTimeout(ctx, p.s.Timeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var r result
	for i, l := range p.lists {
		for _, s := range subjects {
			if !slices.Contains(l.of, s.of) {
				continue
			}
			wg.Go(func() {
				addrs, err := l.lookup(ctx, p.dns, s.query)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && len(addrs) > 0:
					r.hits = append(r.hits, hit{i, l, s, addrs, l.weigh(addrs)})
				case err != nil && !slices.Contains(r.unanswered, l.name):
					r.unanswered = append(r.unanswered, l.name)
				}
			})
		}
	}
	wg.Wait()
	slices.SortFunc(r.hits, func(a, b hit) int {
		return cmp.Or(cmp.Compare(math.Abs(b.weight), math.Abs(a.weight)), cmp.Compare(a.place, b.place), cmp.Compare(a.subject.of, b.subject.of))
	})
	seen := make(map[*list]bool)
	r.hits = slices.DeleteFunc(r.hits, func(h hit) bool { // a list counts once
		again := seen[h.list]
		seen[h.list] = true
		return again || h.weight == 0
	})
	for _, h := range r.hits {
		r.score += h.weight
	}
	r.score = math.Round(r.score*1e6) / 1e6 // a sum of tenths is no more than they are
	slices.Sort(r.unanswered)
	return r
}

// maxText is how much of what a list says goes into a reply, in bytes.
const maxText = 200

// reply says which list has what, and what that list says of it.
func (p *Plugin) reply(ctx context.Context, r result) string {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	i := slices.IndexFunc(r.hits, func(h hit) bool { return h.weight > 0 })
	if i < 0 {
		return "Listed"
	}
	h := r.hits[i]
	what := map[string]string{ofClient: "Client", ofName: "Client name", ofHelo: "HELO name", ofSender: "Sender domain"}[h.subject.of]
	text := fmt.Sprintf("%s %s is listed by %s", what, h.subject.text, h.list.name)
	if said, err := p.dns.ask(ctx, h.subject.query+"."+h.list.zone, dns.TypeTXT); err == nil && len(said.texts) > 0 {
		if t := plain(said.texts[0]); t != "" {
			text += ": " + t
		}
	}
	return text
}

// plain makes one line of printable ASCII of what a list says.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s[:min(len(s), 4*maxText)])
	s = strings.Join(strings.Fields(s), " ")
	return s[:min(len(s), maxText)]
}

// maxNote is the length of a note, in bytes.
const maxNote = 1000

// note leaves the score to later plugins.
func (p *Plugin) note(v *sdk.Verdict, r result) {
	if len(r.unanswered) > 0 {
		v.Note("unanswered", clip(strings.Join(r.unanswered, ", ")))
	}
	if len(r.hits) == 0 || !p.s.Note.reached(r.score) {
		return
	}
	texts := make([]string, len(r.hits))
	for i, h := range r.hits {
		answers := make([]string, len(h.answers))
		for k, a := range h.answers {
			answers[k] = a.String()
		}
		slices.Sort(answers)
		texts[i] = fmt.Sprintf("%s=%g (%s %s: %s)", h.list.name, h.weight, h.subject.of, h.subject.text, strings.Join(answers, " "))
	}
	v.Note("score", fmt.Sprintf("%g", r.score))
	v.Note("lists", clip(strings.Join(texts, ", ")))
}

func clip(s string) string {
	if len(s) > maxNote {
		return s[:maxNote-3] + "..."
	}
	return s
}
