package wire

import (
	"math"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/proto"
)

// maxEventText bounds each text of an event, in bytes: what was kept of a reply may be long.
const maxEventText = 1024

// ObserveRequest is the call about some events.
func ObserveRequest(events []sdk.Event) *proto.ObserveRequest {
	r := &proto.ObserveRequest{Events: make([]*proto.Event, len(events))}
	for i, e := range events {
		pe := &proto.Event{Seq: e.Seq, Type: proto.EventType(e.Type), Id: e.ID, Family: e.Family, Recipient: uint32(e.Recipient), Copy: e.Copy,
			NextHop: e.NextHop, Attempts: uint32(min(e.Attempts, math.MaxInt32)), Reason: bounded(e.Reason)}
		if !e.From.IsZero() {
			pe.From = path(e.From)
		}
		if !e.To.IsZero() {
			pe.To = path(e.To)
		}
		if !e.Status.IsZero() {
			pe.Status = Status(e.Status)
		}
		r.Events[i] = pe
	}
	return r
}

func bounded(s string) string { return text(s[:min(len(s), maxEventText)]) }
