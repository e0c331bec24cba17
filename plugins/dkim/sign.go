package dkim

import (
	"bufio"
	"context"
	"encoding/base64"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/plugins/internal/dkimkey"
	"github.com/postern-mail/postern/plugins/internal/dkimsig"
	"github.com/postern-mail/postern/sdk/mail"
)

const fieldName = "DKIM-Signature"

// signer signs messages. It may be used concurrently.
type signer struct{ bufs dkimsig.Buffers }

// sign returns the values of the DKIM-Signature fields, one for each key. The body is read
// once.
func (s *signer) sign(ctx context.Context, m *mail.Message, keys []*dkimkey.Key, now time.Time) ([]string, error) {
	fields := dkimsig.NewFields(m.Header)
	names := dkimsig.Choose(fields)
	hash, err := s.body(ctx, m)
	if err != nil {
		return nil, err
	}
	var values []string
	for _, k := range keys {
		tags := dkimsig.Tags{
			{Name: "v", Value: "1"},
			{Name: "a", Value: k.Algorithm},
			{Name: "c", Value: "relaxed/relaxed"},
			{Name: "d", Value: k.Domain.String()},
			{Name: "s", Value: k.Selector},
			{Name: "t", Value: strconv.FormatInt(now.Unix(), 10)},
			{Name: "h", Value: strings.Join(names, ":")},
			{Name: "bh", Value: base64.StdEncoding.EncodeToString(hash)},
		}
		value, err := dkimsig.SignField(fieldName, tags, k.Signer, func(own []byte) []byte {
			return fields.Hash(names, dkimsig.Relaxed, own)
		})
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, nil
}

// body is the hash of the body as a verifier will see it.
func (s *signer) body(ctx context.Context, m *mail.Message) ([]byte, error) {
	h := dkimsig.NewBodyHash(dkimsig.Relaxed)
	body, err := m.Body.Open()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var r io.Reader = body
	if !m.Header.Separated() {
		// A message may have no blank line, or begin with what is no field: to a verifier
		// the header then ends at the first blank line, wherever that is.
		if r, err = afterBlank(body); err != nil {
			return nil, err
		}
	}
	if err := s.bufs.Read(ctx, r, h); err != nil {
		return nil, err
	}
	sum, _ := h.Sum()
	return sum, nil
}

// afterBlank skips everything up to the first blank line, and that.
func afterBlank(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 4096)
	for begin := true; ; {
		line, err := b.ReadSlice('\n')
		if begin && string(line) == "\r\n" || err == io.EOF {
			return b, nil
		}
		if err != nil && err != bufio.ErrBufferFull {
			return nil, err
		}
		begin = err == nil
	}
}
