package sdk_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "google.golang.org/protobuf/proto"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
	"github.com/postern-mail/postern/sdk/wire"
)

// fill gives every field of v, however deep, a value that is not zero and differs from its
// neighbours. A field of a type it does not know fails the test: a new one must be thought
// of here, and then is checked below.
func fill(t *testing.T, v reflect.Value, n *int, where string) {
	*n++
	switch v.Interface().(type) {
	case *sdk.Host:
		return // does not travel
	case mail.Path:
		v.Set(reflect.ValueOf(mail.MustPath(fmt.Sprintf("user%d@example%d.org", *n, *n))))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", *n%250+1))))
		return
	case mail.Header:
		v.Set(reflect.ValueOf(mail.NewHeader([]byte(fmt.Sprintf("X: %d\r\n\r\n", *n)))))
		return
	case mail.Status:
		v.Set(reflect.ValueOf(mail.Permanent(550+*n%5, 1, *n%100, fmt.Sprint("text ", *n)).WithRemote(fmt.Sprint("mx", *n))))
		return
	case mail.Origin:
		v.Set(reflect.ValueOf(mail.Fetched))
		return
	case mail.Class:
		v.Set(reflect.ValueOf(mail.Relay))
		return
	case sdk.Need:
		v.Set(reflect.ValueOf(sdk.NeedBody))
		return
	case sdk.Right:
		v.Set(reflect.ValueOf(sdk.MayReject | sdk.MayEditHeader))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() {
				t.Fatalf("%s.%s: cannot be filled", where, f.Name)
			}
			fill(t, v.Field(i), n, where+"."+f.Name)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n, where)
	case reflect.Slice:
		s := reflect.MakeSlice(v.Type(), 2, 2)
		for i := range 2 {
			fill(t, s.Index(i), n, where)
		}
		v.Set(s)
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		for range 2 {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, k, n, where)
			fill(t, e, n, where)
			m.SetMapIndex(k, e)
		}
		v.Set(m)
	case reflect.String:
		v.SetString(fmt.Sprint("text", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint8:
		v.SetUint(uint64(*n%3 + 1))
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Float64:
		v.SetFloat(float64(*n) + 0.5)
	default:
		t.Fatalf("%s: do not know how to fill %s", where, v.Type())
	}
}

func filled[T any](t *testing.T) T {
	var v T
	n := 0
	fill(t, reflect.ValueOf(&v).Elem(), &n, reflect.TypeFor[T]().Name())
	return v
}

// overWire sends m as bytes.
func overWire[M pb.Message](t *testing.T, m M, into M) M {
	t.Helper()
	b, err := pb.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := pb.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
	return into
}

var unexported = cmp.Exporter(func(reflect.Type) bool { return true })

func same(t *testing.T, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, unexported); d != "" {
		t.Errorf("lost or changed on the wire (-sent +received):\n%s", d)
	}
}

// Every field of every value survives the way to the plugin.
func TestMessageSurvivesTheWire(t *testing.T) {
	m := filled[mail.Message](t)
	req, err := wire.FilterRequest(&m, sdk.NeedBody)
	if err != nil {
		t.Fatal(err)
	}
	got := sdk.DecodeMessage(overWire(t, req, &proto.FilterRequest{}).Message)
	same(t, *got, m)
}

func TestEmptyMessageSurvivesTheWire(t *testing.T) {
	m := mail.Message{Envelope: mail.Envelope{Recipients: []mail.Recipient{{}}}}
	req, err := wire.FilterRequest(&m, sdk.NeedBody)
	if err != nil {
		t.Fatal(err)
	}
	got := sdk.DecodeMessage(overWire(t, req, &proto.FilterRequest{}).Message)
	if !got.Envelope.ReversePath.IsZero() || len(got.Envelope.Recipients) != 1 || got.Envelope.Client.Addr.IsValid() {
		t.Errorf("got %+v", got)
	}
}

func TestDeliverySurvivesTheWire(t *testing.T) {
	d := filled[sdk.Delivery](t)
	req, err := wire.DeliverRequest(&d)
	if err != nil {
		t.Fatal(err)
	}
	same(t, *sdk.DecodeDelivery(overWire(t, req, &proto.DeliverRequest{})), d)
}

func TestAttemptSurvivesTheWire(t *testing.T) {
	a := filled[sdk.Attempt](t)
	sent := a
	a.Envelope.Recipients = nil // they do not travel
	same(t, *sdk.DecodeAttempt(overWire(t, wire.GateRequest(&sent), &proto.GateRequest{})), a)
	empty := sdk.Attempt{Stage: sdk.AtConnect}
	same(t, *sdk.DecodeAttempt(overWire(t, wire.GateRequest(&empty), &proto.GateRequest{})), empty)
}

func TestPlanSurvivesTheWire(t *testing.T) {
	action := filled[sdk.PlanAction](t)
	action.Kind = sdk.PlanNotify
	action.Flags = []string{"a", "b"}
	action.Body = []byte("body\r\n")
	kept := action
	action.NewBody, action.Own, kept.Kind = sdk.Section{}, false, sdk.PlanKeep
	p := sdk.Plan{Actions: []sdk.PlanAction{kept, action}, Remember: []sdk.Mark{{Key: "k", Lifetime: 90 * time.Second}, {Key: "l", Lifetime: time.Hour}}, Notes: []string{"a", "b"}}
	got, err := wire.PlanDraft(overWire(t, sdk.EncodePlan(&p), &proto.PlanResponse{}), sdk.Manifest{Host: sdk.MaySubmit, May: sdk.MayEditHeader | sdk.MayReplaceBody}, kept.NewBody.Draft)
	if err != nil {
		t.Fatal(err)
	}
	same(t, *got, p)
}

func TestEventsSurviveTheWire(t *testing.T) {
	e := filled[sdk.Event](t)
	e.Type = sdk.EventQuarantined
	events := []sdk.Event{e, {Seq: 7, Type: sdk.EventDelivered, ID: "id"}}
	same(t, sdk.DecodeEvents(overWire(t, wire.ObserveRequest(events), &proto.ObserveRequest{})), events)
}

func TestConfigSurvivesTheWire(t *testing.T) {
	c := filled[sdk.Config](t)
	same(t, sdk.DecodeConfig(overWire(t, wire.ConfigureRequest(c), &proto.ConfigureRequest{})), c)
}

func TestManifestSurvivesTheWire(t *testing.T) {
	m := filled[sdk.Manifest](t)
	d, err := wire.Describe(overWire(t, sdk.EncodeManifest(m, []string{"filter", "gate", "mailbox"}), &proto.Manifest{}))
	if err != nil {
		t.Fatal(err)
	}
	same(t, d, wire.Description{Manifest: m, Filter: true, Gate: true, Mailbox: true, Stream: true})
}

// The verdict's fields are filled one kind of outcome and edit at a time, because only
// meaningful verdicts pass.
func TestVerdictSurvivesTheWire(t *testing.T) {
	all := sdk.Manifest{May: ^sdk.Right(0)}
	env := &mail.Envelope{Recipients: make([]mail.Recipient, 100)}
	v := filled[sdk.Verdict](t)
	v.Action = sdk.ActionReject
	i := 0
	for r, o := range v.PerRecipient {
		o.Action = [...]sdk.Action{sdk.ActionQuarantine, sdk.ActionReject}[i]
		v.PerRecipient[r] = o
		i++
	}
	kinds := []sdk.EditKind{sdk.HeaderInsert, sdk.HeaderChange, sdk.HeaderRemove, sdk.RecipientAdd, sdk.RecipientRemove, sdk.Copy, sdk.ReversePath, sdk.BodyReplace}
	edit := v.Edits[0]
	edit.Recipients = []int{3, 5}
	v.Edits = nil
	for _, k := range kinds {
		edit.Kind = k
		v.Edits = append(v.Edits, edit)
		if k == sdk.Copy { // one of its own
			v.Edits[len(v.Edits)-1].Value = "Subject: x\r\n\r\n"
		}
	}
	v.Edits = append(v.Edits, sdk.Edit{Kind: sdk.HeaderInsert, Name: "X-Latin", Value: "caf\xe9", Index: -1, Recipients: []int{}})
	got, err := wire.VerdictDraft(overWire(t, sdk.EncodeVerdict(&v), &proto.Verdict{}), all, env, edit.BodyDraft)
	if err != nil {
		t.Fatal(err)
	}
	same(t, *got, v)
}

func TestStatusSurvivesTheWire(t *testing.T) {
	for _, s := range []mail.Status{mail.Temporary(452, 2, 2, "full"), mail.Permanent(550, 1, 1, "no").WithRemote("mx.example.org")} {
		r := overWire(t, &proto.DeliverResponse{Status: sdk.EncodeStatus(s)}, &proto.DeliverResponse{})
		err, ok := wire.Delivered(r)
		if !ok {
			t.Fatal(err)
		}
		same(t, mail.StatusOf(err), s)
	}
	if err, ok := wire.Delivered(&proto.DeliverResponse{}); err != nil || !ok {
		t.Error(err)
	}
	if _, ok := wire.Delivered(&proto.DeliverResponse{Status: &proto.Status{Code: 250}}); ok {
		t.Error("a success as an error came through")
	}
}

// Text that clients sent as they liked must not make a message undeliverable.
func TestInvalidTextTravels(t *testing.T) {
	m := mail.Message{Envelope: mail.Envelope{EnvelopeID: "\xff", Recipients: []mail.Recipient{{ORCPT: "rfc822;\xfe"}}, Client: mail.Client{Helo: "a\xc3"}}, Notes: map[string]string{"k\xff": "v\xff"}}
	req, err := wire.FilterRequest(&m, sdk.NeedHeader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pb.Marshal(req); err != nil {
		t.Error(err)
	}
	v := sdk.Discard("bad \xff\r\nreason").Note("n\x00", "x\xff\ny").Score("s\n", 1)
	got, err := wire.Verdict(overWire(t, sdk.EncodeVerdict(v), &proto.Verdict{}), sdk.Manifest{May: sdk.MayDiscard}, &m.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	if got.Reason != "bad ?  reason" {
		t.Errorf("reason is %q", got.Reason)
	}
}
