package intake

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/postern-mail/postern/core/pipeline"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/queue/local"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/core/trace"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

type filter func(m *mail.Message) (*sdk.Verdict, error)

func (f filter) Filter(_ context.Context, m *mail.Message) (*sdk.Verdict, error) { return f(m) }

type recorder struct{ events []trace.Event }

func (r *recorder) Record(e trace.Event) { r.events = append(r.events, e) }

type rig struct {
	t     *testing.T
	in    *Intake
	store *local.Store
	dir   string
	rec   *recorder
}

func newRig(t *testing.T, filters ...filter) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), rec: &recorder{}}
	sp, err := spool.Open(spool.Options{Dir: r.dir + "/content", Threshold: 1000})
	if err != nil {
		t.Fatal(err)
	}
	r.store, err = local.Open(local.Options{Dir: r.dir + "/queue", Content: sp})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.store.Close() })
	var steps []pipeline.Step
	for _, f := range filters {
		steps = append(steps, pipeline.Step{Name: "p", Filter: f, Origins: []mail.Origin{mail.Incoming, mail.Submitted}})
	}
	groups := map[mail.Path][]mail.Path{
		mail.MustPath("group@x.test"): {mail.MustPath("a@x.test"), mail.MustPath("b@x.test")},
		mail.MustPath("alias@x.test"): {mail.MustPath("a@x.test")},
	}
	r.in = New(Options{Hostname: "mx.test", Postmaster: mail.MustPath("postmaster@mx.test"), IDs: &queue.IDs{}, Spool: sp, Store: r.store,
		Backoff: queue.DefaultBackoff(), Trace: r.rec, Log: slog.New(slog.DiscardHandler), Clock: time.Now}, Rules{
		Pipeline:   pipeline.New(pipeline.Options{Steps: steps, Trace: r.rec, Clock: time.Now}),
		HeaderSize: 4096, Hops: 100,
		Destination: func(p mail.Path) string { return p.Domain.String() },
		Expand: func(_ context.Context, p mail.Path) ([]mail.Path, error) {
			if g, ok := groups[p]; ok {
				return g, nil
			}
			if p.Local == "broken" {
				return nil, errors.New("directory is down")
			}
			return []mail.Path{p}, nil
		}})
	return r
}

func envelope(origin mail.Origin, to ...string) *mail.Envelope {
	env := &mail.Envelope{Origin: origin, ReversePath: mail.MustPath("from@y.test"),
		Client: mail.Client{Addr: netip.MustParseAddr("192.0.2.1"), Helo: "client.test", Protocol: "ESMTP"}}
	for _, s := range to {
		env.Recipients = append(env.Recipients, mail.Recipient{Path: mail.MustPath(s)})
	}
	return env
}

func (r *rig) receive(env *mail.Envelope, client pipeline.Client, text string) Receipt {
	r.t.Helper()
	receipt, err := r.in.Receive(context.Background(), env, client, strings.NewReader(text))
	if err != nil {
		r.t.Fatal(err)
	}
	return receipt
}

// entries are what is queued, in order.
func (r *rig) entries() (es []*queue.Entry, recs [][]queue.Record) {
	r.t.Helper()
	var ids []queue.ID
	err := r.store.Scan(context.Background(), func(i queue.Item) bool {
		if len(ids) == 0 || ids[len(ids)-1] != i.ID {
			ids = append(ids, i.ID)
		}
		return true
	})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, id := range ids {
		e, rs, err := r.store.Get(context.Background(), id)
		if err != nil {
			r.t.Fatal(err)
		}
		es, recs = append(es, e), append(recs, rs)
	}
	return es, recs
}

// contents is the number of content files.
func (r *rig) contents() int {
	r.t.Helper()
	files, err := os.ReadDir(r.dir + "/content")
	if err != nil {
		r.t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		if f.Type().IsRegular() {
			n++
		}
	}
	return n
}

const plain = "Subject: s\r\nBcc: secret@x.test\r\n\r\nbody\r\n"

func TestHeaderIsFixedInOnePlace(t *testing.T) {
	r := newRig(t)
	forged := "Authentication-Results: mx.test; spf=pass\r\nAuthentication-Results: (c) MX.test 1; dkim=pass\r\nAuthentication-Results: other.test; spf=pass\r\n" +
		"Authentication-Results: \"MX\\.test.\"; arc=pass\r\nAuthentication-Results : mx.test,\r\n\tfoo; dkim=pass\r\nX-Postern-Unscanned: no\r\nX-Spam: no\r\n"
	r.receive(envelope(mail.Incoming, "a@x.test"), pipeline.SMTPClient, forged+plain)
	es, _ := r.entries()
	h := string(es[0].Header.Block())
	for _, gone := range []string{"mx.test; spf", "MX.test", "arc=", "mx.test,", "dkim=", "X-Postern"} { // H-03
		if strings.Contains(h, gone) {
			t.Errorf("%q is still there:\n%s", gone, h)
		}
	}
	want := "Authentication-Results: other.test; spf=pass\r\nX-Spam: no\r\n" + "Subject: s\r\nBcc: secret@x.test\r\n\r\n"
	received, rest, _ := strings.Cut(h, "\r\nAuth")
	if "Auth"+rest != want {
		t.Errorf("relayed mail is changed:\n%s", h)
	}
	if !strings.HasPrefix(received, "Received: from client.test ([192.0.2.1])\r\n\tby mx.test (Postern) with ESMTP\r\n\tid ") || !strings.Contains(received, "for <a@x.test>;") {
		t.Errorf("%s", received)
	}
}

func TestH07SubmissionIsCompleted(t *testing.T) {
	r := newRig(t)
	env := envelope(mail.Submitted, "a@x.test", "b@x.test")
	env.Client.User, env.Client.Class = "from@y.test", mail.Authenticated
	r.receive(env, pipeline.SMTPClient, plain)
	es, _ := r.entries()
	h := es[0].Header
	if h.Has("Bcc") || h.Count("Date") != 1 || h.Count("Message-ID") != 1 {
		t.Errorf("%s", h.Block())
	}
	if strings.Contains(h.Get("Received"), "for <") { // it would tell each recipient of the other
		t.Errorf("%s", h.Block())
	}
	relayed := envelope(mail.Submitted, "a@x.test")
	relayed.Client.Class = mail.Relay
	r.receive(relayed, pipeline.SMTPClient, plain)
	es, _ = r.entries()
	if !es[1].Header.Has("Bcc") || es[1].Header.Has("Date") {
		t.Errorf("a relay's mail is not a submission: %s", es[1].Header.Block())
	}
}

func TestH05ReceivedCannotBeForged(t *testing.T) {
	r := newRig(t)
	for _, helo := range []string{"x\tby evil", "<script>", "a\r\nX-Evil: 1", "(", strings.Repeat("a", 300), ""} {
		env := envelope(mail.Incoming, "a@x.test")
		env.Client.Helo, env.Client.TLS = helo, "TLS1.3) by evil (\r\nX-Evil: 1"
		r.receive(env, pipeline.SMTPClient, plain)
	}
	es, _ := r.entries()
	for _, e := range es {
		if e.Header.Has("X-Evil") || !strings.HasPrefix(e.Header.Get("Received"), "from invalid.helo ([192.0.2.1])") || strings.Count(e.Header.Get("Received"), " by ")+strings.Count(e.Header.Get("Received"), "\tby ") > 2 {
			t.Errorf("%s", e.Header.Block())
		}
	}
}

func TestH05ReceivedNamesClient(t *testing.T) {
	for host, want := range map[string]string{"": "", "mx.example.org": "mx.example.org ", "x) by evil (": "", "a\r\nX-Evil: 1": "", strings.Repeat("a", 300): ""} {
		r := newRig(t)
		env := envelope(mail.Incoming, "a@x.test")
		env.Client.Host = host
		r.receive(env, pipeline.SMTPClient, plain)
		es, _ := r.entries()
		if h := es[0].Header; h.Has("X-Evil") || !strings.HasPrefix(h.Get("Received"), "from client.test ("+want+"[192.0.2.1])") {
			t.Errorf("%q:\n%s", host, h.Block())
		}
	}
}

// TestH06HeaderEndsWhereWeSeeItsEnd: some readers look for fields after a line that is
// none. They must not find there what we would have removed.
func TestH06HeaderEndsWhereWeSeeItsEnd(t *testing.T) {
	for text, want := range map[string]string{
		"Subject: x\r\nbroken line\r\nX-Postern-A: 1\r\n\r\nbody": "Subject: x\r\n\r\nbroken line\r\nX-Postern-A: 1\r\n\r\nbody",
		"X-Postern-A: 1\r\nbroken line\r\nX-Postern-A: 1\r\n":     "\r\nbroken line\r\nX-Postern-A: 1\r\n",
		" broken line\r\nX-Postern-A: 1\r\n\r\nbody":              "\r\n broken line\r\nX-Postern-A: 1\r\n\r\nbody",
		"S\xfc: x\r\nX-Postern-A: 1\r\n\r\nbody":                  "\r\nS\xfc: x\r\nX-Postern-A: 1\r\n\r\nbody",
	} {
		r := newRig(t)
		r.receive(envelope(mail.Incoming, "a@x.test"), pipeline.SMTPClient, text)
		es, _ := r.entries()
		_, rest, _ := bytes.Cut(es[0].Header.Block(), []byte(" +0000\r\n"))
		rd, _ := es[0].Body.Open()
		body, _ := io.ReadAll(rd)
		if got := string(rest) + string(body); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestOddMessagesPassUnchanged(t *testing.T) {
	r := newRig(t)
	for _, text := range []string{"no header at all\r\n", "Subject: no blank line\r\n", "\r\nonly a body\r\n", "", " leading space\r\n\r\nx\r\n",
		"Subject: x\r\nno blank line, no field\r\n", "Subject: x\r\nbroken line\r\n\r\nX-Postern-A: in the body\r\n"} {
		r.receive(envelope(mail.Incoming, "a@x.test"), pipeline.SMTPClient, text)
		es, _ := r.entries()
		e := es[len(es)-1]
		_, body, _ := bytes.Cut(e.Header.Block(), []byte(" +0000\r\n"))
		rd, _ := e.Body.Open()
		rest, _ := io.ReadAll(rd)
		got := string(body) + string(rest)
		if e.Header.Count("Received") != 1 || got != text && got != "\r\n"+text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestAliasesAndDuplicates(t *testing.T) {
	r := newRig(t)
	receipt := r.receive(envelope(mail.Incoming, "group@x.test", "a@x.test", "alias@x.test", "c@x.test", "c@x.test"), pipeline.LMTPClient, plain)
	es, _ := r.entries()
	got := ""
	for _, x := range es[0].Envelope.Recipients {
		got += x.Path.Local + "<" + x.Original.Local + " "
	}
	if got != "a<group b<group c< " {
		t.Errorf("recipients %q", got)
	}
	if len(receipt.PerRecipient) != 5 || !receipt.PerRecipient[4].Success() {
		t.Errorf("replies %v", receipt.PerRecipient)
	}
	if _, err := r.in.Receive(context.Background(), envelope(mail.Incoming, "broken@x.test"), pipeline.SMTPClient, strings.NewReader(plain)); mail.StatusOf(err).Code != 451 {
		t.Errorf("a directory that is down: %v", err)
	}
}

// only returns a filter that gives one outcome to one local part.
func only(local string, o sdk.Outcome) filter {
	return func(m *mail.Message) (*sdk.Verdict, error) {
		v := sdk.Continue()
		for i, rcpt := range m.Envelope.Recipients {
			if rcpt.Path.Local == local {
				v.For(i, o)
			}
		}
		return v, nil
	}
}

var no = mail.Permanent(550, 7, 1, "no")

func TestL09RejectAfterAcceptance(t *testing.T) {
	r := newRig(t, only("b", sdk.Outcome{Action: sdk.ActionReject, Status: no}))
	r.receive(envelope(mail.Incoming, "a@x.test", "b@x.test"), pipeline.SMTPClient, plain)
	es, recs := r.entries()
	if len(es) != 2 || recs[0][0].State != queue.Pending || recs[1][0].State != queue.Held || es[1].Run.Complete {
		t.Fatalf("a stranger's refused recipient is to be held: %v", recs)
	}
	if es[0].ID.String() != es[0].Envelope.ID || es[1].Family != es[0].ID {
		t.Errorf("ids %v %v", es[0].ID, es[1].Family)
	}

	r = newRig(t, only("b", sdk.Outcome{Action: sdk.ActionReject, Status: no}))
	env := envelope(mail.Submitted, "a@x.test", "b@x.test")
	env.Client.Class = mail.Authenticated
	r.receive(env, pipeline.SMTPClient, plain)
	es, recs = r.entries()
	if len(es) != 2 || es[1].Envelope.Origin != mail.Internal || es[1].Envelope.Recipients[0].Path != env.ReversePath || !es[1].Envelope.ReversePath.IsZero() {
		t.Fatalf("a known sender is to be told: %v", recs)
	}
	if recs[1][0].Destination != PipelineDestination {
		t.Error("a report is mail of ours and goes through the pipeline")
	}
}

func TestRefusedMailLeavesNothing(t *testing.T) {
	large := plain + strings.Repeat("x", 5000) + "\r\n"
	r := newRig(t, func(*mail.Message) (*sdk.Verdict, error) { return sdk.Reject(no), nil })
	if receipt := r.receive(envelope(mail.Incoming, "a@x.test"), pipeline.SMTPClient, large); receipt.Reply != no {
		t.Errorf("%v", receipt.Reply)
	}
	if _, err := r.in.Receive(context.Background(), envelope(mail.Incoming, "a@x.test"), pipeline.SMTPClient,
		io.MultiReader(strings.NewReader(large), iotest.ErrReader(errors.New("gone")))); err == nil {
		t.Error("a client that went away was answered")
	}
	if _, err := r.in.Receive(context.Background(), envelope(mail.Incoming, "a@x.test"), pipeline.SMTPClient, // H-01
		strings.NewReader(strings.Repeat("X-Long: x\r\n", 1000)+"\r\n")); mail.StatusOf(err).Code != 552 {
		t.Errorf("header flood: %v", err)
	}
	if es, _ := r.entries(); len(es) != 0 || r.contents() != 0 {
		t.Errorf("%d entries, %d content files left", len(es), r.contents())
	}
}

func TestDiscardIsOnRecord(t *testing.T) {
	r := newRig(t, func(*mail.Message) (*sdk.Verdict, error) { return sdk.Discard("bin"), nil })
	receipt := r.receive(envelope(mail.Incoming, "a@x.test"), pipeline.SMTPClient, plain+strings.Repeat("x", 5000))
	if !receipt.Reply.Success() {
		t.Error(receipt.Reply)
	}
	if es, _ := r.entries(); len(es) != 0 || r.contents() != 0 {
		t.Error("discarded mail is queued")
	}
	found := false
	for _, e := range r.rec.events {
		found = found || e.Type == trace.Discarded && e.To == "a@x.test" && strings.Contains(e.Reason, "bin")
	}
	if !found { // G-20
		t.Error("discarded silently")
	}
}

func TestCopiesNeverShow(t *testing.T) {
	archive := mail.MustPath("archive@x.test")
	r := newRig(t, func(*mail.Message) (*sdk.Verdict, error) {
		return sdk.Continue().AddCopy(archive, mail.MustPath("postmaster@mx.test")), nil
	})
	r.receive(envelope(mail.Incoming, "a@x.test"), pipeline.SMTPClient, plain)
	es, _ := r.entries()
	if len(es) != 2 || es[1].Class != queue.Copy || es[1].Envelope.ReversePath != mail.MustPath("postmaster@mx.test") || es[1].Envelope.Recipients[0].Path != archive {
		t.Fatalf("%+v", es)
	}
	if len(es[0].Envelope.Recipients) != 1 || strings.Contains(string(es[0].Header.Block()), "archive") {
		t.Error("the copy shows in the message")
	}
	// A copy that fails is told to its own reverse-path.
	adds, _ := r.in.Reports(es[1], refusals(&pipeline.Version{Recipients: []pipeline.Recipient{{}}, Status: no}))
	if len(adds) != 1 || adds[0].Entry.Envelope.Recipients[0].Path.Local != "postmaster" {
		t.Errorf("%+v", adds)
	}
}
