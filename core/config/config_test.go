package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/sdk/mail"
)

const minimal = "hostname = \"mx.example.org\"\ndata_dir = \"data\"\n[[listener]]\naddress = \"127.0.0.1:0\"\nrole = \"mx\"\n"

// TestX02BadConfigs: each file below testdata/bad is refused with exactly the problems that
// its lines "#! LINE: TEXT" name; the line 0 means that the problem has none.
func TestX02BadConfigs(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, line := range strings.Split(string(data), "\n") {
				if w, ok := strings.CutPrefix(line, "#! "); ok {
					if rest, ok := strings.CutPrefix(w, "0: "); ok {
						want = append(want, file+": "+rest)
					} else {
						want = append(want, file+":"+w)
					}
				}
			}
			c, err := Load(file)
			if err == nil || c != nil {
				t.Fatal("the file is accepted")
			}
			got := strings.Split(err.Error(), "\n")
			ok := len(got) == len(want)
			for i := range want {
				ok = ok && strings.HasPrefix(got[i], want[i])
			}
			if !ok {
				t.Errorf("got:\n%s\nwant:\n%s", err, strings.Join(want, "\n"))
			}
		})
	}
}

func TestMinimal(t *testing.T) {
	c, err := Parse("/etc/postern/postern.toml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.Hostname = mail.MustDomain("mx.example.org")
	want.Postmaster = mail.MustPath("postmaster@mx.example.org")
	want.DataDir = "/etc/postern/data"
	want.Listeners = []Listener{{Address: "127.0.0.1:0", Role: "mx", TLS: "starttls", Auth: "off"}}
	if d := cmp.Diff(want, c, cmp.Exporter(func(reflect.Type) bool { return true }),
		cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "file" || p.String() == "lines" }, cmp.Ignore())); d != "" {
		t.Error(d)
	}
}

func TestDefaultsByRole(t *testing.T) {
	for _, c := range []struct {
		text string
		want Listener
	}{
		{`role = "submission"`, Listener{Role: "submission", TLS: "starttls", Auth: "required", DSN: true}},
		{`role = "lmtp"`, Listener{Role: "lmtp", TLS: "none", Auth: "off"}},
		{"dsn = false\nrole = \"submission\"\nauth = \"optional\"\ntls = \"implicit\"", Listener{Role: "submission", TLS: "implicit", Auth: "optional"}},
		{"role = \"mx\"\ndsn = true", Listener{Role: "mx", TLS: "starttls", Auth: "off", DSN: true}},
	} {
		cfg, err := Parse("x.toml", []byte(strings.Replace(minimal, `role = "mx"`, c.text, 1)))
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		c.want.Address = "127.0.0.1:0"
		if d := cmp.Diff(c.want, cfg.Listeners[0]); d != "" {
			t.Errorf("%s: %s", c.text, d)
		}
	}
}

func TestEverything(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "cert.pem", 0o644, "x")
	write(t, dir, "key.pem", 0o640, "x")
	write(t, dir, "pass", 0o600, "geheim\r\nsecond line\n")
	write(t, dir, "filter", 0o755, "x")
	text := `hostname = "mx.example.org"
data_dir = "/var/lib/postern"
[[listener]]
address = "unix:run/lmtp"
role = "lmtp"
[tls]
certificate = "cert.pem"
key = "key.pem"
[networks]
office = ["192.0.2.0/24", "::ffff:198.51.100.0/120"]
[relay]
networks = ["office", "127.0.0.1"]
[limits.networks.office]
messages_per_minute = 7
message_size = 65536
[smarthost]
address = ["smtp.provider.example:587", "[2001:db8::1]:465"]
username = "us"
password_file = "pass"
[[domain]]
name = "bücher.example"
aliases = ["example.net"]
deliver = ["lmtp://unix:/run/dovecot/lmtp", "maildir"]
recipients = "any"
[[plugin]]
name = "mine"
command = ["filter", "-v"]
timeout = "1m30s"
origins = ["incoming", "copy"]
on_failure = { default = "park", down = "accept" }
[plugin.settings]
url = "http://127.0.0.1:11333"
when = 2026-01-02
[plugin.settings.deep]
list = [1, 2.5, "x"]
[[plugin]]
name = "bcc"
on_failure = "reject"
`
	path := write(t, dir, "postern.toml", 0o644, text)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if n, a := c.Listeners[0].Network(); n != "unix" || a != filepath.Join(dir, "run/lmtp") {
		t.Errorf("listener: %s %s", n, a)
	}
	if c.TLS.Key != filepath.Join(dir, "key.pem") || c.DataDir != "/var/lib/postern" {
		t.Errorf("paths: %s %s", c.TLS.Key, c.DataDir)
	}
	if d := cmp.Diff([]string{"192.0.2.0/24", "198.51.100.0/24", "127.0.0.1/32"}, prefixTexts(c.Prefixes(c.Relay.Networks))); d != "" {
		t.Error(d)
	}
	l := c.Limits.Networks["office"]
	if l.MessagesPerMinute == nil || *l.MessagesPerMinute != 7 || l.MessageSize == nil || *l.MessageSize != 65536 || l.ConnectionsPerClient != nil || c.Limits.MessagesPerMinute != 0 {
		t.Errorf("limits: %+v", l)
	}
	if pw, err := c.Smarthost.Password(); pw != "geheim" || err != nil {
		t.Errorf("password %q, %v", pw, err)
	}
	if d := c.Domains[0]; d.Name.String() != "xn--bcher-kva.example" || d.Recipients != "any" || len(d.Deliver) != 2 {
		t.Errorf("domain: %+v", d)
	}
	p := c.Plugins[0]
	if p.Command[0] != filepath.Join(dir, "filter") || time.Duration(p.Timeout) != 90*time.Second || p.OnFailure != (OnFailure{Default: "park", Down: "accept"}) {
		t.Errorf("plugin: %+v", p)
	}
	if d := cmp.Diff(Origins{mail.Incoming, mail.Copied}, p.Origins); d != "" {
		t.Error(d)
	}
	want := "url = \"http://127.0.0.1:11333\"\nwhen = 2026-01-02\n\n[deep]\nlist = [1, 2.5, \"x\"]\n"
	if string(p.Settings.TOML) != want || p.Settings.Line != 31 {
		t.Errorf("settings from line %d: %s", p.Settings.Line, p.Settings.TOML)
	}
	if p := c.Plugins[1]; p.OnFailure.Default != "reject" || p.Settings.TOML != nil || p.Settings.Line != 0 {
		t.Errorf("second plugin: %+v", p)
	}
}

func prefixTexts(ps []netip.Prefix) (out []string) {
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}

func write(t *testing.T, dir, name string, mode os.FileMode, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	return path
}

// TestX01WorldReadableSecret: a secret that everybody can read is refused, with the remedy.
func TestX01WorldReadableSecret(t *testing.T) {
	for _, mode := range []os.FileMode{0o600, 0o640, 0o644, 0o602, 0o604} {
		dir := t.TempDir()
		key := write(t, dir, "key.pem", mode, "x")
		pass := write(t, dir, "pass", mode, "secret")
		write(t, dir, "cert.pem", 0o644, "x")
		path := write(t, dir, "postern.toml", 0o644, minimal+
			"[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n[smarthost]\naddress = \"a.example:587\"\nusername = \"us\"\npassword_file = \"pass\"\n")
		_, err := Load(path)
		if mode&7 == 0 {
			if err != nil {
				t.Errorf("%o: %v", mode, err)
			}
			continue
		}
		want := fmt.Sprintf("%s:8: tls.key: %s may be read by everybody; run: chmod 600 %s\n%s:12: smarthost.password_file: %s may be read by everybody; run: chmod 600 %s",
			path, key, key, path, pass, pass)
		if err == nil || err.Error() != want {
			t.Errorf("%o: %v\nwant %s", mode, err, want)
		}
	}
}

// TestX01SecretInFile: plugins may want secrets in their settings; then the file itself is one.
func TestX01SecretInFile(t *testing.T) {
	for _, c := range []struct {
		mode     os.FileMode
		settings string
		secret   string
	}{
		{0o644, "password = \"x\"", "password"},
		{0o644, "[plugin.settings.upstream]\ntoken = \"x\"", "upstream.token"},
		{0o644, "[[plugin.settings.list]]\nSecret = \"x\"", "list.Secret"},
		{0o644, "password = \"\"", ""},
		{0o644, "password_file = \"x\"", ""},
		{0o644, "password = 5", ""},
		{0o640, "password = \"x\"", ""},
		{0o600, "token = \"x\"", ""},
	} {
		path := write(t, t.TempDir(), "postern.toml", c.mode, minimal+"[[plugin]]\nname = \"bcc\"\n[plugin.settings]\n"+c.settings+"\n")
		_, err := Load(path)
		want := fmt.Sprintf("%s:8: plugin[0].settings: has a secret (%s), and this file may be read by everybody; run: chmod 600 %s", path, c.secret, path)
		if c.secret == "" && err != nil || c.secret != "" && (err == nil || err.Error() != want) {
			t.Errorf("%o %s: %v", c.mode, c.settings, err)
		}
	}
}

// TestX04Bombs: large and deep files are refused quickly.
func TestX04Bombs(t *testing.T) {
	dots := func(n int) string { return minimal + strings.Repeat("a.", n-1) + "a = 1\n" }
	nest := func(n int) string {
		return minimal + "[[plugin]]\nname=\"x\"\n[plugin.settings]\nv = " + strings.Repeat("[", n) + strings.Repeat("]", n) + "\n"
	}
	pad := func(n int) string { return minimal + strings.Repeat("#", n-len(minimal)) }
	deep := "nested deeper than 16 levels"
	for _, c := range []struct{ name, text, want string }{
		{"just small enough", pad(maxFile), ""},
		{"just too large", pad(maxFile + 1), "larger than 1MiB"},
		{"50 MB", pad(50_000_000), "larger than 1MiB"},
		{"arrays at the limit", nest(maxDepth), ""},
		{"arrays over it", nest(maxDepth + 2), deep},
		{"10,000 arrays", nest(10_000), deep},
		{"half a million arrays", minimal + "v = " + strings.Repeat("[", 500_000), deep},
		{"inline tables", minimal + "v = " + strings.Repeat("{a=", 100_000), deep},
		{"key at the limit", dots(maxDepth), `unknown key "a"`},
		{"key over it", dots(maxDepth + 1), deep},
		{"10,000 dots", dots(10_000), deep},
		{"table of dots", minimal + "[" + strings.Repeat("a.", 10_000) + "a]\n", deep},
		{"10,000 listeners", strings.Repeat("[[listener]]\naddress = \"x\"\n", 10_000), "and perhaps more problems"},
		{"20,000 unknown keys", manyKeys(20_000), "and perhaps more problems"},
		{"bomb after junk", minimal + "v = = " + strings.Repeat("[", 500_000), ":6: "},
		{"bomb in a key", minimal + strings.Repeat("[", 500_000), ":6: "},
	} {
		path := write(t, t.TempDir(), "bomb.toml", 0o600, c.text)
		_, err := Load(path)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.300v, want %q", c.name, err, c.want)
		}
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d=1\n", i)
	}
	return b.String()
}

func TestLoadNoFile(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "none.toml"), dir} {
		_, err := Load(path)
		var ps Problems
		if !errors.As(err, &ps) || len(ps) != 1 || ps[0].File != path {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestWindowsLineEndsAndBOM(t *testing.T) {
	text := "\ufeff" + strings.ReplaceAll(minimal, "\n", "\r\n") + "[log]\r\nlevel = 1\r\n"
	_, err := Parse("x.toml", []byte(text))
	if err == nil || !strings.HasPrefix(err.Error(), "x.toml:7: log.level: ") {
		t.Error(err)
	}
}

func TestDuration(t *testing.T) {
	for _, c := range []struct {
		in   string
		want time.Duration
		out  string
	}{
		{"0s", 0, "0s"}, {"90s", 90 * time.Second, "1m30s"}, {"4h", 4 * time.Hour, "4h"}, {"5m", 5 * time.Minute, "5m"},
		{"5d", 5 * day, "5d"}, {"1d12h", 36 * time.Hour, "1d12h"}, {"24h", day, "1d"}, {"100ms", 100 * time.Millisecond, "100ms"},
		{"1h0m5s", time.Hour + 5*time.Second, "1h0m5s"}, {"25h1s", 25*time.Hour + time.Second, "25h0m1s"},
		{"65535d", 65535 * day, "65535d"},
	} {
		d, err := ParseDuration(c.in)
		if err != nil || time.Duration(d) != c.want || d.String() != c.out {
			t.Errorf("%s: %v %v, want %v as %s", c.in, d, err, c.want, c.out)
		}
	}
	for _, s := range []string{"", "5", "-5s", "5 d", "d", "5dd", "1.5d", "65536d", "99999999h", "-0s", "5d-1h", "5d 1h", "x", "1h5d", "+5d"} {
		if d, err := ParseDuration(s); err == nil {
			t.Errorf("%q is accepted as %v", s, d)
		}
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Size
		out  string
	}{
		{"0", 0, "0B"}, {"1024", 1024, "1KiB"}, {"25MiB", 25 << 20, "25MiB"}, {"10 MB", 10_000_000, "10000000B"}, {"1kB", 1000, "1000B"},
		{"3GiB", 3 << 30, "3GiB"}, {"2048TiB", 2048 << 40, "2048TiB"}, {"5B", 5, "5B"},
		{"9223372036854775807", 1<<63 - 1, "9223372036854775807B"}, {"8388607TiB", 8388607 << 40, "8388607TiB"},
	} {
		s, err := ParseSize(c.in)
		if err != nil || s != c.want || s.String() != c.out {
			t.Errorf("%s: %d %s %v, want %d as %s", c.in, s, s, err, c.want, c.out)
		}
	}
	for _, s := range []string{"", "-1", "1.5MiB", "MiB", "9223372036854775808", "8388608TiB", "1 0MiB", "0x10", "1mib", "1  MiB", "1e3", "+1"} {
		if v, err := ParseSize(s); err == nil {
			t.Errorf("%q is accepted as %v", s, v)
		}
	}
}

func TestParsePrefix(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.0/24": "192.0.2.0/24", "192.0.2.1": "192.0.2.1/32", "2001:db8::1": "2001:db8::1/128", "2001:db8::/32": "2001:db8::/32",
		"::ffff:10.0.0.0/104": "10.0.0.0/8", "::ffff:10.0.0.1": "10.0.0.1/32",
	} {
		if p, err := ParsePrefix(in); err != nil || p.String() != want {
			t.Errorf("%s: %v %v", in, p, err)
		}
	}
	for _, s := range []string{"", "x", "192.0.2.0/33", "192.0.2.1/24", "192.0.2/24", "fe80::1%eth0", "fe80::%eth0/64", "::ffff:0:0/95", "1.2.3.4/", "1.2.3.4/08"} {
		if p, err := ParsePrefix(s); err == nil {
			t.Errorf("%q is accepted as %v", s, p)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"5d", "1d12h", "90s", "-1s", "65535d23h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if d < 0 {
			t.Fatalf("%q is negative: %d", s, d)
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Fatalf("%q is written as %s and read as %v, %v", s, d, again, err)
		}
	})
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"25MiB", "8388607TiB", "1 kB", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseSize(s)
		if err != nil {
			return
		}
		if again, err := ParseSize(v.String()); v < 0 || err != nil || again != v {
			t.Fatalf("%q is written as %s and read as %v, %v", s, v, again, err)
		}
	})
}

func FuzzPrefix(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24", "::ffff:10.0.0.0/104", "2001:db8::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePrefix(s)
		if err == nil && (!p.IsValid() || p.Masked() != p || p.Addr().Is4In6()) {
			t.Fatalf("%q is accepted as %v", s, p)
		}
	})
}

// FuzzParse: nothing panics, and every problem of a file that is TOML has a line that exists.
func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	if data, err := os.ReadFile(example); err == nil {
		f.Add(data)
	}
	f.Add([]byte("a.\"b.c\" = [ {x = '''\n'''} ]\n[[q]]\n[q.r]\nz = \"\"\"\\\"\"\"\"\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := Parse("/nonexistent/fuzz.toml", data)
		var ps Problems
		if err != nil && !errors.As(err, &ps) {
			t.Fatalf("%T", err)
		}
		for _, p := range ps {
			if p.Line < 0 || p.Line > 1+bytes.Count(data, []byte("\n")) {
				t.Fatalf("line %d: %s", p.Line, p)
			}
			if strings.HasPrefix(p.Text, "unknown key") && p.Line == 0 {
				t.Fatalf("no line: %s", p)
			}
		}
	})
}

// TestFaultsSayWhatToDo: what somebody gets wrong first.
func TestFaultsSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ settings, want string }{
		{"[networks]\noffice = [\"192.0.2.0/240\"]\n", `write it like "192.0.2.0/24"`},
		{"postmaster = joe@example.org\n", "a text needs quotes"},
		{"[smarthost]\naddress = \"a.example:587\"\nusername = \"u\"\npassword_file = \"missing\"\n", filepath.Join(dir, "missing") + ": no such file"},
	} {
		_, err := Load(write(t, dir, "postern.toml", 0o600, minimal+c.settings))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.settings, err)
		}
	}
}
