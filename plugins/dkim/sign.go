package dkim

import (
	"context"
	"encoding/base64"
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
	var bodies dkimsig.Bodies
	bodies.Want(dkimsig.Relaxed)
	if err := bodies.Read(ctx, &s.bufs, m); err != nil {
		return nil, err
	}
	hash, _ := bodies.Sum(dkimsig.Relaxed)
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
