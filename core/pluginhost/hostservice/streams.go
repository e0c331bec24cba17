package hostservice

import (
	"bytes"
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// The calls that are streams.

// Submit implements proto.HostServer.
func (s *Server) Submit(stream grpc.ClientStreamingServer[proto.SubmitRequest, proto.SubmitResponse]) error {
	ctx := stream.Context()
	if s.services.Submitter == nil {
		return s.unavailable("submit", errNoService)
	}
	select { // each may hold content on disk
	case s.submits <- struct{}{}:
		defer func() { <-s.submits }()
	case <-ctx.Done():
		return s.unavailable("submit", ctx.Err())
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.Submission == nil || len(first.Submission.Header) > proto.MaxHeader {
		return invalid("the first request has no submission, or too large a header")
	}
	sub, err := submission(first.Submission)
	if err != nil {
		return err
	}
	sub.Plugin = s.plugin
	body := &pieces{recv: stream.Recv, rest: first.Body}
	sub.Message = io.MultiReader(bytes.NewReader(headerBlock(first.Submission.Header)), body)
	id, err := s.services.Submitter.Submit(ctx, sub)
	if body.err != nil && body.err != io.EOF {
		return body.err // the plugin went away, or broke the contract
	}
	if err == nil {
		return stream.SendAndClose(&proto.SubmitResponse{Id: id})
	}
	var st mail.Status
	if !errors.As(err, &st) {
		return s.unavailable("submit", err)
	}
	return stream.SendAndClose(&proto.SubmitResponse{Status: wire.Status(st)})
}

// headerBlock ends a header block with a blank line if it has none.
func headerBlock(b []byte) []byte {
	switch {
	case len(b) == 0 || bytes.HasSuffix(b, []byte("\n")) && !bytes.HasSuffix(b, []byte("\r\n\r\n")):
		return append(bytes.Clone(b), "\r\n"...)
	case !bytes.HasSuffix(b, []byte("\n")):
		return append(bytes.Clone(b), "\r\n\r\n"...)
	}
	return b
}

// submission checks the envelope.
func submission(ps *proto.Submission) (Submission, error) {
	sub := Submission{Origin: mail.Origin(ps.Origin)}
	switch sub.Origin {
	case mail.Submitted, mail.Internal, mail.Fetched:
	default:
		return sub, invalid("the origin is neither submitted, internal nor fetched")
	}
	var err error
	if sub.ReversePath, err = wire.Path(ps.ReversePath); err != nil {
		return sub, invalid("the reverse-path is malformed")
	}
	if n := len(ps.Recipients); n == 0 || n > maxSubmitTo {
		return sub, invalid("a message has 1 to %d recipients", maxSubmitTo)
	}
	for _, p := range ps.Recipients {
		to, err := checkedPath(p)
		if err != nil {
			return sub, err
		}
		sub.Recipients = append(sub.Recipients, to)
	}
	sub.Client = wire.Client(ps.Client)
	return sub, nil
}

// pieces reads a body out of a stream of requests.
type pieces struct {
	recv func() (*proto.SubmitRequest, error)
	rest []byte
	err  error
}

// Read returns the next bytes; io.EOF when the plugin has sent everything.
func (p *pieces) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		var r *proto.SubmitRequest
		if r, p.err = p.recv(); p.err != nil {
			continue
		}
		if p.rest = r.Body; len(p.rest) > maxSubmitPiece {
			p.rest, p.err = nil, invalid("a piece of the body has at most %d bytes", maxSubmitPiece)
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// Mechanisms implements proto.HostServer.
func (s *Server) Mechanisms(context.Context, *proto.MechanismsRequest) (*proto.MechanismsResponse, error) {
	if s.services.Logins == nil {
		return nil, s.unavailable("authenticate", errNoService)
	}
	return &proto.MechanismsResponse{Names: s.services.Logins.Mechanisms()}, nil
}

// Authenticate implements proto.HostServer.
func (s *Server) Authenticate(stream grpc.BidiStreamingServer[proto.AuthenticateRequest, proto.AuthenticateResponse]) error {
	if s.services.Logins == nil {
		return s.unavailable("authenticate", errNoService)
	}
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	if r.Login == nil {
		return invalid("the first request has no login")
	}
	c := wire.Client(r.Login.Client)
	switch {
	case !c.Addr.IsValid():
		return invalid("the client has no address")
	case c.TLS == "":
		return stream.Send(refusedLogin(mail.Permanent(538, 7, 11, "Encryption required for authentication")))
	}
	c.Listener = s.plugin
	login, err := s.services.Logins.Begin(stream.Context(), &c, r.Login.Mechanism)
	if err != nil {
		return stream.Send(refusedLogin(mail.StatusOf(err)))
	}
	return s.converse(stream, login, r)
}

// converse runs an exchange whose first request is r.
func (s *Server) converse(stream grpc.BidiStreamingServer[proto.AuthenticateRequest, proto.AuthenticateResponse], login Login, r *proto.AuthenticateRequest) error {
	const maxSteps = 16
	for range maxSteps {
		if len(r.Response) > maxResponse {
			return invalid("a response has at most %d bytes", maxResponse)
		}
		challenge, done, err := login.Next(r.Response)
		switch {
		case err != nil:
			var st mail.Status
			if !errors.As(err, &st) || st.Success() || st.IsZero() {
				st = mail.Temporary(454, 7, 0, "Temporary authentication failure")
			}
			return stream.Send(refusedLogin(st))
		case done && login.Account().IsZero():
			return s.unavailable("authenticate", errors.New("an exchange ended without an account"))
		case done:
			return stream.Send(&proto.AuthenticateResponse{Account: wire.Paths([]mail.Path{login.Account()})[0]})
		}
		if err := stream.Send(&proto.AuthenticateResponse{Challenge: challenge}); err != nil {
			return err
		}
		if r, err = stream.Recv(); err != nil {
			return err
		}
		if r.Response == nil {
			r.Response = []byte{}
		}
	}
	return invalid("the exchange does not end")
}

func refusedLogin(st mail.Status) *proto.AuthenticateResponse {
	return &proto.AuthenticateResponse{Status: wire.Status(st)}
}
