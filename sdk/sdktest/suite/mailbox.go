package suite

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/internal/draft"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// plan asks for plans for messages of all kinds, each for one recipient.
func (r *run) plan(ctx context.Context) {
	all, err := corpus(r.dir, r.origin())
	if err != nil {
		r.check(ctx, "planner", func(context.Context) (string, error) { return "", err })
		return
	}
	for hung, i := 0, 0; i < len(all) && hung < 2; i++ {
		m := *all[i].m
		m.Envelope.Recipients = m.Envelope.Recipients[:1]
		r.check(ctx, "planner: "+all[i].name, func(ctx context.Context) (string, error) {
			p, err := r.live(ctx)
			if err != nil {
				return "", err
			}
			ctx, cancel := r.limited(ctx)
			defer cancel()
			req, err := wire.PlanRequest(&m, r.desc.Manifest.Needs)
			if err != nil {
				return "", err
			}
			if r.desc.Manifest.May&sdk.MayReplaceBody != 0 {
				f, err := os.CreateTemp(r.dir, "draft")
				if err != nil {
					return "", err
				}
				defer os.Remove(f.Name())
				f.Close()
				req.Draft = f.Name()
			}
			answer, err := proto.NewPlannerClient(p.conn).Plan(ctx, req)
			if err != nil {
				err = callError("Plan", err)
				if isDeadline(err) {
					hung++
				}
				return "", err
			}
			plan, err := wire.PlanDraft(answer, r.desc.Manifest, req.Draft)
			if err == nil {
				err = checkSections(plan)
			}
			if err != nil {
				return "", fmt.Errorf("the plan breaks the contract: %w", err)
			}
			return fmt.Sprintf("actions: %d", len(plan.Actions)), nil
		})
	}
}

// checkSections looks at the new bodies of a plan as the gateway does.
func checkSections(plan *sdk.Plan) error {
	for i, a := range plan.Actions {
		s := a.NewBody
		if s.IsZero() {
			continue
		}
		b, err := os.ReadFile(s.Draft)
		switch {
		case err != nil:
			return err
		case s.Offset > int64(len(b)) || s.Size > int64(len(b))-s.Offset:
			return fmt.Errorf("action %d: the new body ends beyond the draft", i)
		case !draft.WireForm(b[s.Offset:][:s.Size]):
			return fmt.Errorf("action %d: the new body has a bare CR, a bare LF or a NUL", i)
		}
	}
	return nil
}

// deliver stores a message, and the same once more.
func (r *run) deliver(ctx context.Context) (string, error) {
	p, err := r.live(ctx)
	if err != nil {
		return "", err
	}
	d := &sdk.Delivery{
		Key:       "0c1f3k9w2m4xq.0",
		Recipient: mail.MustPath("bob@example.org"),
		Message:   message(mail.Incoming, "From: alice@example.com\r\nSubject: lunch\r\n\r\n", []byte("Shall we?\r\n")),
	}
	first, err := r.deliverOnce(ctx, p, d)
	if err != nil {
		return "", err
	}
	again, err := r.deliverOnce(ctx, p, d)
	if err != nil {
		return "", fmt.Errorf("the same key again: %w", err)
	}
	if (first == nil) != (again == nil) {
		return "", fmt.Errorf("the same key again: the answer is %v, and was %v", answer(again), answer(first))
	}
	return answer(first), nil
}

func answer(err error) string {
	if err == nil {
		return "stored"
	}
	return err.Error()
}

// deliverOnce returns the plugin's word, and an error when it has none.
func (r *run) deliverOnce(ctx context.Context, p *process, d *sdk.Delivery) (word, err error) {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	req, err := wire.DeliverRequest(d)
	if err != nil {
		return nil, err
	}
	a, err := proto.NewMailboxClient(p.conn).Deliver(ctx, req)
	if err != nil {
		return nil, callError("Deliver", err)
	}
	word, ok := wire.Delivered(a)
	if !ok {
		return nil, fmt.Errorf("the answer breaks the contract: %w", word)
	}
	return word, nil
}

// folders lists those of a mailbox, of one that there may not be, and of the first again once a
// message was filed into a new folder.
func (r *run) folders(ctx context.Context) (string, error) {
	p, err := r.live(ctx)
	if err != nil {
		return "", err
	}
	to, folder := mail.MustPath("bob@example.org"), "Sdktest/Made"
	for _, recipient := range []mail.Path{to, {Local: strings.ToLower(rand.Text()), Domain: to.Domain}} {
		if _, err := r.list(ctx, p, recipient); err != nil {
			return "", err
		}
	}
	d := &sdk.Delivery{Key: "0c1f3k9w2m4xq.1", Recipient: to, Folder: folder, Create: true, Fresh: true,
		Message: message(mail.Incoming, "From: alice@example.com\r\nSubject: a folder\r\n\r\n", []byte("It is new.\r\n"))}
	stored, err := r.deliverOnce(ctx, p, d)
	if err != nil {
		return "", err
	}
	list, err := r.list(ctx, p, to)
	if err != nil {
		return "", err
	}
	if _, ok := list.Find(folder); !ok && stored == nil {
		return "a folder that a delivery should make is not in the list: is the message in the inbox?", nil
	}
	return fmt.Sprintf("folders: %d", len(list.Folders)), nil
}

func (r *run) list(ctx context.Context, p *process, recipient mail.Path) (*sdk.FolderList, error) {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	a, err := proto.NewMailboxClient(p.conn).Folders(ctx, wire.FoldersRequest(recipient))
	if err != nil {
		return nil, callError("Folders", err)
	}
	list, err := wire.Folders(a.GetList())
	if err != nil {
		return nil, fmt.Errorf("the list breaks the contract: %w", err)
	}
	return list, nil
}
