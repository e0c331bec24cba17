package sdk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// Submission is a message for the queue.
type Submission struct {
	// Origin is [mail.Submitted] (also when zero), [mail.Internal] or [mail.Fetched]: it
	// decides which plugins see the message.
	Origin      mail.Origin
	ReversePath mail.Path
	Recipients  []mail.Path
	Header      mail.Header
	// Body is in wire form (CRLF, not dot-stuffed); nil: empty.
	Body io.Reader
	// Client is where a fetched message came from, as far as it is known.
	Client mail.Client
}

// Submit puts a message into the queue and returns its queue id. The message is then
// durable and goes its way like any other, except that the plugin itself is never called
// for it. An error that is a [mail.Status] is the gateway's answer about the message:
// permanent, or to be tried again.
func (h *Host) Submit(ctx context.Context, s Submission) (string, error) {
	if h == nil {
		return "", ErrNoHost
	}
	ctx, cancel := bounded(ctx, submitTime)
	defer cancel()
	stream, err := h.api.Submit(ctx)
	if err != nil {
		return "", hostError(err)
	}
	origin := s.Origin
	if origin == 0 {
		origin = mail.Submitted
	}
	req := &proto.SubmitRequest{Submission: &proto.Submission{Origin: proto.Origin(origin), ReversePath: encodePath(s.ReversePath),
		Recipients: encodePaths(s.Recipients), Header: s.Header.Block(), Client: encodeClient(s.Client)}}
	if err := sendBody(stream, req, s.Body); err != nil && !errors.Is(err, io.EOF) { // EOF: it has answered
		return "", err
	}
	r, err := stream.CloseAndRecv()
	if err != nil {
		return "", hostError(err)
	}
	if r.Status != nil {
		return "", decodeStatus(r.Status)
	}
	return r.Id, nil
}

const bodyPiece = 64 << 10

// sendBody sends the first request, and the body with it and in further ones.
func sendBody(stream interface {
	Send(*proto.SubmitRequest) error
}, req *proto.SubmitRequest, body io.Reader) error {
	if body == nil {
		return stream.Send(req)
	}
	buf := make([]byte, bodyPiece)
	for {
		n, err := io.ReadFull(body, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("reading the body: %w", err)
		}
		req.Body = buf[:n] // Send has encoded it when it returns
		if serr := stream.Send(req); serr != nil || err != nil {
			return serr
		}
		req = &proto.SubmitRequest{}
	}
}

// Mechanisms are the SASL mechanisms that [Host.Login] takes.
func (h *Host) Mechanisms(ctx context.Context) ([]string, error) {
	r, err := ask(h, ctx, func(ctx context.Context) (*proto.MechanismsResponse, error) {
		return h.api.Mechanisms(ctx, &proto.MechanismsRequest{})
	})
	return r.GetNames(), err
}

// Login is a SASL exchange with a client of the plugin.
type Login struct {
	stream  proto.Host_AuthenticateClient
	cancel  context.CancelFunc
	first   *proto.Login
	account mail.Path
}

// Login begins a SASL exchange with one of the mechanisms. c.Addr is required: the limits
// on failed log-ins go by it; so is c.TLS: without TLS there are no log-ins. Call Close.
func (h *Host) Login(ctx context.Context, mechanism string, c mail.Client) (*Login, error) {
	if h == nil {
		return nil, ErrNoHost
	}
	ctx, cancel := bounded(ctx, loginTime)
	stream, err := h.api.Authenticate(ctx)
	if err != nil {
		cancel()
		return nil, hostError(err)
	}
	return &Login{stream: stream, cancel: cancel, first: &proto.Login{Mechanism: line(mechanism), Client: encodeClient(c)}}, nil
}

// Next takes the client's response (nil in the first step: no initial response) and returns
// the next challenge, or done. An error that is a [mail.Status] is the answer for the
// client; after any error the exchange is over.
func (l *Login) Next(response []byte) (challenge []byte, done bool, err error) {
	if err := l.stream.Send(&proto.AuthenticateRequest{Login: l.first, Response: response}); err != nil && !errors.Is(err, io.EOF) {
		return nil, false, hostError(err)
	}
	l.first = nil
	r, err := l.stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil, false, errors.New("gateway: the exchange is over")
	case err != nil:
		return nil, false, hostError(err)
	case r.Status != nil:
		return nil, false, decodeStatus(r.Status)
	case r.Account != nil:
		l.account = decodePath(r.Account)
		return nil, true, nil
	}
	return present(r.Challenge), false, nil
}

// Account is who has logged in, after the last step.
func (l *Login) Account() mail.Path { return l.account }

// Close ends the exchange.
func (l *Login) Close() { l.cancel() }

// CheckPassword checks a user name and password that a client gave outside of SASL, and
// returns the account. See [Host.Login].
func (h *Host) CheckPassword(ctx context.Context, c mail.Client, username, password string) (mail.Path, error) {
	l, err := h.Login(ctx, "PLAIN", c)
	if err != nil {
		return mail.Path{}, err
	}
	defer l.Close()
	_, done, err := l.Next([]byte("\x00" + username + "\x00" + password))
	if err == nil && !done {
		err = errors.New("gateway: the exchange does not end")
	}
	return l.Account(), err
}

// TLSConfig returns a configuration for a listener of the plugin's own. It follows renewals
// of the certificate within a minute.
func (h *Host) TLSConfig(ctx context.Context) (*tls.Config, error) {
	c, err := h.Certificate(ctx)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	fetched := time.Now()
	return &tls.Config{
		MinVersion: tls.VersionTLS12, // RFC 8996
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			if time.Since(fetched) > time.Minute {
				fetched = time.Now()
				if fresh, err := h.Certificate(hello.Context()); err == nil { // else the old one will do
					c = fresh
				}
			}
			current := c
			return &current, nil
		},
	}, nil
}

func decodeStatus(s *proto.Status) mail.Status {
	st := mail.Status{Code: int(s.Code), Text: s.Text, Remote: s.Remote}
	for i := range min(len(s.Enhanced), 3) {
		st.Enhanced[i] = int(s.Enhanced[i])
	}
	return st
}

func encodeClient(c mail.Client) *proto.Client {
	pc := &proto.Client{Port: uint32(c.Port), Helo: line(c.Helo), Host: line(c.Host), User: line(c.User), Protocol: line(c.Protocol),
		Tls: line(c.TLS), Listener: line(c.Listener), Class: proto.Class(c.Class),
		Mechanism: line(c.Mechanism), Ptr: line(c.PTR), Connections: uint32(max(c.Connections, 0))}
	if c.Addr.IsValid() {
		pc.Addr = c.Addr.String()
	}
	return pc
}
