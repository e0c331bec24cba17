package pluginhost

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/postern-mail/postern/core/pluginhost/child"
	"github.com/postern-mail/postern/core/pluginhost/hostservice"
	"github.com/postern-mail/postern/core/pluginhost/pluginlog"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// A process is one running, configured plugin. It is never restarted: there will be
// another one.
type process struct {
	spec    Spec
	desc    wire.Description
	child   *child.Process
	gp      *plugin.Client
	api     proto.PluginClient
	conn    *grpc.ClientConn
	filter  proto.FilterClient
	gates   proto.GateClient
	mailbox proto.MailboxClient
	started time.Time
	host    *hostservice.Server // what it may ask of us
	log     *pluginlog.Log
	given   []child.Listener
	wants   []string // where a service listens
	barred  bool     // a service that must not work: the plugin is disabled
	calls   inflight
	owner   atomic.Pointer[supervisor] // nil: not in use yet, or for a trial
	// answered counts the calls that it has completed, whatever the answer.
	answered atomic.Int64
	garbage  atomic.Int32 // answers in a row that broke the protocol
	strays   atomic.Int32 // answers to no call
	broken   atomic.Bool  // its stream of calls has ended
	hopeless atomic.Bool  // it died, as its successor would, of any message
	// Its death was a message's fault, or the plugin's. Guarded by its supervisor's mu.
	pardoned, counted bool
	// dead ends when the process does.
	dead context.Context
}

// denied notes a call of the plugin that it must not make.
func (p *process) denied(err error) {
	if s := p.owner.Load(); s != nil {
		s.failed.Add(1)
	}
	p.log.Error("plugin failed", "reason", Error, "error", err)
}

func (p *process) isDead() bool { return p.dead != nil && p.dead.Err() != nil }

// healthy asks for a sign of life.
func (p *process) healthy(ctx context.Context, wait time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_, err := p.api.Health(ctx, &proto.HealthRequest{})
	return err == nil
}

// drain lets no further call in, waits for those that are, and tells the plugin. It is
// bounded by ctx.
func (p *process) drain(ctx context.Context) {
	p.calls.close()
	select {
	case <-p.calls.idle:
	case <-ctx.Done():
		return
	case <-p.dead.Done():
		return
	}
	p.api.Drain(ctx, &proto.DrainRequest{})
}

// kill ends the process and frees what belonged to it. It returns when the process is gone.
func (p *process) kill() {
	p.calls.close()
	p.child.Kill(context.Background())
	if exited := p.child.Exited(); exited != nil {
		<-exited
	}
	done := make(chan struct{})
	go func() { // closes the connection; may wait for goroutines of its own
		defer close(done)
		p.gp.Kill()
	}()
	select {
	case <-done:
	case <-time.After(killGrace):
	}
	p.host.Close()
	if d := p.child.SocketDir(); d != "" {
		os.RemoveAll(d)
	}
}
