package sdk

import (
	"context"
	"errors"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

type faulty struct{ err error }

func (f faulty) Configure(context.Context, Config) error                 { return f.err }
func (f faulty) Filter(context.Context, *mail.Message) (*Verdict, error) { return Continue(), nil }

// An admin reads every fault of the settings in one line.
func TestFaultsInOneLine(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("settings: a: is missing"), "settings: a: is missing"},
		{errors.Join(errors.New("settings: a: is missing"), errors.New("settings: b: is\twrong")), "settings: a: is missing; settings: b: is wrong"},
	} {
		s, err := newServer(faulty{tt.err}, Manifest{Name: "faulty"}, func() {})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Configure(t.Context(), &proto.ConfigureRequest{})
		if err != nil || r.Error != tt.want {
			t.Errorf("%q, %v; want %q", r.GetError(), err, tt.want)
		}
	}
}
