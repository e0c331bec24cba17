// Package frame encodes what travels on Plugin.Stream one call or answer at a time, and puts
// what is to be sent together side by side without another copy. What cannot be encoded is
// then an error of one call, and not of the stream; and whoever calls pays for his own.
package frame

import (
	"errors"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that Codec leads to
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// ErrTooLarge says that a message exceeds the limit.
var ErrTooLarge = errors.New("message is larger than max")

// A Frame is one encoded call or answer. It is sent or freed, once.
type Frame struct{ mem.Buffer }

// Encode encodes one element of Calls.calls or Answers.answers, of at most max bytes.
func Encode(m proto.Message, max int) (Frame, error) {
	size := proto.Size(m)
	if size > max {
		return Frame{}, ErrTooLarge
	}
	buf := Pool.Get(protowire.SizeTag(1) + protowire.SizeBytes(size))
	b := protowire.AppendTag((*buf)[:0], 1, protowire.BytesType) // the field is number 1 in both
	b = protowire.AppendVarint(b, uint64(size))
	if _, err := (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(b, m); err != nil {
		Pool.Put(buf)
		return Frame{}, err
	}
	return Frame{mem.NewBuffer(buf, Pool)}, nil
}

// A Batch is a message made of frames: Calls or Answers, as a gRPC stream with [Codec] sends
// it.
type Batch struct{ frames mem.BufferSlice }

// Add adds a frame, which belongs to the batch then.
func (b *Batch) Add(f Frame) { b.frames = append(b.frames, f.Buffer) }

// Size is how many bytes the batch has.
func (b *Batch) Size() int { return b.frames.Len() }

// Codec is gRPC's own for all messages but a [Batch].
type Codec struct{ encoding.CodecV2 }

// NewCodec returns the codec.
func NewCodec() Codec { return Codec{encoding.GetCodecV2("proto")} }

// Marshal implements encoding.CodecV2.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(*Batch); ok {
		return b.frames, nil
	}
	return c.CodecV2.Marshal(v)
}
