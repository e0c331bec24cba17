package wire

import (
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// Reinjection is a message that came back: of its envelope, reverse-path and recipients.
func Reinjection(m *mail.Message) (*proto.Reinjection, error) {
	pm, err := message(m, true)
	if err != nil {
		return nil, err
	}
	r := &proto.Reinjection{ReversePath: pm.Envelope.ReversePath, Header: pm.Header, Body: pm.Body}
	for _, to := range pm.Envelope.Recipients {
		r.Recipients = append(r.Recipients, to.Path)
	}
	return r, nil
}
