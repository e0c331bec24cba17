package sdk

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// Reinjection is a wait for what an outside content filter brings back: the filter gets the
// message with the token in a header field [mail.ReinjectField], and hands it, changed or
// not, to a listener of role reinjection. What comes back is no message of its own: it does
// not enter the queue and goes to nobody unless the plugin's verdict makes it so.
type Reinjection struct {
	token  string
	stream proto.Host_ReinjectedClient
	cancel context.CancelFunc
}

// reinjectTime bounds a wait whose context has no deadline.
const reinjectTime = 10 * time.Minute

// Reinjected begins a wait. Each of the recipients may come back once, with others or alone;
// a message with none of them is refused. The token is made by the gateway, cannot be
// guessed, and is good until Take or Close. Call Close.
func (h *Host) Reinjected(ctx context.Context, recipients []mail.Path) (*Reinjection, error) {
	if h == nil {
		return nil, ErrNoHost
	}
	ctx, cancel := bounded(ctx, reinjectTime)
	r := &Reinjection{cancel: cancel}
	answer, err := r.begin(ctx, h, recipients)
	if err != nil {
		cancel()
		return nil, hostError(err)
	}
	r.token = answer.Token
	return r, nil
}

func (r *Reinjection) begin(ctx context.Context, h *Host, recipients []mail.Path) (*proto.ReinjectedResponse, error) {
	var err error
	if r.stream, err = h.api.Reinjected(ctx); err != nil {
		return nil, err
	}
	if err := r.stream.Send(&proto.ReinjectedRequest{Recipients: encodePaths(recipients)}); err != nil && !errors.Is(err, io.EOF) { // EOF: it has answered
		return nil, err
	}
	return r.stream.Recv()
}

// Token is what has to come back with the message. It is a secret.
func (r *Reinjection) Token() string { return r.token }

// Take ends the wait and returns what came back until then, in order: reverse-path and
// recipients of the envelope, header without the token, and body. The gateway refuses what
// comes later. The bodies are there until Close.
func (r *Reinjection) Take() ([]*mail.Message, error) {
	if err := r.stream.Send(&proto.ReinjectedRequest{End: true}); err != nil && !errors.Is(err, io.EOF) {
		return nil, hostError(err)
	}
	var all []*mail.Message
	for {
		a, err := r.stream.Recv()
		switch {
		case err != nil:
			return nil, hostError(err)
		case a.End:
			return all, nil
		case a.Reinjection == nil:
			return nil, errors.New("gateway: an answer has nothing in it")
		}
		m := decodeMessage(&proto.Message{Header: a.Reinjection.Header, Body: a.Reinjection.Body})
		m.Envelope.ReversePath = decodePath(a.Reinjection.ReversePath)
		for _, p := range a.Reinjection.Recipients {
			m.Envelope.Recipients = append(m.Envelope.Recipients, mail.Recipient{Path: decodePath(p)})
		}
		all = append(all, m)
	}
}

// Close ends the wait, if Take has not, and gives up what came back.
func (r *Reinjection) Close() { r.cancel() }
