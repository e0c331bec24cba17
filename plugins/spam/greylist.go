package spam

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/postern-mail/postern/plugins/internal/peer"
	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// greylist remembers who was asked to come back. An engine that says "greylist" says so every
// time: without a memory such mail would never pass.
type greylist struct {
	host  *sdk.Host
	delay time.Duration
	now   func() time.Time
}

const (
	maxDelay = 24 * time.Hour
	// keep is how long a sender may take to come back (RFC 5321 §4.5.4.1 has it try for
	// four to five days), and how long it then passes.
	keep = 5 * 24 * time.Hour
	// stateTime limits one question to the gateway.
	stateTime = 2 * time.Second
)

// wait reports whether a sender has to wait, and says so in a note.
func (g greylist) wait(ctx context.Context, e *mail.Envelope) (bool, string) {
	if g.delay == 0 || !e.Client.Addr.IsValid() || len(e.Recipients) == 0 {
		return false, "not asked to wait"
	}
	ctx, cancel := context.WithTimeout(ctx, stateTime)
	defer cancel()
	key := greyKey(e)
	now := g.now()
	first, ok, err := g.host.State(ctx, key)
	if err == nil && !ok {
		if _, err = g.host.CompareAndSwapState(ctx, key, nil, strconv.AppendInt(nil, now.Unix(), 10), keep); err == nil {
			return true, "asked to wait"
		}
	}
	if err != nil {
		return false, "not asked to wait: nothing can be remembered"
	}
	at, err := strconv.ParseInt(string(first), 10, 64)
	if waited := now.Sub(time.Unix(at, 0)); err == nil && waited >= 0 && waited < g.delay {
		return true, "asked to wait"
	}
	return false, "has waited"
}

// greyKey names a sender: its network, with the reverse-path and the first recipient.
func greyKey(e *mail.Envelope) string {
	sum := sha256.Sum256([]byte(peer.Network(e.Client.Addr).String() + "\x00" + e.ReversePath.Fold().String() + "\x00" + e.Recipients[0].Path.Fold().String()))
	return "grey/" + hex.EncodeToString(sum[:16])
}
