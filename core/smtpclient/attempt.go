package smtpclient

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/postern-mail/postern/sdk/mail"
)

// attempt is the state of one attempt.
type attempt struct {
	c    *Client
	job  *Job
	res  []Result
	last mail.Status // of the last hop or address that could not be used
}

// run tries the hops in order, and of each its addresses. What failed lately comes after
// everything else (N-16).
func (a *attempt) run(ctx context.Context) {
	var later []target
	hops := a.job.Route.Hops
	for i, hop := range hops {
		if !a.pending() {
			return
		}
		list, err := a.c.targets(ctx, hop, a.job.Envelope.RequireTLS)
		if err != nil {
			a.last = mail.StatusOf(err)
			continue
		}
		a.preferIdle(list)
		for k, t := range list {
			more := k < len(list)-1 || i < len(hops)-1 || len(later) > 0
			if more && a.c.hints.failedLately(t.endpoint) {
				later = append(later, t)
				continue
			}
			if a.try(ctx, t, more); !a.pending() {
				return
			}
		}
	}
	for k, t := range later {
		if a.try(ctx, t, k < len(later)-1); !a.pending() {
			return
		}
	}
}

// pending reports whether a recipient has no result yet.
func (a *attempt) pending() bool {
	return slices.ContainsFunc(a.res, func(r Result) bool { return r.IsZero() })
}

// preferIdle moves a target with an open connection to the front, among those of the same
// rank as the first: the same host, or another one that sharing the load came first.
func (a *attempt) preferIdle(list []target) {
	p := a.c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range list {
		if list[i].rank != list[0].rank {
			return
		}
		if len(p.idle[list[i]]) > 0 {
			list[0], list[i] = list[i], list[0]
			return
		}
	}
}

// try uses one target: an idle connection, else a fresh one. What cannot be blamed on the
// connection has its result afterwards.
func (a *attempt) try(ctx context.Context, t target, more bool) {
	if err := ctx.Err(); err != nil {
		a.last = mail.Temporary(451, 3, 2, "attempt ended: "+cause(err))
		return
	}
	if s := a.c.pool.get(t); s != nil {
		stale, err := a.use(ctx, s)
		if err == nil {
			return
		}
		if !stale {
			a.failed(t, s, err)
			return
		}
	}
	plain := false
	for retries := 0; ; retries++ {
		s, err := a.c.open(ctx, t, plain, more)
		if err != nil {
			var oe *openError
			if errors.As(err, &oe); oe.plain && retries == 0 {
				a.c.o.Log.Warn("tls handshake failed, trying in the clear", "host", t.host, "reason", oe.status.Text)
				plain = true
				continue
			}
			a.c.hints.fail(t.endpoint)
			a.last = oe.status
			a.settle(oe.status)
			return
		}
		_, err = a.use(ctx, s)
		if err == nil {
			return
		}
		if a.pending() && s.ext.pipelining && !s.lockstep && retries == 0 && confused(err) {
			a.c.o.Log.Info(lockstepText, "host", t.host, "reason", err.Error())
			a.c.hints.noPipelining(t.endpoint)
			continue
		}
		a.failed(t, s, err)
		return
	}
}

// settle makes a permanent failure of a session (no REQUIRETLS) the result of all.
func (a *attempt) settle(s mail.Status) {
	if !s.Permanent() {
		return
	}
	for i := range a.res {
		if a.res[i].IsZero() {
			a.res[i].Status = s
		}
	}
}

// confused reports whether an error may come from pipelining (N-21).
func confused(err error) bool {
	var proto protocolError
	return errors.As(err, &proto) || errors.Is(err, os.ErrDeadlineExceeded)
}

func (a *attempt) failed(t target, s *session, err error) {
	a.c.hints.fail(t.endpoint)
	var closing *errClosing
	if errors.As(err, &closing) {
		a.last = closing.status
		return
	}
	a.last = s.lost(err)
}

// errSessionOver says that a transaction ended the session and others were to follow.
var errSessionOver = errors.New("session ended early")

// use delivers to all pending recipients over a session, in as many transactions as it
// takes, and gives the session back. An error is one of the connection; stale says that the
// peer never said a word, so that an idle connection had died before we used it.
func (a *attempt) use(ctx context.Context, s *session) (stale bool, err error) {
	stop := context.AfterFunc(ctx, s.abort)
	defer func() {
		if !stop() {
			s.broken = true // aborted
		}
		if err != nil {
			s.close()
		} else {
			a.c.pool.put(s)
		}
	}()
	buf := a.c.buffers.Get().(*buffers)
	defer func() {
		buf.w.Reset(nil)
		a.c.buffers.Put(buf)
	}()
	for first := true; ; first = false {
		x := transaction{session: s, buffers: buf, job: a.job, res: a.res, rcpts: a.next()}
		if len(x.rcpts) == 0 {
			return false, nil
		}
		if s.broken {
			return false, errSessionOver
		}
		if err := x.run(ctx); err != nil {
			return first && x.replies == 0, err
		}
		a.c.hints.well(s.target.endpoint)
	}
}

// next returns the recipients of the next transaction.
func (a *attempt) next() []int {
	var list []int
	for i := range a.res {
		if a.res[i].IsZero() {
			if list = append(list, i); len(list) == a.c.o.MaxRecipients {
				break
			}
		}
	}
	return list
}
