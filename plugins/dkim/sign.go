package dkim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/sdk/mail"
)

// oversigned fields are signed once more often than they are there, so that nobody can add
// one (RFC 6376 §5.4.2): From always, and what people read or answer to.
func oversigned() []string {
	return []string{"From", "Reply-To", "Subject", "To", "Cc"}
}

// signed fields are signed as often as they are there; those of them that say how the body
// is to be read, and those that later servers add where they are missing (Postfix does, to
// mail of its own networks), once more if they are there at all. Fields that transport changes or lists
// add later (Received, Return-Path, List-Id...) are left out, unless they are there.
func signed() (withOne, plain []string) {
	return []string{"Date", "Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"},
		[]string{"Sender", "In-Reply-To", "References", "Content-ID", "Content-Description",
			"Resent-From", "Resent-To", "Resent-Cc", "Resent-Date", "Resent-Message-ID",
			"List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe", "List-Post", "List-Owner", "List-Archive"}
}

// maxRepeats bounds how often a field is named: the list is one line.
const maxRepeats = 3

// headerKeys is the h= list for a header.
func headerKeys(h mail.Header) []string {
	var keys []string
	add := func(name string, times int) {
		for range min(times, maxRepeats) {
			keys = append(keys, name)
		}
	}
	for _, name := range oversigned() {
		add(name, h.Count(name)+1)
	}
	withOne, plain := signed()
	for _, name := range withOne {
		if n := h.Count(name); n > 0 {
			add(name, n+1)
		}
	}
	for _, name := range plain {
		add(name, h.Count(name))
	}
	return keys
}

type buffers struct{ pool sync.Pool }

func (b *buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, 64<<10)
	return &p
}

// sign returns the value of the DKIM-Signature field.
func sign(ctx context.Context, m *mail.Message, k *key) (string, error) {
	keys := headerKeys(m.Header)
	s, err := dkim.NewSigner(&dkim.SignOptions{
		Domain:                 k.domain.String(),
		Selector:               k.selector,
		Signer:                 k.signer,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed,
		BodyCanonicalization:   dkim.CanonicalizationRelaxed,
		HeaderKeys:             keys,
	})
	if err != nil {
		return "", err
	}
	werr := write(ctx, s, m, keys, &k.buffers)
	if err := errors.Join(werr, s.Close()); err != nil { // Close ends the signer's goroutine
		return "", err
	}
	value, ok := strings.CutPrefix(s.Signature(), "DKIM-Signature:")
	if !ok {
		return "", errors.New("the signer made an unknown field")
	}
	return strings.TrimSpace(value), nil
}

// write gives the signer the message as a verifier will see it.
func write(ctx context.Context, w io.Writer, m *mail.Message, keys []string, bufs *buffers) error {
	block := m.Header.Block()
	if separated(block) {
		if err := writeFields(w, m.Header, keys); err != nil {
			return err
		}
	} else if _, err := w.Write(block); err != nil {
		return err
	}
	body, err := m.Body.Open()
	if err != nil {
		return err
	}
	defer body.Close()
	buf := bufs.get()
	defer bufs.pool.Put(buf)
	for {
		n, err := body.Read(*buf)
		if n > 0 {
			if _, werr := w.Write((*buf)[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	if !separated(block) {
		// A message may have no blank line, or begin with what is no field: to a verifier
		// the header then ends at the first blank line, wherever that is. The signer wants
		// one; at the end of a body relaxed canonicalization ignores them.
		_, err = io.WriteString(w, "\r\n\r\n")
	}
	return err
}

// writeFields writes the fields named in keys, each on one line, and the blank line. Relaxed
// canonicalization unfolds them anyway (RFC 6376 §3.4.2); the signer would copy a field
// again for every line of it, which takes minutes where a sender fills a header with folds.
func writeFields(w io.Writer, h mail.Header, keys []string) error {
	signed := make(map[string]bool, len(keys))
	for _, k := range keys {
		signed[strings.ToLower(k)] = true
	}
	for _, f := range h.Fields {
		if !signed[strings.ToLower(f.Name)] {
			continue
		}
		line := append(bytes.ReplaceAll(f.Raw(), []byte("\r\n"), nil), "\r\n"...)
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "\r\n")
	return err
}

// separated reports whether a header block ends with its blank line.
func separated(block []byte) bool {
	return bytes.HasSuffix(block, []byte("\n\r\n")) || bytes.Equal(block, []byte("\r\n"))
}
