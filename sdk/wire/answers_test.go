package wire

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/proto"
)

func TestListeners(t *testing.T) {
	many := func(n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprint(":", 1000+i))
		}
		return all
	}
	for _, tt := range []struct {
		addresses []string
		want      string // "" for none
	}{
		{nil, ""},
		{[]string{":25", "127.0.0.1:587", "[::1]:0", "unix:/run/x"}, ""},
		{many(maxListeners - 1), ""},
		{many(maxListeners), ""},
		{many(maxListeners + 1), "more than 32"},
		{[]string{":25", ":26", ":25"}, "twice"},
		{[]string{"smtp"}, "neither"},
		{[]string{":smtp"}, "the port is not a number"},
		{[]string{":65536"}, "the port is not a number"},
		{[]string{"unix:run/x"}, "absolute"},
		{[]string{"unix:/" + strings.Repeat("x", maxSocket-1)}, ""},
		{[]string{"unix:/" + strings.Repeat("x", maxSocket)}, "at most 100"},
		{[]string{"a,4=b:25"}, "not an address"},
		{[]string{"a\n:25"}, "not an address"},
	} {
		got, err := Listeners(&proto.ListenersResponse{Addresses: tt.addresses})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || err == nil && len(got) != len(tt.addresses) {
			t.Errorf("%.50q: %v, %v", tt.addresses, got, err)
		}
	}
}

func TestTargets(t *testing.T) {
	many := func(n int) *proto.ResolveResponse {
		r := &proto.ResolveResponse{}
		for i := range n {
			r.Targets = append(r.Targets, &proto.Path{Local: fmt.Sprint(i), Domain: "example.org"})
		}
		return r
	}
	for n, ok := range map[int]bool{0: true, maxTargets - 1: true, maxTargets: true, maxTargets + 1: false} {
		if got, err := Targets(many(n)); (err == nil) != ok || ok && len(got) != n {
			t.Errorf("%d: %d, %v", n, len(got), err)
		}
	}
	for _, p := range []*proto.Path{nil, {}, {Local: "a\r\nb", Domain: "example.org"}, {Local: "a", Domain: "b c"}} {
		r := many(1)
		r.Targets = append(r.Targets, p)
		if got, err := Targets(r); err == nil {
			t.Errorf("%v: %v", p, got)
		}
	}
}
