package milterwire

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/emersion/go-milter"
)

// Answers that go-milter's client has no name for.
const (
	progress   = 'p' // SMFIR_PROGRESS
	shutdown   = '4' // SMFIR_SHUTDOWN
	connFail   = 'f' // SMFIR_CONN_FAIL
	addRcptPar = '2' // SMFIR_ADDRCPT_PAR
)

// translate makes of a packet of the milter one that the client understands; not ok: it is
// nothing for the client.
func (c *Conn) translate(code byte, data []byte) (out []byte, ok bool, err error) {
	if c.step == Negotiation {
		if code != byte(milter.CodeOptNeg) {
			return nil, false, protocolErrorf("%q instead of a negotiation: is this a milter?", code)
		}
		out, err := c.negotiate(data)
		return out, true, err
	}
	switch code {
	case progress:
		return nil, false, nil
	case byte(milter.ActContinue), byte(milter.ActAccept), byte(milter.ActDiscard), byte(milter.ActReject), byte(milter.ActTempFail):
		return frame(code, nil), true, nil
	case byte(milter.ActReplyCode):
		if err := checkReply(data); err != nil {
			return nil, false, err
		}
		return frame(code, data), true, nil
	case shutdown, connFail:
		c.Gone = true
		return frame(byte(milter.ActTempFail), nil), true, nil
	case byte(milter.ActSkip):
		if c.step != Content {
			return nil, false, protocolErrorf("skip where there is nothing to skip")
		}
		c.Skipped = true
		return frame(byte(milter.ActContinue), nil), true, nil
	}
	if c.step != End {
		return nil, false, protocolErrorf("answer %q is unknown or out of place", code)
	}
	return c.change(code, data)
}

// change looks at a change of the message.
func (c *Conn) change(code byte, data []byte) (out []byte, ok bool, err error) {
	if milter.ModifyActCode(code) == milter.ActReplBody {
		if c.Body == nil {
			return nil, false, protocolErrorf("a new body out of place")
		}
		c.Replaced = true
		return nil, false, c.Body(data)
	}
	c.changes++
	c.bytes += len(data)
	if c.changes > MaxChanges || c.bytes > maxBytes {
		return nil, false, protocolErrorf("too many changes")
	}
	texts := 1
	rest := data
	switch milter.ModifyActCode(code) {
	case addRcptPar:
		code = byte(milter.ActAddRcpt)
		if address, par, _ := bytes.Cut(data, []byte{0}); len(bytes.Trim(par, "\x00")) > 0 {
			c.Parameters++
			data = append(address[:len(address):len(address)], 0)
			rest = data
		}
	case milter.ActChangeHeader, milter.ActInsertHeader:
		if len(data) < 4 {
			return nil, false, protocolErrorf("change %q is cut off", code)
		}
		rest, texts = data[4:], 2
	case milter.ActAddHeader:
		texts = 2
	case milter.ActAddRcpt, milter.ActDelRcpt, milter.ActChangeFrom, milter.ActQuarantine:
	default:
		return nil, false, protocolErrorf("answer %q is unknown", code)
	}
	if bytes.Count(rest, []byte{0}) < texts {
		return nil, false, protocolErrorf("change %q is cut off", code)
	}
	return frame(code, data), true, nil
}

// checkReply checks "550 text": a code of refusal, and a blank or hyphen.
func checkReply(data []byte) error {
	if len(data) < 5 || data[0] != '4' && data[0] != '5' || data[1] < '0' || data[1] > '9' || data[2] < '0' || data[2] > '9' ||
		data[3] != ' ' && data[3] != '-' {
		return protocolErrorf("reply %.20q is none that refuses", data)
	}
	return nil
}

// negotiate reads the milter's half of the negotiation. The client is told that its version
// is ours: it would not talk to older ones, which are compatible in what is left of the
// protocol by the options that they chose.
func (c *Conn) negotiate(data []byte) ([]byte, error) {
	if len(data) < 12 {
		return nil, protocolErrorf("negotiation of %d bytes", len(data))
	}
	c.Version = binary.BigEndian.Uint32(data)
	actions, protocol := binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:])
	if c.Version < 2 || c.Version > 6 {
		return nil, protocolErrorf("version %d", c.Version)
	}
	protocol &^= uint32(milter.OptRcptRej) // harmless: there are none
	if actions&^uint32(Actions) != 0 || protocol&^uint32(Protocol) != 0 {
		return nil, protocolErrorf("options %#x and %#x, which were not offered", actions, protocol)
	}
	if err := c.macros(data[12:]); err != nil {
		return nil, err
	}
	out := frame(byte(milter.CodeOptNeg), data[:12])
	binary.BigEndian.PutUint32(out[5:], 6)
	binary.BigEndian.PutUint32(out[13:], protocol)
	return out, nil
}

// macros reads the lists of macros that the milter asks for: stage, text, NUL.
func (c *Conn) macros(data []byte) error {
	for len(data) > 0 {
		if len(data) < 5 {
			return protocolErrorf("a list of macros that is cut off")
		}
		stage := milter.Stage(binary.BigEndian.Uint32(data))
		list, rest, ok := bytes.Cut(data[4:], []byte{0})
		if !ok || stage > milter.StageEOH || len(list) > 4096 {
			return protocolErrorf("a malformed list of macros")
		}
		if c.Macros == nil {
			c.Macros = make(map[milter.Stage]string)
		}
		c.Macros[stage] = string(list)
		data = rest
	}
	return nil
}

// Data sends DATA, a command that go-milter's client does not have, and waits for the answer
// unless none was negotiated.
func (c *Conn) Data(p milter.OptProtocol) (*milter.Action, error) {
	goOn := &milter.Action{Code: milter.ActContinue}
	if p&milter.OptNoData != 0 || c.Version < 4 {
		return goOn, nil
	}
	if _, err := c.Write(frame(byte(milter.CodeData), nil)); err != nil {
		return nil, err
	}
	if p&milter.OptNoDataReply != 0 {
		return goOn, nil
	}
	for {
		code, data, err := c.packet()
		if err != nil {
			return nil, err
		}
		out, ok, err := c.translate(code, data)
		if err != nil {
			return nil, err
		}
		if ok {
			return action(out[4], out[5:]), nil
		}
	}
}

// action makes the client's value of an answer that was checked.
func action(code byte, data []byte) *milter.Action {
	a := &milter.Action{Code: milter.ActionCode(code)}
	if a.Code == milter.ActReplyCode {
		a.SMTPCode, _ = strconv.Atoi(string(data[:3]))
		text, _, _ := bytes.Cut(data[4:], []byte{0})
		a.SMTPText = string(text)
	}
	return a
}
