package smtpd

import (
	"fmt"
	"strings"
	"testing"
)

func TestP02StateAfterBDATError(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.envelope()
	c.do("BDAT 10001\r\n"+strings.Repeat("RSET\r\n", 1667)[:10001], "552 5.3.4")
	c.do("BDAT 5 LAST\r\nNOOP\n", "503 5.5.1")
	c.do("DATA\r\n", "503 5.5.1")
	c.do("RCPT TO:<b@mx.test>\r\n", "503 5.5.1")
	r.none()
}

func TestP09ManyChunks(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Chunks = 100 })
	c := r.hi()
	c.envelope()
	for range 99 {
		c.do("BDAT 1\r\nx", "250")
	}
	c.do("BDAT 2 LAST\r\n\r\n", "250 2.0.0 Ok: queued")
	r.only(strings.Repeat("x", 99) + "\r\n")
	c.envelope()
	for range 100 {
		c.do("BDAT 1\r\nx", "250")
	}
	c.do("BDAT 1\r\nx", "554 5.5.0 Too many chunks")
	c.closed()
	r.only(strings.Repeat("x", 99) + "\r\n")
}

func TestP10BDATArithmetic(t *testing.T) {
	r := newRig(t)
	for _, arg := range []string{"", "18446744073709551616", "18446744073709551615", "9223372036854775808", "-1", "0x10", "+5", "1 LAST LAST", "1 FIRST", "5,", "１"} {
		c := r.hi()
		c.envelope()
		c.do(strings.TrimRight("BDAT "+arg, " ")+"\r\nNOOP\r\nNOOP\r\n", "501 5.5.4")
		c.closed()
	}
	for _, arg := range []string{"9223372036854775807", "9223372036854775807 LAST", "10001"} {
		c := r.hi()
		c.envelope()
		c.send("BDAT " + arg + "\r\nNOOP\r\n")
		if arg == "10001" {
			c.send(strings.Repeat("NOOP\r\n", 1666)[:10001-6])
		}
		c.expect("552 5.3.4")
		if arg != "10001" {
			c.closed()
		}
	}
	// An overflow across chunks.
	c := r.hi()
	c.envelope()
	c.do("BDAT 5\r\nabcdeBDAT 9223372036854775807\r\n", "250", "552 5.3.4")
	c.closed()
	c = r.hi()
	c.do("BDAT 0 LAST\r\n", "503 5.5.1")
	c.envelope()
	c.do("BDAT 0 LAST\r\n", "250")
	c.envelope()
	c.do("BDAT 007 last\r\nabcde\r\nNOOP\r\n", "250", "250 2.0.0 Ok")
	if m := r.queued(); len(m) != 2 || m[0].data != "" || m[1].data != "abcde\r\n" {
		t.Errorf("%+v", m)
	}
}

func TestP11MixedDATAandBDAT(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.do("MAIL FROM:<a@x.test> BODY=BINARYMIME\r\n", "501 5.5.4")
	c.envelope()
	c.do("BDAT 3\r\na\r\n", "250")
	c.do("DATA\r\n", "503 5.5.1")
	c.do("MAIL FROM:<a@x.test>\r\n", "503 5.5.1")
	c.do("RCPT TO:<a@x.test>\r\n", "503 5.5.1")
	c.do("NOOP\r\n", "250")
	c.do("BDAT 3 LAST\r\nb\r\n", "250 2.0.0 Ok: queued as q1")
	c.do("BDAT 3 LAST\r\nc\r\n", "503 5.5.1")
	r.only("a\r\nb\r\n")
	for _, reset := range []string{"RSET\r\n", "EHLO y\r\n"} {
		c.envelope()
		c.do("BDAT 3\r\na\r\n", "250")
		c.do(reset, "250")
		c.do("BDAT 3 LAST\r\nc\r\n", "503 5.5.1")
		c.do("DATA\r\n", "503 5.5.1")
	}
	c.envelope()
	c.do("BDAT 3\r\na\r\nQUIT\r\n", "250", "221")
	c.closed()
	r.only("a\r\nb\r\n")
	if r.failed != 3 {
		t.Errorf("%d readers failed", r.failed)
	}
}

func TestP12BDATBeforeRecipients(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	evil := "RSET\r\nMAIL FROM:<evil@x.test>\r\n"
	cmd := fmt.Sprintf("BDAT %d LAST\r\n%s", len(evil), evil)
	c.do(cmd, "503 5.5.1")
	c.do("MAIL FROM:<a@x.test>\r\n", "250")
	c.do(cmd, "503 5.5.1")
	c.do("RCPT TO:<no@mx.test>\r\n", "550")
	c.do(cmd, "554 5.5.1")
	c.do("MAIL FROM:<a@x.test>\r\n", "503") // the first transaction is still there
	r.none()
}

// TestBDATWithoutLineEnd: BDAT needs no line end at the end, what Intake gets has one.
func TestBDATWithoutLineEnd(t *testing.T) {
	r := newRig(t)
	c := r.hi()
	c.envelope()
	c.do("BDAT 4\r\na\r\n.BDAT 1 LAST\r\nb", "250", "250")
	r.only("a\r\n.b\r\n")
}
