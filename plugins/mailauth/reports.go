package mailauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimverify"
	"github.com/postern-mail/postern/plugins/internal/dmarc"
	"github.com/postern-mail/postern/plugins/internal/dmarcreport"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// Times of aggregate reports.
const (
	sendAfter = 10 * time.Minute // the end of the day, for other processes to finish writing
	sendEvery = time.Hour
	sendFirst = 5 * time.Second // after the start
	giveUp    = 72 * time.Hour  // after the end of the day
	sendTime  = 30 * time.Second
)

// maxPending bounds what is kept in memory while another process of the plugin has the journal.
const maxPending = 1000

// reports keeps what DMARC found, and mails it. The plugin's service is the one that writes:
// in a trial there is none, and nothing is kept.
type reports struct {
	dir    string
	sender dmarcreport.Sender // From is zero: nothing is mailed
	host   *sdk.Host

	mu      sync.Mutex
	journal *dmarcreport.Journal // nil while the service is not active
	pending []dmarcreport.Observation
	full    bool // and said so
}

func newReports(s Reports, c sdk.Config) (*reports, error) {
	r := &reports{dir: filepath.Join(c.DataDir, "mailauth"), host: c.Host}
	if s.From == "" {
		if s != (Reports{}) {
			return nil, errors.New("settings: reports.from is empty; give the address that reports come from")
		}
		return r, nil
	}
	from, err := mail.ParsePath(s.From)
	if err != nil || !from.IsASCII() {
		return nil, fmt.Errorf("settings: reports.from: %q is not an address", s.From)
	}
	r.sender = dmarcreport.Sender{Hostname: c.Hostname, Org: s.Org, Email: s.Email, From: from, Generator: "Postern"}
	if r.sender.Org == "" {
		r.sender.Org = from.Domain.String()
	}
	if r.sender.Email == "" {
		r.sender.Email = from.String()
	}
	for _, text := range []string{r.sender.Org, r.sender.Email} {
		if strings.ContainsAny(text, "\r\n\x00") || len(text) > 200 {
			return nil, errors.New("settings: reports.org and reports.email have to be short texts in one line")
		}
	}
	return r, nil
}

// Listeners implements [sdk.Service]: it has none.
func (p *Plugin) Listeners(context.Context) ([]string, error) { return nil, nil }

// Serve keeps the data for reports, and mails them when their day is over.
func (p *Plugin) Serve(ctx context.Context, _ []net.Listener) error {
	if err := p.reports.open(p.now()); err != nil {
		// Mail is authenticated all the same.
		slog.Error("data for dmarc reports cannot be kept", "error", err)
		<-ctx.Done()
		return nil
	}
	defer p.reports.close()
	if p.reports.sender.From.IsZero() {
		<-ctx.Done()
		return nil
	}
	wait := time.NewTimer(sendFirst)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
			p.sendDue(ctx)
			wait.Reset(sendEvery)
		}
	}
}

func (r *reports) open(now time.Time) error {
	j, err := dmarcreport.Open(r.dir)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.journal = j
	for _, o := range r.pending {
		r.add(now, o)
	}
	r.pending = nil
	return nil
}

func (r *reports) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.journal.Close(); err != nil {
		slog.Warn("data for dmarc reports is not durable", "error", err)
	}
	r.journal = nil
}

// add writes to the journal; the lock is held.
func (r *reports) add(now time.Time, o dmarcreport.Observation) {
	if err := r.journal.Add(now, o); err != nil && !r.full {
		r.full = true
		slog.Warn("data for dmarc reports is lost", "error", err)
	} else if err == nil {
		r.full = false
	}
}

// observe keeps what DMARC found for those who want to know.
func (p *Plugin) observe(f *facts, d decision) {
	for _, res := range f.dmarc {
		if res.Record == nil || len(res.Record.Reports) == 0 || res.Value != dmarc.Pass && res.Value != dmarc.Fail || !f.client.Addr.IsValid() {
			continue
		}
		o := observation(f, res, d)
		r := p.reports
		r.mu.Lock()
		if r.journal != nil {
			r.add(p.now(), o)
		} else if len(r.pending) < maxPending {
			r.pending = append(r.pending, o)
		}
		r.mu.Unlock()
	}
}

func observation(f *facts, res dmarc.Result, d decision) dmarcreport.Observation {
	row := dmarcreport.Row{IP: f.client.Addr.Unmap().String(), DKIM: res.DKIM, SPF: res.SPF, HeaderFrom: res.Author.String(), EnvelopeFrom: f.sender.Domain.String()}
	switch {
	case res.Value == dmarc.Pass && res.Record.P != dmarc.None:
		row.Disposition = "pass"
	case res.Value == dmarc.Fail && d.action == sdk.ActionReject:
		row.Disposition = "reject"
	case res.Value == dmarc.Fail && d.action == sdk.ActionQuarantine:
		row.Disposition = "quarantine"
	default:
		row.Disposition = "none"
	}
	if res.Value == dmarc.Fail && row.Disposition != string(res.Published) {
		row.Override, row.Comment = d.override, d.why
		if row.Override == "" {
			row.Override = "other"
		}
	}
	if !f.reverse.IsZero() {
		row.SPFDomain, row.SPFResult = f.reverse.String(), string(f.spf.Result)
	}
	n := 0
	for _, want := range []bool{true, false} { // those that pass first (RFC 9990, DKIM Signatures in Aggregate Reports)
		for _, s := range f.dkim {
			if (s.Value == dkimverify.Pass) == want && !s.Domain.IsZero() && n < len(row.Signatures) {
				row.Signatures[n] = dmarcreport.Signature{Domain: s.Domain.String(), Selector: s.Selector, Result: string(s.Value), Reason: s.Reason}
				n++
			}
		}
	}
	return dmarcreport.Observation{Published: dmarcreport.PublishedBy(res.Domain, res.Record), Reports: res.Record.Reports, Row: row}
}

// sendDue mails the reports of the days that are over.
func (p *Plugin) sendDue(ctx context.Context) {
	now := p.now()
	j := p.reports.journal // the service's own: it closes it after this
	for _, day := range j.Finished(now) {
		end, err := time.Parse(time.DateOnly, day)
		end = end.Add(24 * time.Hour)
		if err != nil || now.Sub(end) < sendAfter {
			continue
		}
		done, err := p.sendDay(ctx, j, day)
		if err != nil {
			slog.Warn("dmarc reports are not sent yet", "day", day, "error", err)
		}
		if done || now.Sub(end) > giveUp {
			if err := j.Remove(day); err != nil {
				slog.Warn("data of dmarc reports cannot be removed", "day", day, "error", err)
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// sendDay mails the reports of a day that were not mailed yet. It returns whether there are
// no more.
func (p *Plugin) sendDay(ctx context.Context, j *dmarcreport.Journal, day string) (bool, error) {
	all, err := j.Reports(day)
	if err != nil {
		return false, err
	}
	sent, err := j.Sent(day)
	if err != nil {
		return false, err
	}
	var errs []error
	mailed := 0
	for _, r := range all {
		if sent[r.Published.Domain] {
			continue
		}
		ok, err := p.send(ctx, r)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Published.Domain, err))
			continue
		}
		if ok {
			mailed++
		}
		if err := j.MarkSent(day, r.Published.Domain); err != nil {
			return false, err
		}
	}
	if mailed > 0 {
		slog.Info("dmarc reports sent", "day", day, "reports", mailed)
	}
	if len(errs) > 0 {
		return false, fmt.Errorf("%d of %d domains; the first: %w", len(errs), len(all), errs[0])
	}
	return true, nil
}

// send mails one report; false if nobody may have it.
func (p *Plugin) send(ctx context.Context, r *dmarcreport.Report) (bool, error) {
	policy, err := mail.ParseDomain(r.Published.Domain)
	if err != nil {
		return false, nil
	}
	dnsCtx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	to, err := dmarcreport.Destinations(dnsCtx, p.resolver, policy, r.Reports)
	if err != nil {
		return false, err
	}
	if len(to) == 0 {
		return false, nil
	}
	header, body, err := r.Message(p.reports.sender, to, p.now())
	if err != nil {
		return false, err
	}
	_, err = p.reports.host.Submit(ctx, sdk.Submission{ReversePath: p.reports.sender.From, Recipients: to, Header: header, Body: bytes.NewReader(body)})
	if st := (mail.Status{}); errors.As(err, &st) && st.Permanent() {
		slog.Warn("a dmarc report was refused", "domain", r.Published.Domain, "error", err)
		return false, nil
	}
	return err == nil, err
}
