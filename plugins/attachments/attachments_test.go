package attachments

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/mail"
	"github.com/postern-mail/postern/sdk/sdktest"
)

func configured(t testing.TB, settings string) *Plugin {
	t.Helper()
	p := New()
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings)}); err != nil {
		t.Fatal(err)
	}
	return p
}

func message(t testing.TB, text string) *mail.Message {
	t.Helper()
	h, body := mail.SplitMessage([]byte(text))
	return &mail.Message{Envelope: mail.Envelope{Origin: mail.Incoming, Recipients: make([]mail.Recipient, 1)}, Header: h, Body: mail.InlineBody(body)}
}

func run(t testing.TB, p *Plugin, text string) *sdk.Verdict {
	t.Helper()
	v, err := sdktest.Filter(t, p, Manifest(), message(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// wrap makes a message with one attachment.
func wrap(name string, content []byte) string {
	disposition := "attachment"
	if name != "" {
		disposition += "; filename=\"" + name + "\""
	}
	return wrapWith("Content-Type: application/octet-stream\r\nContent-Disposition: "+disposition+"\r\n", content)
}

func wrapWith(header string, content []byte) string {
	return "From: a@example.net\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\npreamble\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n--b\r\n" + header + "Content-Transfer-Encoding: base64\r\n\r\n" +
		base64Lines(content) + "\r\n--b--\r\nepilogue\r\n"
}

func base64Lines(b []byte) string {
	s := base64.StdEncoding.EncodeToString(b)
	var out strings.Builder
	for len(s) > 76 {
		out.WriteString(s[:76] + "\r\n")
		s = s[76:]
	}
	return out.String() + s
}

type entry struct {
	name    string
	content []byte
}

func zipped(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		f, err := w.Create(e.name)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(e.content)
	}
	w.Close()
	return b.Bytes()
}

func gzipped(name string, content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name = name
	w.Write(content)
	w.Close()
	return b.Bytes()
}

func tarred(entries ...entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		w.WriteHeader(&tar.Header{Name: e.name, Size: int64(len(e.content)), Mode: 0o644})
		w.Write(e.content)
	}
	w.Close()
	return b.Bytes()
}

// encryptedZip sets the flag of encryption in the headers of an archive.
func encryptedZip(t testing.TB, entries ...entry) []byte {
	b := zipped(t, entries...)
	for i := range b {
		if bytes.HasPrefix(b[i:], []byte("PK\x03\x04")) {
			b[i+6] |= 1
		} else if bytes.HasPrefix(b[i:], []byte("PK\x01\x02")) {
			b[i+8] |= 1
		}
	}
	return b
}

var (
	pe    = append([]byte("MZ\x90\x00\x03\x00\x00\x00\x04"), make([]byte, 200)...)
	elf   = append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 100)...)
	plain = []byte("just text\r\n")
	ole   = append([]byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), make([]byte, 3000)...)
)

func oleWith(name string) []byte {
	return append(append(slices.Clone(ole), utf16(name)...), make([]byte, 5000)...)
}

// Every attachment of this table is found by its content or its name, wherever it hides.
func TestRulesFit(t *testing.T) {
	p := configured(t, "")
	macros := configured(t, `[[rule]]
name = "macros"
types = ["macro"]
action = "quarantine"
[[rule]]
types = ["encrypted"]
action = "quarantine"
[[rule]]
types = ["disguised", "disk-image", "rar", "tnef", "damaged"]
action = "quarantine"
`)
	vba := zipped(t, entry{"[Content_Types].xml", plain}, entry{"word/vbaProject.bin", ole})
	for name, tt := range map[string]struct {
		p    *Plugin
		msg  string
		want sdk.Action
	}{
		"nothing":                   {p, wrap("a.txt", plain), sdk.ActionContinue},
		"by name":                   {p, wrap("a.exe", plain), sdk.ActionReject},
		"capitals":                  {p, wrap("A.EXE", plain), sdk.ActionReject},
		"dots at the end":           {p, wrap("a.exe...", plain), sdk.ActionReject},
		"spaces at the end":         {p, wrap("a.exe  ", plain), sdk.ActionReject},
		"double extension":          {p, wrap("a.pdf.exe", plain), sdk.ActionReject},
		"right to left":             {p, wrapWith("Content-Disposition: attachment; filename*=utf-8''a%E2%80%AEfdp.exe\r\n", plain), sdk.ActionReject},
		"wide":                      {p, wrapWith("Content-Disposition: attachment; filename*=utf-8''a%EF%BC%8Eex%EF%BD%85\r\n", plain), sdk.ActionReject},
		"single quotes":             {p, wrap("'a.exe'", plain), sdk.ActionReject},
		"folded":                    {p, wrapWith("Content-Disposition: attachment; filename=\r\n \"a.\r\n exe\"\r\n", plain), sdk.ActionReject},
		"in pieces":                 {p, "MIME-Version: 1.0\r\nContent-Type: message/partial; id=1; number=1; total=1\r\n\r\n" + wrap("a.txt", plain), sdk.ActionReject},
		"zero width":                {p, wrapWith("Content-Disposition: attachment; filename*=utf-8''a.e%E2%80%8Bxe\r\n", plain), sdk.ActionReject},
		"stream":                    {p, wrap("a.exe::$DATA", plain), sdk.ActionReject},
		"folder":                    {p, wrap("../../a.exe", plain), sdk.ActionReject},
		"encoded-word":              {p, wrap("=?utf-8?B?YS5leGU=?=", plain), sdk.ActionReject},
		"pieces":                    {p, wrapWith("Content-Disposition: attachment; filename*0=a.e; filename*1=xe\r\n", plain), sdk.ActionReject},
		"name of the type":          {p, wrapWith("Content-Type: application/x; name=a.exe\r\nContent-Disposition: attachment; filename=a.txt\r\n", plain), sdk.ActionReject},
		"PE":                        {p, wrap("a.txt", pe), sdk.ActionReject},
		"PE without a name":         {p, wrap("", pe), sdk.ActionReject},
		"PE said to be an image":    {p, wrapWith("Content-Type: image/png\r\n", pe), sdk.ActionReject},
		"ELF":                       {p, wrap("a", elf), sdk.ActionReject},
		"Mach-O":                    {p, wrap("a", []byte("\xcf\xfa\xed\xfe1234")), sdk.ActionReject},
		"class":                     {p, wrap("a", []byte("\xca\xfe\xba\xbe\x00\x00\x00\x37")), sdk.ActionReject},
		"script":                    {p, wrap("a", []byte("#!/bin/sh\n")), sdk.ActionReject},
		"batch, UTF-16":             {p, wrap("a", append([]byte("\xff\xfe"), utf16("@Echo Off\r\n")...)), sdk.ActionReject},
		"shortcut":                  {p, wrap("a", []byte("\x4c\x00\x00\x00\x01\x14\x02\x00....")), sdk.ActionReject},
		"MSI":                       {p, wrap("a", append(slices.Clone(ole), oleMarks[3].mark...)), sdk.ActionReject},
		"text that begins with MZ":  {p, wrap("a.txt", []byte("MZ is a text of more than a few characters, and nothing but text it is.")), sdk.ActionContinue},
		"shown text like a script":  {p, "Subject: x\r\n\r\n#!/bin/sh is how scripts begin\r\n", sdk.ActionContinue},
		"uuencode":                  {p, "Subject: x\r\n\r\ntext\r\nbegin 644 a.exe\r\nMxx\r\nend\r\n", sdk.ActionReject},
		"how to begin":              {p, "Subject: x\r\n\r\nto begin 644 a.exe\r\nbegin to talk about a.exe\r\n", sdk.ActionContinue},
		"the message itself":        {p, "Subject: x\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64Lines(pe) + "\r\n", sdk.ActionReject},
		"in a zip":                  {p, wrap("a.zip", zipped(t, entry{"b.txt", plain}, entry{"b", pe})), sdk.ActionReject},
		"in a zip by name":          {p, wrap("a.zip", zipped(t, entry{"dir/b.js", plain})), sdk.ActionReject},
		"in an encrypted zip":       {p, wrap("a.zip", encryptedZip(t, entry{"b.js", plain})), sdk.ActionReject},
		"in a zip called a text":    {p, wrap("a.txt", zipped(t, entry{"b", pe})), sdk.ActionReject},
		"zip in zip":                {p, wrap("a.zip", zipped(t, entry{"b.zip", zipped(t, entry{"c", pe})})), sdk.ActionReject},
		"tar.gz":                    {p, wrap("a.tgz", gzipped("", tarred(entry{"x", plain}, entry{"y", pe}))), sdk.ActionReject},
		"gzip":                      {p, wrap("a.gz", gzipped("", pe)), sdk.ActionReject},
		"gzip's own name":           {p, wrap("a.gz", gzipped("b.exe", plain)), sdk.ActionReject},
		"zip behind a picture":      {p, wrap("a.gif", append([]byte("GIF89a and so on, for a while"), zipped(t, entry{"b", pe})...)), sdk.ActionReject},
		"tar":                       {p, wrap("a.tar", tarred(entry{"x.vbs", plain})), sdk.ActionReject},
		"zip in tar in gzip in zip": {p, wrap("a", zipped(t, entry{"a", gzipped("", tarred(entry{"z", zipped(t, entry{"c.scr", plain})}))})), sdk.ActionReject},
		"only in local headers":     {p, wrap("a.zip", append([]byte("PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00b.exe"), zipped(t, entry{"c.txt", plain})...)), sdk.ActionReject},
		"Unicode path of a zip":     {p, wrap("a.zip", unicodePath(t)), sdk.ActionReject},
		"in a forwarded message":    {p, wrapWith("", nil)[:0] + "Content-Type: message/rfc822\r\n\r\n" + wrap("a.exe", plain), sdk.ActionReject},
		"in an encoded message":     {p, wrapWith("Content-Type: message/rfc822\r\n", []byte(wrap("a", pe))), sdk.ActionReject},
		"in an .eml":                {p, wrap("a.eml", []byte(wrap("a", pe))), sdk.ActionReject},
		"in an .eml in a zip":       {p, wrap("a.zip", zipped(t, entry{"a.eml", []byte(wrap("a", pe))})), sdk.ActionReject},
		"document":                  {p, wrap("a.docx", zipped(t, entry{"[Content_Types].xml", plain}, entry{"word/document.xml", plain}, entry{"x.js", plain})), sdk.ActionContinue},
		"program in a document":     {p, wrap("a.docx", zipped(t, entry{"[Content_Types].xml", plain}, entry{"word/embeddings/a.bin", pe})), sdk.ActionReject},
		"macros in OOXML":           {macros, wrap("a.docm", vba), sdk.ActionQuarantine},
		"macros, other name":        {macros, wrap("a.docx", vba), sdk.ActionQuarantine},
		"macros in OLE":             {macros, wrap("a.doc", oleWith("_VBA_PROJECT")), sdk.ActionQuarantine},
		"macros of Excel 4":         {macros, wrap("a.xlsx", zipped(t, entry{"[Content_Types].xml", plain}, entry{"xl/macrosheets/sheet1.xml", plain})), sdk.ActionQuarantine},
		"macros in a zip":           {macros, wrap("a.zip", zipped(t, entry{"a.doc", oleWith("_VBA_PROJECT_CUR")})), sdk.ActionQuarantine},
		"OLE without macros":        {macros, wrap("a.doc", ole), sdk.ActionContinue},
		"encrypted document":        {macros, wrap("a.docx", oleWith("EncryptedPackage")), sdk.ActionQuarantine},
		"encrypted zip":             {macros, wrap("a.zip", encryptedZip(t, entry{"b.txt", plain})), sdk.ActionQuarantine},
		"disguised":                 {macros, wrap("a.pdf        .exe", plain), sdk.ActionQuarantine},
		"disk image":                {macros, wrap("a", append(make([]byte, 0x8001), "CD001"...)), sdk.ActionQuarantine},
		"rar":                       {macros, wrap("a", []byte("Rar!\x1a\x07\x01\x00...")), sdk.ActionQuarantine},
		"winmail":                   {macros, wrap("winmail.dat", []byte("\x78\x9f\x3e\x22....")), sdk.ActionQuarantine},
		"damaged zip":               {macros, wrap("a.zip", []byte("PK\x03\x04 and no more")), sdk.ActionQuarantine},
		"garbage in base64":         {p, strings.Replace(wrap("a.txt", plain), "anVzd", "an*Vzd", 1), sdk.ActionQuarantine},
		"two types":                 {p, wrapWith("Content-Type: image/png\r\nContent-Type: text/plain\r\n", plain), sdk.ActionQuarantine},
		"no header":                 {p, "\r\ntext\r\n", sdk.ActionContinue},
		"no blank line":             {p, "Subject: x\r\n", sdk.ActionContinue},
		"text alone":                {p, "text\r\nand more\r\n", sdk.ActionContinue},
		"nothing at all":            {p, "", sdk.ActionContinue},
	} {
		v := run(t, tt.p, tt.msg)
		if v.Action != tt.want {
			t.Errorf("%s: %v %+v %v, want %v", name, v.Action, v.Status, v.Notes, tt.want)
		}
		if _, changed := sdktest.Body(t, v); changed || v.Action == sdk.ActionContinue && len(v.Edits) > 0 {
			t.Errorf("%s: changed: %+v", name, v.Edits)
		}
	}
}

// unicodePath is an archive whose entry has another name in its Unicode path field.
func unicodePath(t testing.TB) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	extra := append([]byte{0x75, 0x70, 10, 0, 1, 0, 0, 0, 0}, "b.exe"...)
	f, err := w.CreateHeader(&zip.FileHeader{Name: "b.txt", Extra: extra})
	if err != nil {
		t.Fatal(err)
	}
	f.Write(plain)
	w.Close()
	return b.Bytes()
}

// Rules are tried in order, the severest outcome of all files counts, and "accept" covers
// what is in an archive.
func TestOrderOfRules(t *testing.T) {
	p := configured(t, `[[rule]]
names = ["good*.zip"]
action = "accept"
[[rule]]
name = "programs"
types = ["executable"]
action = "reject"
[[rule]]
names = ["zip", "*.doc"]
action = "strip"
[[rule]]
types = ["application/x-h*"]
action = "quarantine"
`)
	bad := zipped(t, entry{"x", pe})
	two := func(a, b string) string { // two attachments
		return strings.Replace(a, "--b--\r\nepilogue\r\n", b[strings.Index(b, "--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n")+len("--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n"):], 1)
	}
	for name, tt := range map[string]struct {
		msg  string
		want sdk.Action
	}{
		"accepted":             {wrap("good 1.zip", bad), sdk.ActionContinue},
		"not accepted":         {wrap("a.zip", bad), sdk.ActionReject},
		"accepted and not":     {two(wrap("good.zip", bad), wrap("a.zip", bad)), sdk.ActionReject},
		"declared":             {wrapWith("Content-Type: APPLICATION/X-Hold\r\n", plain), sdk.ActionQuarantine},
		"hold before removing": {two(wrap("a.doc", plain), wrapWith("Content-Type: application/x-hold\r\n", plain)), sdk.ActionQuarantine},
	} {
		v := run(t, p, tt.msg)
		if v.Action != tt.want {
			t.Errorf("%s: %v %v, want %v", name, v.Action, v.Notes, tt.want)
		}
		if tt.want == sdk.ActionReject && (!strings.Contains(v.Status.Text, "a.zip/x (programs, type executable)") || v.Status.Code != 550 || !strings.Contains(v.Notes["found"], "a.zip/x")) {
			t.Errorf("%s: %v, %v", name, v.Status, v.Notes)
		}
	}
}

// What is removed is replaced by a note, and every other byte stays.
func TestStrip(t *testing.T) {
	p := configured(t, "note = \"Removed.\\nAsk the help desk.\"\n[[rule]]\nname = \"no äpps\"\nnames = [\"exe\"]\naction = \"strip\"\n")
	msg := wrap("ä.exe", pe)
	v := run(t, p, msg)
	body, ok := sdktest.Body(t, v)
	if !ok || v.Action != sdk.ActionContinue {
		t.Fatal(v)
	}
	_, old := mail.SplitMessage([]byte(msg))
	i := bytes.Index(old, []byte("--b\r\nContent-Type: application")) + len("--b\r\n")
	note := "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Disposition: inline\r\n\r\n" +
		"Removed.\r\nAsk the help desk.\r\n\r\n=C3=A4.exe (no =C3=A4pps, named *.exe)"
	if want := string(old[:i]) + note + "\r\n--b--\r\nepilogue\r\n"; string(body) != want {
		t.Errorf("%q\nwant\n%q", body, want)
	}
	h := message(t, msg).Header
	if err := sdktest.Apply(v, &h); err != nil || string(h.Block()) != "X-Attachments-Removed: 1 (no ?pps)\r\n"+msg[:strings.Index(msg, "preamble")] {
		t.Errorf("%v\n%s", err, h.Block())
	}
	// A message that is nothing but the attachment.
	msg = "From: a@example.net\r\nContent-Type: application/x\r\nSubject: s\r\nContent-Disposition: attachment;\r\n filename=a.exe\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64Lines(pe) + "\r\n"
	v = run(t, p, msg)
	body, _ = sdktest.Body(t, v)
	h = message(t, msg).Header
	if err := sdktest.Apply(v, &h); err != nil {
		t.Fatal(err)
	}
	want := "X-Attachments-Removed: 1 (no ?pps)\r\nFrom: a@example.net\r\nSubject: s\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Disposition: inline\r\n\r\n" +
		"Removed.\r\nAsk the help desk.\r\n\r\na.exe (no =C3=A4pps, named *.exe)\r\n"
	if got := string(h.Block()) + string(body); got != want {
		t.Errorf("%q\nwant\n%q", got, want)
	}
	// A part in a forwarded message, which is removed as well: once.
	msg = "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: message/rfc822; name=f.exe\r\n\r\n" + wrap("a.exe", plain) + "\r\n--o--\r\n"
	body, _ = sdktest.Body(t, run(t, p, msg))
	if n := bytes.Count(body, []byte("Ask the help desk")); n != 1 || bytes.Contains(body, []byte("--b")) || !bytes.Contains(body, []byte("a.exe")) {
		t.Errorf("%d notes:\n%s", n, body)
	}
}

func TestAmbiguous(t *testing.T) {
	msg := "Content-Type: multipart/mixed; boundary=b; boundary=c\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"
	for policy, want := range map[string]sdk.Action{"reject": sdk.ActionReject, "quarantine": sdk.ActionQuarantine, "accept": sdk.ActionContinue, "unscanned": sdk.ActionUnscanned} {
		v := run(t, configured(t, "ambiguous = \""+policy+"\""), msg)
		if v.Action != want || v.Notes["ambiguous"] != "duplicate boundary" {
			t.Errorf("%s: %v %v", policy, v.Action, v.Notes)
		}
	}
}

func TestConfigureRefuses(t *testing.T) {
	for settings, want := range map[string]string{
		"x = 1":                       `unknown key "x"`,
		"max_depth = 0":               "max_depth",
		"max_time = \"-1s\"":          "max_time",
		"limits = \"strip\"":          "limits",
		"ambiguous = \"what\"":        "ambiguous",
		"[[rule]]\nnames=[\"a\"]":     "action",
		"[[rule]]\naction=\"reject\"": "neither names nor types",
		"[[rule]]\naction=\"reject\"\ntypes=[\"exe\"]":     `"exe" is none of`,
		"[[rule]]\naction=\"reject\"\nnames=[\"\"]":        "pattern",
		"[[rule]]\naction=\"drop\"\nnames=[\"a\"]":         `"drop"`,
		"[[rule]]\naction=\"reject\"\nname=1\nnames=\"a\"": "rule",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", settings, err, want)
		}
	}
}

func TestWildcard(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"*.exe", "a.exe", true}, {"*.exe", "a.exe.txt", false}, {"a?c", "abc", true}, {"a?c", "ac", false},
		{"*", "", true}, {"", "", true}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "axxbyy", false}, {"*a*a*a*b", strings.Repeat("a", 1000), false},
	} {
		if got := wildcard(tt.pattern, tt.s); got != tt.want {
			t.Errorf("%q %q: %v", tt.pattern, tt.s, got)
		}
	}
}

// Whatever an attachment is, there is an answer, and memory stays within bounds.
func FuzzContent(f *testing.F) {
	for _, b := range [][]byte{pe, ole, zipped(f, entry{"a", pe}), gzipped("x", tarred(entry{"a", plain})), tarred(entry{"b", plain}), encryptedZip(f, entry{"a", plain}), []byte("BZh91AY&SY"),
		made(f, "lzma2.7z"), made(f, "bcj2.7z"), made(f, "blocks.xz"), made(f, "a.tar.zst"), made(f, "mszip.cab"), rarOf("a", 0, pe)} {
		f.Add("a.bin", b)
	}
	p := configured(f, "max_unpacked = 4\nmax_files = 100")
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		l := newLook(t.Context(), p)
		defer l.end()
		err := l.file(&file{names: []string{name}}, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
		if err != nil && err != errLimit {
			t.Fatal(err)
		}
		if l.memory != 0 || l.bytes > 4<<20+64<<10 {
			t.Fatalf("%d bytes held, %d unpacked", l.memory, l.bytes)
		}
		v := sdk.Continue()
		l.note(v)
	})
}

// Where a second look finds what was removed, the first look or the removing was wrong.
func FuzzStrip(f *testing.F) {
	f.Add(wrap("a.exe", pe))
	f.Add("Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: message/rfc822; name=f.exe\r\n\r\n" + wrap("a.exe", plain) + "\r\n--o--\r\n")
	f.Add("Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: a/b; name=a.exe\r\n--o\r\nContent-Disposition: x; filename*=utf-8''%61.exe\r\n\r\n--o")
	f.Add("Content-Type: a/b; name==?utf-8?q?a.exe?=\r\n\r\nx")
	p := configured(f, "ambiguous = \"accept\"\n[[rule]]\nname = \"programs\"\nnames = [\"exe\"]\naction = \"strip\"\n")
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ReplaceAll(strings.NewReplacer("\r", "", "\x00", "").Replace(s), "\n", "\r\n")
		v := run(t, p, s)
		body, removed := sdktest.Body(t, v)
		if !removed || v.Notes["ambiguous"] != "" {
			return
		}
		h := message(t, s).Header
		if err := sdktest.Apply(v, &h); err != nil {
			t.Fatal(err)
		}
		after := string(h.Block()) + string(body)
		if _, again := sdktest.Body(t, run(t, p, after)); again {
			t.Fatalf("%q became %q", s, after)
		}
	})
}
