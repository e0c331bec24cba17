package dkimsig

import (
	"bytes"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

func TestTags(t *testing.T) {
	for in, want := range map[string]string{
		"a=1; b=2":                  "a=1|b=2",
		" a = 1 ;\r\n\tb\t=\r\n 2;": "a=1|b=2",
		"a=1;b=x=y":                 "a=1|b=x=y",
		"a=":                        "a=",
		"A=1;a=2":                   "A=1|a=2",
		"a_1=x y":                   "a_1=x y",
		"a=1; ":                     "a=1",
	} {
		tags, err := ParseTags(in)
		var got []string
		for _, t := range tags {
			got = append(got, t.Name+"="+t.Value)
		}
		if err != nil || strings.Join(got, "|") != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", ";", "a", "a=1;;b=2", "=1", "1a=1", "a b=1", "a=1;a=2", "a=\x00", "a=\x7f", "a=\xff", "a-b=1", strings.Repeat("x", maxName+1) + "=1", strings.Repeat("a", MaxTagList) + "=1"} {
		if tags, err := ParseTags(in); err == nil {
			t.Errorf("%q: %v", in, tags)
		}
	}
}

func TestWithoutValue(t *testing.T) {
	for in, want := range map[string]string{
		"X: a=1; b=xyz; c=2\r\n":            "X: a=1; b=; c=2\r\n",
		"X: b=xyz\r\n":                      "X: b=\r\n",
		"X: bh=abc;\r\n b = x\r\n y ;d\r\n": "X: bh=abc;\r\n b =;d\r\n",
		"X: bb=1; b=2;\r\n":                 "X: bb=1; b=;\r\n",
		"X: h=b:c; b=1":                     "X: h=b:c; b=\r\n",
		"X: a=b=1; b=z\r\n":                 "X: a=b=1; b=\r\n",
		"X: a=1\r\n":                        "",
		"X:\r\n":                            "",
	} {
		got, ok := WithoutValue([]byte(in))
		if string(got) != want || ok != (want != "") {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// FuzzSignature: what is parsed holds together, and nothing that parsing accepts makes the
// rest fail.
func FuzzSignature(f *testing.F) {
	f.Add("v=1; a=rsa-sha256; c=relaxed; d=example.org; s=s1; h=from:to; bh=AAAA; b=AAAA; t=1; x=2; l=3")
	f.Add("i=1; a=rsa-sha256; d=example.org; s=s1; cv=none; b=AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		tags, err := ParseTags(s)
		if err != nil {
			return
		}
		names := make(map[string]bool)
		for _, tag := range tags {
			if names[tag.Name] || tag.Name == "" || strings.Trim(tag.Value, fws) != tag.Value || strings.Contains(tag.Value, ";") {
				t.Fatalf("tag %+v", tag)
			}
			names[tag.Name] = true
		}
		sig, err := ParseSignature(tags, Simple)
		if err != nil {
			return
		}
		raw := []byte("Dkim-Signature:" + s + "\r\n")
		own, ok := WithoutValue(raw)
		if !ok || len(own) > len(raw)+2 {
			t.Fatalf("%q, %t", own, ok)
		}
		f := NewFields(mail.NewHeader([]byte("From: a\r\nTo: b\r\n\r\n")))
		if len(f.Hash(sig.Fields, sig.Header, own)) != 32 {
			t.Fatal("no hash")
		}
		if name := sig.QueryName(); strings.ContainsAny(name, " \r\n\x00") {
			t.Fatalf("asks for %q", name)
		}
	})
}

// FuzzRecord: a record that parses has a key that can be used.
func FuzzRecord(f *testing.F) {
	f.Add("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	f.Add("v=DKIM1; t=y:s; h=sha256; s=email; p=MIGJAoGBALVI635dLK4cJJAH3Lx6upo3X/Lm1tQz3mezcWTA3BUBnyIsdnRf57aD5BtNmhPrYYDlWlzw3UgnKisIxktkk5+iMQMlFtAS10JB8L3YadXNJY+JBcbeSi5TgJe4WFzNgW95FWDAuSTRXSWZfA/8xjflbTLDx0euFZOM7C4T0GwLAgMBAAE=")
	digest := bytes.Repeat([]byte{1}, 32)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRecord(s)
		if err != nil {
			return
		}
		if r.Key == nil || r.Bits < 256 || r.Bits > MaxBits {
			t.Fatalf("%+v", r)
		}
		r.Verify(digest, make([]byte, 64)) // a small-order Ed25519 key may accept this: its owner's matter
	})
}

// FuzzBody: the hash does not depend on the pieces, nor on what canonicalization drops.
func FuzzBody(f *testing.F) {
	f.Add([]byte("a  b\t\r\n \r\n\r\n\tc \r\r\n d\re \r\n\r\n"), 3)
	f.Fuzz(func(t *testing.T, body []byte, cut int) {
		if cut < 0 || cut > len(body) {
			return
		}
		for _, c := range []Canon{Simple, Relaxed} {
			whole, pieces, longer := NewBodyHash(c), NewBodyHash(c), NewBodyHash(c)
			whole.Write(body)
			pieces.Write(body[:cut])
			pieces.Write(body[cut:])
			longer.Write(body)
			ends := bytes.HasSuffix(body, []byte("\r\n")) || len(body) == 0
			if ends {
				longer.Write([]byte("\r\n\r\n"))
			}
			want, n := whole.Sum()
			got, m := pieces.Sum()
			more, k := longer.Sum()
			if !bytes.Equal(got, want) || n != m || n > int64(len(body))+2 || !bytes.Equal(more, want) || k != n {
				t.Fatalf("%s: %d, %d, %d bytes", c, n, m, k)
			}
		}
	})
}
