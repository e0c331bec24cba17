package frame

import (
	"errors"
	"strings"
	"testing"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/postern-mail/postern/sdk/proto"
)

// Frames side by side are the message that has them as its elements, for calls and answers,
// in memory that was used before.
func TestBatchIsTheMessage(t *testing.T) {
	codec := NewCodec()
	for _, size := range []int{0, 1, small, middle, large, 2 * large} {
		text := strings.Repeat("x", size)
		calls := &proto.Calls{Calls: []*proto.Call{{Id: 1, Filter: &proto.FilterRequest{Draft: text}}, {Id: 1 << 40, Cancel: true}, {}}}
		answers := &proto.Answers{Answers: []*proto.Answer{{Id: 7, Error: &proto.CallError{Message: text}}, {Id: 8, Verdict: &proto.Verdict{}}}}
		var b, c Batch
		for _, m := range calls.Calls {
			b.Add(encode(t, m))
		}
		for _, m := range answers.Answers {
			c.Add(encode(t, m))
		}
		for range 3 {
			encode(t, calls.Calls[0]).Free() // its memory must not be that of b
		}
		got, err := codec.Marshal(&b)
		if err != nil || got.Len() != b.Size() {
			t.Fatal(err)
		}
		back := &proto.Calls{}
		if err := codec.Unmarshal(got, back); err != nil || !protobuf.Equal(back, calls) {
			t.Errorf("%d: calls changed: %v", size, err)
		}
		if got, err = codec.Marshal(&c); err != nil {
			t.Fatal(err)
		}
		again := &proto.Answers{}
		if err := codec.Unmarshal(got, again); err != nil || !protobuf.Equal(again, answers) {
			t.Errorf("%d: answers changed: %v", size, err)
		}
		if plain, err := codec.Marshal(calls); err != nil || plain.Len() != b.Size() {
			t.Errorf("%d: another message: %v", size, err)
		}
	}
}

func encode(t *testing.T, m protobuf.Message) Frame {
	t.Helper()
	f, err := Encode(m, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestEncodeLimits(t *testing.T) {
	m := &proto.Answer{Error: &proto.CallError{Message: strings.Repeat("x", 1000)}}
	n := protobuf.Size(m)
	for max, want := range map[int]error{n - 1: ErrTooLarge, n: nil, n + 1: nil} {
		if _, err := Encode(m, max); !errors.Is(err, want) {
			t.Errorf("%d of %d: %v", n, max, err)
		}
	}
	if _, err := Encode(&proto.CallError{Message: "\xff"}, 100); err == nil {
		t.Error("text that is no UTF-8 was encoded")
	}
}
