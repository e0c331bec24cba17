package managesieve

import (
	"testing"
	"time"
)

// When the server ends, commands under way end, and clients are told.
func TestStop(t *testing.T) {
	r := serving(t, func(o *Options) { o.Timeouts.Stop = patience })
	r.scripts.hold, r.scripts.held = make(chan struct{}), make(chan struct{})
	idle, half, handshake, busy := r.dial().talk("ALICE"), r.dial().talk("ALICE\nC\"CHECKSCRIPT {10+}\\r\\nkeep\""), r.dial().talk("S: ...\nC: STARTTLS\nS: OK*"), r.dial().talk("ALICE")
	busy.talk("C: PUTSCRIPT \"a\" \"keep;\"\nC: NOOP")
	<-r.scripts.held
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.end()
	}()
	over := "S: BYE (TRYLATER) \"The server ends or begins anew\"\nEND"
	idle.talk(over)
	half.talk(over)
	handshake.talk("END")
	select {
	case <-ended:
		t.Fatal("the server has ended before the command")
	default:
	}
	close(r.scripts.hold)
	busy.talk("S: OK \"The script is stored\"\n" + over)
	<-ended
	if r.scripts.scripts["a"] != "keep;" {
		t.Error("the script has not been stored")
	}
}

// Who does not come to an end is cut off.
func TestStopForced(t *testing.T) {
	r := serving(t, func(o *Options) { o.Timeouts.Stop, o.Timeouts.Write = 50*time.Millisecond, patience })
	p := r.dial().talk("ALICE")
	r.scripts.hold, r.scripts.held = make(chan struct{}), make(chan struct{})
	p.talk("C: PUTSCRIPT \"a\" \"keep;\"")
	<-r.scripts.held
	time.AfterFunc(200*time.Millisecond, func() { close(r.scripts.hold) })
	r.end()
	if _, err := p.r.ReadString('\n'); err == nil {
		t.Error("the connection has not been cut off")
	}
}
