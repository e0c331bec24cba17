package pluginhost

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// A plugin with the right to replace bodies gets, with each call, a draft: an empty file
// that the host made and holds open. What the plugin names is only compared with the
// draft's path; what is read is the host's own file. The draft goes when the call ends,
// however it ends, and those of a host that was killed go when the next one starts.

// ownFault is what went wrong on the gateway's side: no fault of the plugin, so that
// nothing that is configured about the plugin's faults applies.
type ownFault struct{ err error }

func (o *ownFault) Error() string { return "pluginhost: " + o.err.Error() }
func (o *ownFault) Unwrap() error { return o.err }

// Reason is "gateway".
func (o *ownFault) Reason() string { return "gateway" }

// openDrafts removes the drafts of a previous host.
func (h *Host) openDrafts() error {
	h.drafts = h.opt.DraftDir
	if h.drafts == "" {
		h.drafts = filepath.Join(h.opt.RunDir, "drafts")
	}
	if err := os.RemoveAll(h.drafts); err != nil {
		return fmt.Errorf("plugin host: drafts: %w", err)
	}
	return nil
}

// newDraft makes an empty draft. Its name cannot be guessed and the directory not be listed
// by others, as it is with content. Who calls newDraft calls discard.
func (h *Host) newDraft() (*os.File, error) {
	f, err := h.createDraft()
	if errors.Is(err, fs.ErrNotExist) { // the first one
		if err := os.Mkdir(h.drafts, 0o710); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err = h.createDraft()
	}
	return f, err
}

func (h *Host) createDraft() (*os.File, error) {
	return os.OpenFile(filepath.Join(h.drafts, rand.Text()), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o660)
}

// draftFor makes a draft that a process can write to. Who calls it calls discard.
func (h *Host) draftFor(p *process) (*os.File, error) {
	draft, err := h.newDraft()
	if u := p.spec.User; err == nil && u != nil { // it has to get there, and to write
		if err = errors.Join(os.Chmod(h.drafts, 0o711), draft.Chown(u.UID, u.GID)); err != nil {
			discard(draft)
		}
	}
	return draft, err
}

func discard(draft *os.File) {
	if draft != nil {
		os.Remove(draft.Name())
		draft.Close()
	}
}

// Rewrite is [Filter.Filter] for a caller that can take another body, of at most max bytes.
// It is handed to keep, in wire form or with an error, and comes back as what keep made of
// it where the verdict has an edit that says so, else as the zero Body. An error that is
// no failure of the plugin, but of keep or of the host, has the Reason "gateway".
func (f *Filter) Rewrite(ctx context.Context, m *mail.Message, max int64, keep func(io.Reader) (mail.Body, error)) (*sdk.Verdict, mail.Body, error) {
	var v *sdk.Verdict
	var body mail.Body
	var own error
	err := f.slot.judged(ctx, m.Envelope.Client, func(ctx context.Context, p *process) (err error) {
		own = nil
		if !p.desc.Filter {
			return fail(f.slot.name, Error, errNotAFilter)
		}
		req, err := wire.FilterRequest(m, p.desc.Manifest.Needs)
		if err != nil {
			return fail(f.slot.name, Error, err)
		}
		var draft *os.File
		if keep != nil && p.desc.Manifest.May&sdk.MayReplaceBody != 0 {
			if draft, own = f.host.draftFor(p); own != nil {
				return nil
			}
			defer discard(draft)
			req.Draft = draft.Name()
		}
		pv, err := p.filter.Filter(ctx, req)
		if err != nil {
			return err
		}
		if v, err = wire.VerdictDraft(pv, p.desc.Manifest, &m.Envelope, req.Draft); err != nil {
			return garbage(f.slot.name, fmt.Errorf("its verdict breaks the contract: %w", err))
		}
		if room, yes := replaces(v, max); yes {
			r := &strict{r: draft, left: room}
			if body, own = keep(r); r.fault != nil {
				own = nil
				return garbage(f.slot.name, fmt.Errorf("its new body breaks the contract: %w", r.fault))
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, mail.Body{}, err
	case own != nil:
		return nil, mail.Body{}, &ownFault{own}
	}
	return v, body, nil
}

// wrapping is how much larger than a message the body of a copy may be that has the message in
// it: by its header, and a report.
const wrapping = proto.MaxHeader + 1<<20

// replaces reports whether a verdict has a body of its own, and how large that may be.
func replaces(v *sdk.Verdict, max int64) (room int64, yes bool) {
	for i := range v.Edits {
		switch {
		case v.Edits[i].Kind == sdk.BodyReplace:
			return max, true
		case v.Edits[i].BodyDraft != "":
			room, yes = max+wrapping, true
		}
	}
	return room, yes
}

// strict reads what a plugin wrote, and fails where it is not the wire form of a body: what
// one server takes for a line end and another does not is how mail is smuggled.
type strict struct {
	r     io.Reader
	left  int64 // bytes
	cr    bool  // the last byte was a CR
	fault error // of the plugin
}

var (
	errBodySize = errors.New("it is larger than a message may be")
	errBareCR   = errors.New("it has a bare CR: lines end in CRLF")
	errBareLF   = errors.New("it has a bare LF: lines end in CRLF")
	errNUL      = errors.New("it has a NUL")
)

func (s *strict) Read(p []byte) (int, error) {
	if s.fault != nil {
		return 0, s.fault
	}
	n, err := s.r.Read(p)
	s.left -= int64(n)
	switch {
	case s.left < 0:
		s.fault = errBodySize
	case n > 0:
		s.fault = s.look(p[:n])
	}
	if err == io.EOF && s.cr && s.fault == nil {
		s.fault = errBareCR
	}
	if s.fault != nil {
		return 0, s.fault
	}
	return n, err
}

// look checks one piece.
func (s *strict) look(p []byte) error {
	if s.cr && p[0] != '\n' {
		return errBareCR
	}
	if bytes.IndexByte(p, 0) >= 0 {
		return errNUL
	}
	for at := 0; at < len(p); {
		i := bytes.IndexByte(p[at:], '\n')
		line := p[at:]
		if i >= 0 {
			line = p[at : at+i]
			ended := len(line) > 0 && line[len(line)-1] == '\r' || len(line) == 0 && at == 0 && s.cr
			if !ended {
				return errBareLF
			}
			if len(line) > 0 {
				line = line[:len(line)-1]
			}
			at += i + 1
		} else {
			at = len(p)
			line = bytes.TrimSuffix(line, []byte("\r")) // the next piece will show
		}
		if bytes.IndexByte(line, '\r') >= 0 {
			return errBareCR
		}
	}
	s.cr = p[len(p)-1] == '\r'
	return nil
}
