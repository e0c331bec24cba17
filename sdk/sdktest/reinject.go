package sdktest

import (
	"crypto/rand"
	"fmt"
	"slices"

	"google.golang.org/grpc"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// Reinjected implements proto.HostServer.
func (h *Host) Reinjected(stream grpc.BidiStreamingServer[proto.ReinjectedRequest, proto.ReinjectedResponse]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	token := rand.Text()
	h.Lock()
	if h.waits == nil {
		h.waits = make(map[string][]*mail.Message)
	}
	h.waits[token] = []*mail.Message{}
	h.Unlock()
	take := func() []*mail.Message {
		h.Lock()
		defer h.Unlock()
		defer delete(h.waits, token)
		return slices.Clone(h.waits[token])
	}
	defer take()
	if err := stream.Send(&proto.ReinjectedResponse{Token: token}); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	for _, m := range take() {
		r, err := wire.Reinjection(m)
		if err != nil {
			return err
		}
		if err := stream.Send(&proto.ReinjectedResponse{Reinjection: r}); err != nil {
			return err
		}
	}
	if err := stream.Send(&proto.ReinjectedResponse{End: true}); err != nil {
		return err
	}
	_, err := stream.Recv()
	return err
}

// Reinject plays a listener of role reinjection: a filter brings back a message to these
// recipients. It is given, without the field [mail.ReinjectField], to the plugin that waits
// under the token in that. Unlike the gateway it does not look at the recipients.
func (h *Host) Reinject(reverse mail.Path, recipients []mail.Path, message []byte) error {
	header, body := mail.SplitMessage(message)
	m := &mail.Message{Header: header, Body: mail.InlineBody(body)}
	m.Header.Remove(mail.ReinjectField, -1)
	m.Envelope.ReversePath = reverse
	for _, r := range recipients {
		m.Envelope.Recipients = append(m.Envelope.Recipients, mail.Recipient{Path: r})
	}
	h.Lock()
	defer h.Unlock()
	token := header.Get(mail.ReinjectField)
	if _, ok := h.waits[token]; !ok {
		return fmt.Errorf("nothing is awaited under %q", token)
	}
	h.waits[token] = append(h.waits[token], m)
	return nil
}
