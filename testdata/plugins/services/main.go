// Command services asks the gateway for what the Subject of a message says, and refuses the
// message with the answer. Its arguments are the rights that it declares, as a number, and a
// name.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/xdg-go/scram"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

func main() {
	rights, _ := strconv.Atoi(os.Args[1])
	sdk.Serve(&asker{}, sdk.Manifest{Name: os.Args[2], Version: "1.0", Needs: sdk.NeedBody, May: sdk.MayReject, Host: sdk.HostRight(rights)})
}

type asker struct{ host *sdk.Host }

func (a *asker) Configure(_ context.Context, c sdk.Config) error {
	a.host = c.Host
	return c.Decode(&struct{}{})
}

func (a *asker) Filter(ctx context.Context, m *mail.Message) (*sdk.Verdict, error) {
	words := strings.Fields(m.Header.Get("Subject"))
	if len(words) < 2 || words[0] != "ask" {
		return sdk.Continue(), nil
	}
	if sdk.HostFrom(ctx) != a.host {
		return nil, errors.New("the call has another host than the configuration")
	}
	answer, err := a.ask(ctx, m, words[1], append(words[2:], "", ""))
	if err != nil {
		answer = "error: " + err.Error()
	}
	return sdk.Reject(mail.Permanent(550, 7, 0, answer)), nil
}

func (a *asker) ask(ctx context.Context, m *mail.Message, what string, arg []string) (string, error) {
	h, alice := a.host, mail.MustPath("alice@example.org")
	switch what {
	case "submit":
		body, err := m.Body.Open()
		if err != nil {
			return "", err
		}
		defer body.Close()
		origin, _ := mail.ParseOrigin(arg[0])
		return h.Submit(ctx, sdk.Submission{Origin: origin, ReversePath: alice, Recipients: []mail.Path{mail.MustPath("bob@example.net")},
			Header: mail.NewHeader([]byte("Subject: ask submit\r\nBcc: x@example.org\r\n\r\n")), Body: body})
	case "password":
		account, err := h.CheckPassword(ctx, mail.Client{Addr: netip.MustParseAddr("203.0.113.7"), TLS: arg[1]}, "alice@example.org", arg[0])
		return account.String(), err
	case "login":
		return a.login(ctx, arg[0])
	case "scram":
		return a.scram(ctx, arg[0])
	case "info":
		acc, err := h.Lookup(ctx, mail.MustPath(arg[0]))
		if i := acc.Info; i != nil {
			return fmt.Sprint(i.Address, i.Enabled, i.QuotaBytes, i.QuotaMessages, i.Settings, i.DisplayName), err
		}
		return "none", err
	case "lookup":
		acc, err := h.Lookup(ctx, mail.MustPath(arg[0]))
		return fmt.Sprint(acc.Local, acc.Targets), err
	case "put":
		version, _ := strconv.ParseInt(arg[1], 10, 64)
		v, err := h.PutData(ctx, alice, "k", []byte(arg[0]), version)
		return strconv.FormatInt(v, 10), err
	case "get":
		d, err := h.Data(ctx, alice, "k")
		return fmt.Sprintf("%s %d", d.Value, d.Version), err
	case "list":
		var keys []string
		err := h.ListData(ctx, mail.Path{}, "", func(d sdk.Datum) bool {
			keys = append(keys, d.Account.String()+"/"+d.Key)
			return true
		})
		return strings.Join(keys, " "), err
	case "certificate":
		c, err := h.Certificate(ctx)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d certificates, key %t", len(c.Certificate), c.PrivateKey != nil), nil
	case "state":
		if ok, err := h.CompareAndSwapState(ctx, "k", nil, []byte("v"), time.Hour); err == nil && !ok {
			v, _, err := h.State(ctx, "k")
			return "there is " + string(v), err
		} else {
			return "set", err
		}
	case "count":
		if err := h.Count(ctx, "asked", 1); err != nil {
			return "", err
		}
		n, err := h.CountState(ctx, "n", 1, time.Hour)
		return strconv.FormatInt(n, 10), err
	case "log":
		h.Log(ctx, slog.LevelWarn, "hello", "who", "a\nb", "n", 3)
		return "logged", nil
	case "remembered":
		yes, err := h.Remembered(ctx, alice, "k")
		return strconv.FormatBool(yes), err
	case "environment":
		if token := os.Getenv("POSTERN_HOST_TOKEN"); token != "" {
			return "", errors.New("the token is still there")
		}
		return "token none", nil
	case "exit":
		os.Exit(3)
	}
	return "", errors.New("what?")
}

// scram logs in with SCRAM-SHA-256, as the client of a plugin would.
func (a *asker) scram(ctx context.Context, password string) (string, error) {
	conf, err := scram.SHA256.NewClient("alice@example.org", password, "")
	if err != nil {
		return "", err
	}
	l, err := a.host.Login(ctx, "SCRAM-SHA-256", mail.Client{Addr: netip.MustParseAddr("203.0.113.7"), TLS: "TLS1.3"})
	if err != nil {
		return "", err
	}
	defer l.Close()
	client := conf.NewConversation()
	var challenge []byte
	for {
		response, err := client.Step(string(challenge))
		if err != nil {
			return "", err
		}
		var done bool
		if challenge, done, err = l.Next([]byte(response)); err != nil {
			return "", err
		}
		if done {
			return fmt.Sprint(l.Account(), client.Valid()), nil
		}
	}
}

// login logs in with the mechanism LOGIN, step by step.
func (a *asker) login(ctx context.Context, password string) (string, error) {
	names, err := a.host.Mechanisms(ctx)
	if err != nil {
		return "", err
	}
	l, err := a.host.Login(ctx, "LOGIN", mail.Client{Addr: netip.MustParseAddr("203.0.113.7"), TLS: "TLS1.3"})
	if err != nil {
		return "", err
	}
	defer l.Close()
	said := strings.Join(names, ",")
	for _, response := range [][]byte{nil, []byte("alice@example.org"), []byte(password)} {
		challenge, done, err := l.Next(response)
		if err != nil {
			return "", err
		}
		said += fmt.Sprintf(" %q", challenge)
		if done {
			return said + " " + l.Account().String(), nil
		}
	}
	return "", errors.New("no end")
}
