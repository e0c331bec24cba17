package hostservice

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
)

// complete fails for every field of v, however deep, that is zero: a field that was added and
// not thought of here.
func complete(t *testing.T, v reflect.Value, where string) {
	t.Helper()
	if v.IsZero() {
		t.Errorf("%s is not in the test", where)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		complete(t, v.Elem(), where)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				complete(t, v.Field(i), where+"."+f.Name)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			complete(t, v.Index(i), where)
		}
	}
}

// known is a gateway that knows one account, keeps one datum of it and refuses one message.
type known struct {
	account sdk.Account
	datum   sdk.Datum
	refusal mail.Status
	taken   Submission
	text    string
	after   sdk.Datum
	wrote   []any
}

func (k *known) Lookup(context.Context, mail.Path) (sdk.Account, error) { return k.account, nil }

func (k *known) Submit(_ context.Context, s Submission) (string, error) {
	b, err := io.ReadAll(s.Message)
	k.taken, k.text = s, string(b)
	return "", errors.Join(err, k.refusal)
}

func (k *known) GetData(_ context.Context, _ string, account mail.Path, key string) (sdk.Datum, error) {
	if account != k.datum.Account || key != k.datum.Key {
		return sdk.Datum{}, nil
	}
	return k.datum, nil
}

func (k *known) PutData(_ context.Context, plugin string, account mail.Path, key string, value []byte, version int64) (int64, error) {
	k.wrote = []any{plugin, account, key, string(value), version}
	return version + 1, nil
}

// ListData has two pages of one datum each.
func (k *known) ListData(_ context.Context, _ string, account mail.Path, prefix string, after sdk.Datum, max int) ([]sdk.Datum, error) {
	k.after = after
	list := make([]sdk.Datum, max)
	for i := range list {
		list[i] = k.datum
		list[i].Value = nil
	}
	if !after.Account.IsZero() || account != k.datum.Account || prefix != "prefix" {
		return list[:1], nil
	}
	return list, nil
}

// Every field of what plugins and gateway tell each other in these calls arrives.
func TestHostCallsKeepEveryField(t *testing.T) {
	a := mail.MustPath("a@example.org")
	k := &known{
		account: sdk.Account{Local: true, Targets: []mail.Path{a, mail.MustPath("b@example.net")}, Info: &sdk.AccountInfo{Address: a, DisplayName: "A", Enabled: true,
			QuotaBytes: 1 << 40, QuotaMessages: 7, Settings: map[string]string{"k": "v"}}},
		datum:   sdk.Datum{Account: a, Key: "key", Value: []byte("value"), Version: 3, Size: 5},
		refusal: mail.Permanent(554, 5, 6, "no").WithRemote("mx.example.net"),
	}
	for where, v := range map[string]any{"Account": k.account, "Datum": k.datum, "Status": k.refusal} {
		complete(t, reflect.ValueOf(v), where)
	}
	s, _ := serveHost(t, ^sdk.HostRight(0), Services{Accounts: k, Data: k, Submitter: k})
	h, ctx := connectHost(t, s, s.token), t.Context()
	same := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", what, got, err, want)
		}
	}
	account, err := h.Lookup(ctx, a)
	same("account", account, k.account, err)
	datum, err := h.Data(ctx, a, "key")
	same("datum", datum, k.datum, err)
	version, err := h.PutData(ctx, a, "key", []byte("new"), 3)
	same("version", version, int64(4), err)
	same("what is written", k.wrote, []any{"p", a, "key", "new", int64(3)}, nil)
	listed := k.datum
	listed.Value = nil
	var last sdk.Datum
	n := 0
	err = h.ListData(ctx, a, "prefix", func(d sdk.Datum) bool { last = d; n++; return true })
	same("listed", last, listed, err)
	if n <= 1 || k.after.Account != a || k.after.Key != "key" {
		t.Errorf("%d listed, the last page after %+v", n, k.after)
	}

	sent := sdk.Submission{Origin: mail.Fetched, ReversePath: mail.MustPath("from@example.net"), Recipients: []mail.Path{a, mail.MustPath("b@example.org")},
		Header: mail.NewHeader([]byte("Subject: \xff\r\n\r\n")), Body: strings.NewReader("text\r\n"),
		Client: mail.Client{Addr: netip.MustParseAddr("192.0.2.1"), Port: 25, Helo: "helo", Host: "host.example", User: "user", Protocol: "POP3", TLS: "TLS1.3", Listener: "l", Class: mail.Relay,
			Mechanism: "PLAIN", PTR: "ptr.example", Connections: 3}}
	complete(t, reflect.ValueOf(sent), "Submission")
	_, err = h.Submit(ctx, sent)
	var st mail.Status
	if errors.As(err, &st); st != k.refusal {
		t.Errorf("the refusal is %+v (%v), want %+v", st, err, k.refusal)
	}
	client := sent.Client
	client.User, client.Mechanism, client.Class = "", "", 0 // never the plugin's to say
	k.taken.Message = nil
	same("submission", k.taken, Submission{Plugin: "p", Origin: sent.Origin, ReversePath: sent.ReversePath, Recipients: sent.Recipients, Client: client}, nil)
	same("message", k.text, "Subject: \xff\r\n\r\ntext\r\n", nil)
}
