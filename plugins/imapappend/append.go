package imapappend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	netmail "net/mail"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// keyField names the delivery in the stored message.
const keyField = "X-Postern-Delivery"

// appending is one delivery on its way.
type appending struct {
	p     *Plugin
	s     *server
	user  string
	d     *sdk.Delivery
	id    string // in keyField
	fresh bool   // nothing of it can be there
}

var (
	errNoFolder = errors.New("the folder does not exist")
	errAgain    = errors.New("the folder has gone meanwhile")
)

// run stores the message. The library closes a connection on which the server refuses a
// message before it was sent, so a folder that has gone meanwhile costs another connection.
func (a *appending) run(ctx context.Context) error {
	err := a.once(ctx, a.d.Folder)
	if errors.Is(err, errAgain) {
		err = a.once(ctx, a.d.Folder)
	}
	if errors.Is(err, errNoFolder) {
		slog.Warn("no such folder, kept in the inbox", "to", a.d.Recipient.String(), "folder", a.d.Folder, "key", a.d.Key)
		err = a.once(ctx, "")
	}
	return err
}

func (a *appending) once(ctx context.Context, folder string) error {
	c, _, err := a.p.pool.get(ctx, a.s, a.user)
	if err != nil {
		return err
	}
	useless := true
	defer func() { a.p.pool.put(c, useless) }()
	defer context.AfterFunc(ctx, func() { c.net.Close() })()
	name, err := c.mailbox(folder)
	if err != nil {
		return err
	}
	if !a.fresh {
		there, err := a.stored(c, name)
		if err == nil && !there && name != "INBOX" {
			there, err = a.stored(c, "INBOX") // if the folder did not exist then
		}
		if err != nil || there {
			useless = broken(err)
			return err
		}
	}
	if name != "INBOX" && !c.known[name] {
		if err := a.prepare(c, name); err != nil {
			useless = broken(err) && !errors.Is(err, errNoFolder)
			return err
		}
		c.known[name] = true
	}
	err = a.append(c, name)
	var said *imap.Error
	if errors.As(err, &said) {
		if said.Code == imap.ResponseCodeTryCreate && name != "INBOX" {
			return errAgain
		}
		return err // the library may have closed the connection
	}
	useless = err != nil
	return err
}

// stored looks for the message in a folder.
func (a *appending) stored(c *conn, name string) (bool, error) {
	_, err := c.Select(name, &imap.SelectOptions{ReadOnly: true}).Wait()
	var said *imap.Error
	if errors.As(err, &said) && said.Type == imap.StatusResponseTypeNo {
		return false, nil // there is no such folder
	}
	if err != nil {
		return false, err
	}
	criteria := &imap.SearchCriteria{
		Since:  a.arrived().AddDate(0, 0, -2), // dates are somebody's local ones
		Header: []imap.SearchCriteriaHeaderField{{Key: keyField, Value: a.id}},
	}
	found, err := c.UIDSearch(criteria, nil).Wait()
	if err != nil {
		return false, err
	}
	return len(found.AllUIDs()) > 0, nil
}

// prepare sees to it that a folder exists, and is subscribed if it is new.
func (a *appending) prepare(c *conn, name string) error {
	_, err := c.Status(name, &imap.StatusOptions{UIDValidity: true}).Wait()
	var said *imap.Error
	if err == nil || !errors.As(err, &said) || said.Type != imap.StatusResponseTypeNo || said.Code == imap.ResponseCodeUnavailable {
		return err
	}
	if !a.d.Create && a.s.CreateFolders != "always" {
		return errNoFolder
	}
	if err := c.Create(name, nil).Wait(); err != nil && !(errors.As(err, &said) && said.Code == imap.ResponseCodeAlreadyExists) {
		return err
	}
	if err := c.Subscribe(name).Wait(); broken(err) {
		return err
	} else if err != nil {
		slog.Warn("folder is not subscribed", "to", a.d.Recipient.String(), "folder", name, "error", err.Error())
	}
	return nil
}

// append sends the message.
func (a *appending) append(c *conn, name string) error {
	h := a.d.Message.Header
	if err := h.Insert(deliveryFields(h), keyField, a.id); err != nil {
		return err
	}
	h.Separate()
	body, err := a.d.Message.Body.Open()
	if err != nil {
		return err
	}
	defer body.Close()
	cmd := c.Append(name, int64(len(h.Block()))+a.d.Message.Body.Size, &imap.AppendOptions{Flags: flags(a.d.Flags), Time: a.arrived()})
	n, werr := cmd.Write(h.Block())
	if werr == nil && n < len(h.Block()) {
		werr = io.ErrShortWrite
	}
	if werr == nil {
		_, werr = io.Copy(cmd, body)
	}
	cerr := cmd.Close()
	if werr != nil || cerr != nil {
		// The rest of the command is not there: only the server's refusal, which may be why,
		// is an answer.
		c.net.Close()
	}
	if _, err := cmd.Wait(); err != nil {
		return err
	}
	return errors.Join(werr, cerr)
}

// deliveryFields is how many fields of final delivery the header begins with: ours is one more
// of them.
func deliveryFields(h mail.Header) int {
	n := 0
	for i, f := range h.Fields {
		if !strings.EqualFold(f.Name, "Return-Path") && !strings.EqualFold(f.Name, "Delivered-To") {
			break
		}
		n = i + 1
	}
	return n
}

// arrived is when the gateway got the message: the date of its own Received field.
func (a *appending) arrived() time.Time {
	received := a.d.Message.Header.Get("Received")
	if i := strings.LastIndexByte(received, ';'); i >= 0 {
		if t, err := netmail.ParseDate(strings.TrimSpace(received[i+1:])); err == nil && !t.After(a.p.now().Add(24*time.Hour)) {
			return t
		}
	}
	return a.p.now()
}

// flags are those that a client may set.
func flags(list []string) []imap.Flag {
	var out []imap.Flag
	for _, f := range list {
		name, system := strings.CutPrefix(f, `\`)
		if system {
			switch strings.ToLower(name) {
			case "seen", "answered", "flagged", "deleted", "draft":
			default:
				continue
			}
		}
		if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r) }) {
			continue
		}
		out = append(out, imap.Flag(f))
	}
	return out
}

// report makes the answer of an error. What the admin has to look at goes to the log.
func (a *appending) report(err error) error {
	var st mail.Status
	var said *imap.Error
	switch {
	case errors.As(err, &st):
		return st
	case errors.Is(err, errLogin):
		slog.Error("cannot log in", "server", a.s.Address, "user", a.user, "error", err.Error())
		return mail.Temporary(451, 3, 0, "Mailbox not available, try again later")
	case errors.As(err, &said):
		return a.refused(said)
	}
	slog.Warn("message cannot be stored", "server", a.s.Address, "user", a.user, "key", a.d.Key, "error", err.Error())
	return fmt.Errorf("%s: %w", a.s.Address, err)
}

// refused is what the server's word means (RFC 5530, RFC 7889, RFC 9208).
func (a *appending) refused(said *imap.Error) error {
	host := a.s.Address
	if said.Type == imap.StatusResponseTypeNo {
		switch said.Code {
		case imap.ResponseCodeOverQuota:
			return mail.Temporary(452, 2, 2, "Mailbox full: "+said.Text).WithRemote(host)
		case imap.ResponseCodeTooBig:
			return mail.Permanent(552, 3, 4, said.Text).WithRemote(host)
		case imap.ResponseCodeCannot, imap.ResponseCodeNoPerm, imap.ResponseCodeNonExistent:
			if a.d.Folder != "" { // the inbox is left
				return mail.Permanent(554, 2, 0, "No such folder: "+said.Text).WithRemote(host)
			}
			if said.Code == imap.ResponseCodeCannot {
				return mail.Permanent(554, 2, 0, said.Text).WithRemote(host)
			}
		}
	}
	slog.Warn("message is refused for now", "server", host, "user", a.user, "key", a.d.Key, "code", string(said.Code), "error", said.Text)
	return mail.Temporary(451, 2, 0, said.Text).WithRemote(host)
}
