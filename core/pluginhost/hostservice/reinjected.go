package hostservice

import (
	"google.golang.org/grpc"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// Reinjected implements proto.HostServer.
func (s *Server) Reinjected(stream grpc.BidiStreamingServer[proto.ReinjectedRequest, proto.ReinjectedResponse]) error {
	if s.services.Reinjections == nil {
		return s.unavailable("reinjected", errNoService)
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if n := len(first.Recipients); n == 0 || n > maxAwaited || first.End {
		return invalid("the first request has 1 to %d recipients, and no end", maxAwaited)
	}
	recipients := make([]mail.Path, len(first.Recipients))
	for i, p := range first.Recipients {
		if recipients[i], err = checkedPath(p); err != nil {
			return err
		}
	}
	wait, err := s.services.Reinjections.Await(s.plugin, recipients)
	if err != nil {
		return s.unavailable("reinjected", err)
	}
	defer wait.Close()
	if err := stream.Send(&proto.ReinjectedResponse{Token: wait.Token()}); err != nil {
		return err
	}
	second, err := stream.Recv() // fails when the plugin is done, or gone
	if err != nil {
		return err
	}
	if !second.End || len(second.Recipients) > 0 {
		return invalid("the second request has nothing but the end")
	}
	for _, m := range wait.Take() {
		r, err := wire.Reinjection(m)
		if err != nil {
			return s.unavailable("reinjected", err)
		}
		if err := stream.Send(&proto.ReinjectedResponse{Reinjection: r}); err != nil {
			return err
		}
	}
	if err := stream.Send(&proto.ReinjectedResponse{End: true}); err != nil {
		return err
	}
	if _, err := stream.Recv(); err == nil {
		return invalid("there is no third request")
	}
	return nil
}
