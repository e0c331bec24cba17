package gateway

import (
	"context"
	"io"
	"time"

	"github.com/postern-mail/postern/core/pluginhost/hostservice"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

// asideServices are what plugins may ask of a gateway aside: what the gateway answers, but that mail
// is not queued and nothing was ever remembered.
type asideServices struct {
	*services
	limit int64
}

func newAsideServices(a *Aside) *asideServices {
	g := &Gateway{log: a.log, directory: a.directory, keeping: &keeping{clock: steadyClock()}}
	g.config.Store(a.config)
	g.services.g = g
	g.services.certs.Store(a.certs)
	return &asideServices{&g.services, int64(a.config.Limits.MessageSize)}
}

func (s *asideServices) forPlugins() hostservice.Services {
	offered := s.services.forPlugins()
	offered.Submitter, offered.Memory = s, s
	return offered
}

func (s *asideServices) attach(dirs *directories) error {
	a, err := newAuthenticator(s.g.config.Load(), s.g.directory, dirs, s.g.log)
	s.directories.Store(dirs)
	s.authenticator.Store(a)
	return err
}

// Submit reads the message and forgets it.
func (s *asideServices) Submit(_ context.Context, m hostservice.Submission) (string, error) {
	n, err := io.Copy(io.Discard, io.LimitReader(m.Message, s.limit+1))
	if err == nil && n > s.limit {
		err = mail.Permanent(552, 3, 4, "Message is too large")
	}
	return (&queue.IDs{}).New(time.Now()).String(), err
}

// Remembered says no.
func (s *asideServices) Remembered(context.Context, string, mail.Path, string) (bool, error) {
	return false, nil
}
