package sdk

import (
	"context"

	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/proto"
)

// Observer hears what became of mail, after the fact: for statistics, billing, webhooks. It
// has no say in anything.
type Observer interface {
	// Observe is told of events in the order in which they became durable, by one call at a
	// time. An event is told at least once: again after an error, and a few again after a
	// crash; Seq, ID and Recipient say which one it is. While an observer is down or slow its
	// events wait, within the gateway's limit; mail never waits for it.
	Observe(ctx context.Context, events []Event) error
}

// EventType says what happened.
type EventType uint8

// The types. The numbers are part of the protocol; do not reorder.
const (
	EventAccepted    EventType = iota + 1 // it is in the queue
	EventDelivered                        // a next hop or a mailbox took it
	EventDeferred                         // an attempt failed for now
	EventBounced                          // refused for good, or its lifetime ended
	EventQuarantined                      // held: by a plugin, a conviction, an admin
	EventParked                           // it waits for a plugin
	EventDeleted                          // removed by an admin
	EventDiscarded                        // thrown away by a plugin or a plan
)

// String is the name used in logs.
func (t EventType) String() string {
	names := [...]string{"", "accepted", "delivered", "deferred", "bounced", "quarantined", "parked", "deleted", "discarded"}
	if int(t) < len(names) && t > 0 {
		return names[t]
	}
	return "unknown"
}

// Event is what happened to one recipient of one message.
type Event struct {
	Seq       uint64 // grows with every commit of the queue
	Type      EventType
	ID        string // queue id of the version of the message
	Family    string // queue id of the message as received; "" where it is not known any more
	Recipient int    // its number in the version
	Copy      bool   // a copy made by a plugin
	// From and To are zero where the message is gone and they are not known any more.
	From, To mail.Path
	NextHop  string      // key of the destination
	Attempts int         // delivery attempts begun
	Status   mail.Status // of the last attempt; zero where there was none
	Reason   string      // why it is held, parked or discarded
}

// Observe serves the host's call.
func (s *server) Observe(ctx context.Context, r *proto.ObserveRequest) (*proto.ObserveResponse, error) {
	if err := s.observer.Observe(ctx, decodeEvents(r)); err != nil {
		return nil, failure(err)
	}
	return &proto.ObserveResponse{}, nil
}

func decodeEvents(r *proto.ObserveRequest) []Event {
	events := make([]Event, len(r.GetEvents()))
	for i, e := range r.GetEvents() {
		events[i] = Event{Seq: e.GetSeq(), Type: EventType(e.GetType()), ID: e.GetId(), Family: e.GetFamily(), Recipient: int(e.GetRecipient()), Copy: e.GetCopy(),
			From: decodePath(e.GetFrom()), To: decodePath(e.GetTo()), NextHop: e.GetNextHop(), Attempts: int(e.GetAttempts()), Reason: e.GetReason()}
		if st := e.GetStatus(); st != nil {
			events[i].Status = decodeStatus(st)
		}
	}
	return events
}
