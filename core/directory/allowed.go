package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postern-mail/postern/sdk/mail"
)

// AllowedSender is a sender whose mail somebody wants, whatever it looks like.
type AllowedSender struct {
	Sender    string    `json:"sender"` // a reverse-path, or "@" and a domain
	Recipient string    `json:"recipient"`
	Added     time.Time `json:"added"`
}

// SenderKey checks a sender, an address or "@" and a domain, and gives it the form in which
// it is stored and listed.
func SenderKey(sender string) (string, error) {
	if domain, ok := strings.CutPrefix(sender, "@"); ok {
		d, err := mail.ParseDomain(domain)
		if err != nil {
			return "", fmt.Errorf("sender %q: %w", sender, err)
		}
		return "@" + d.String(), nil
	}
	p, err := mail.ParsePath(sender)
	if err != nil || p.IsZero() || p.Domain.IsZero() {
		return "", fmt.Errorf("sender %q: give an address, or @ and a domain", sender)
	}
	return p.Fold().String(), nil
}

// recipientKey is the same of a recipient.
func (d *Directory) recipientKey(ctx context.Context, recipient string) (mail.Path, error) {
	var p mail.Path
	var err error
	if domain, ok := strings.CutPrefix(recipient, "@"); ok {
		p.Domain, err = mail.ParseDomain(domain)
	} else if p, err = mail.ParsePath(recipient); err == nil && (p.Local == "" || p.Domain.IsZero()) {
		err = errors.New("give an address, or @ and a domain")
	}
	if err != nil {
		return p, fmt.Errorf("recipient %q: %w", recipient, err)
	}
	return d.canonical(ctx, p)
}

// AllowSender notes that a recipient wants the mail of a sender: each an address, or "@" and
// a domain. The recipient's domain must be ours. To allow what is allowed changes nothing.
func (d *Directory) AllowSender(ctx context.Context, sender, recipient string) error {
	key, err := SenderKey(sender)
	if err != nil {
		return err
	}
	to, err := d.recipientKey(ctx, recipient)
	if err != nil {
		return err
	}
	_, err = d.exec(ctx, `INSERT OR IGNORE INTO allowed_senders (sender, domain, local, added) VALUES (?, ?, ?, ?)`,
		key, to.Domain.String(), to.Local, d.clock().Unix())
	return about("sender "+key, err)
}

// DisallowSender takes that back; ErrUnknown if it was not so.
func (d *Directory) DisallowSender(ctx context.Context, sender, recipient string) error {
	key, err := SenderKey(sender)
	if err != nil {
		return err
	}
	to, err := d.recipientKey(ctx, recipient)
	if err != nil {
		return err
	}
	return about(key+" for "+recipient, hit(d.exec(ctx, `DELETE FROM allowed_senders WHERE sender = ? AND domain = ? AND local = ?`, key, to.Domain.String(), to.Local)))
}

// AllowedSenders lists all, by recipient.
func (d *Directory) AllowedSenders(ctx context.Context) ([]AllowedSender, error) {
	rows, err := d.db.QueryContext(ctx, `SELECT sender, domain, local, added FROM allowed_senders ORDER BY domain, local, sender`)
	if err != nil {
		return nil, fmt.Errorf("directory: allowed senders: %w", err)
	}
	defer rows.Close()
	var out []AllowedSender
	for rows.Next() {
		var a AllowedSender
		var domain, local string
		var added int64
		if err := rows.Scan(&a.Sender, &domain, &local, &added); err != nil {
			return nil, err
		}
		a.Recipient, a.Added = "@"+domain, time.Unix(added, 0).UTC()
		if local != "" {
			p, err := mail.MakePath(local, domain)
			if err != nil {
				continue // not written by us
			}
			a.Recipient = p.String()
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

// WhoAllows returns a function that says whether a recipient wants the mail of a sender; nil
// if nobody does. A recipient with a +tag is the one without.
func (d *Directory) WhoAllows(ctx context.Context, sender mail.Path) (func(context.Context, mail.Path) bool, error) {
	if sender.IsZero() {
		return nil, nil
	}
	version, err := d.watch.current(ctx)
	if err != nil || d.nobody.Load() == version+1 {
		return nil, err
	}
	rows, err := d.db.QueryContext(ctx, `SELECT domain, local FROM allowed_senders WHERE sender IN (?, ?)`, sender.Fold().String(), "@"+sender.Domain.String())
	if err != nil {
		return nil, fmt.Errorf("directory: allowed senders: %w", err)
	}
	defer rows.Close()
	want := make(map[[2]string]bool)
	for rows.Next() {
		var domain, local string
		if err := rows.Scan(&domain, &local); err != nil {
			return nil, err
		}
		want[[2]string{domain, local}] = true
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(want) == 0 {
		return nil, d.noteNobody(ctx, version)
	}
	return func(ctx context.Context, to mail.Path) bool {
		p, err := d.canonical(ctx, to)
		if err != nil {
			return false
		}
		plain, _, _ := strings.Cut(p.Local, "+")
		return want[[2]string{p.Domain.String(), ""}] || want[[2]string{p.Domain.String(), p.Local}] || plain != "" && want[[2]string{p.Domain.String(), plain}]
	}, nil
}

// noteNobody remembers, until the file changes, that there are no allowed senders at all: so
// it is for most, and a message should not cost them a question.
func (d *Directory) noteNobody(ctx context.Context, version int64) error {
	var n int
	err := d.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM allowed_senders)`).Scan(&n)
	if err == nil && n == 0 {
		d.nobody.Store(version + 1)
	}
	return err
}

// Time returns up to when something that the gateway does now and then is done; the zero
// Time if it never was.
func (d *Directory) Time(ctx context.Context, name string) (time.Time, error) {
	var at int64
	err := d.db.QueryRowContext(ctx, `SELECT at FROM times WHERE name = ?`, name).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	} else if err != nil {
		return time.Time{}, fmt.Errorf("directory: time of %s: %w", name, err)
	}
	return time.Unix(at, 0), nil
}

// SetTime notes it, to the second.
func (d *Directory) SetTime(ctx context.Context, name string, at time.Time) error {
	_, err := d.exec(ctx, `INSERT OR REPLACE INTO times (name, at) VALUES (?, ?)`, name, at.Unix())
	return about("time of "+name, err)
}
