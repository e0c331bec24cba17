package spam

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk"
	"github.com/postern-mail/postern/sdk/sdktest"
)

// A password goes to rspamd and nowhere else.
func TestPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte("geheim\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Password") != "geheim" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, judged("no action", 1, ""))
	}))
	defer s.Close()
	p := New()
	settings := fmt.Sprintf("url = %q\npassword_file = \"password\"", s.URL)
	if err := p.Configure(t.Context(), sdk.Config{Settings: []byte(settings), DataDir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := sdktest.Filter(t, p, Manifest(), message(text)); err != nil {
		t.Error(err)
	}
	s.Close()
	if _, err := sdktest.Filter(t, p, Manifest(), message(text)); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Error(err)
	}
	os.Chmod(file, 0o604)
	if err := New().Configure(t.Context(), sdk.Config{Settings: []byte(settings), DataDir: dir}); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Error(err)
	}
}

func TestSettings(t *testing.T) {
	for text, want := range map[string]string{
		`engine = "x"`:                      `"x" is neither "rspamd" nor "spamassassin"`,
		`url = []`:                          "url is empty",
		`url = ["http://a", 1]`:             "strings",
		`url = "127.0.0.1:11333"`:           "url: ",
		`url = "http://u:geheim@h"`:         "password_file",
		`url = "ftp://h"`:                   "http://host:port",
		`password_file = "gone"`:            "no such file",
		"engine='spamassassin'\naddress=''": "neither",
		"engine='spamassassin'\nuser='a b'": "user",
		`tag = "no"`:                        `neither a score nor "off"`,
		`tag = nan`:                         "not a score",
		`tag = true`:                        "neither",
		`domains = {"a b" = {tag = 1}}`:     "domains",
		`domains = {"a.test" = {tags = 1}}`: "unknown key",
		`max_size = "1KiB"`:                 "max_size",
		`max_size = "much"`:                 "size like",
		`max_size = "99999999999999999MiB"`: "size like",
		`oversize = "pass"`:                 `"pass" is neither`,
		`greylist_delay = "-1s"`:            "greylist_delay",
		`greylist_delay = "48h"`:            "greylist_delay",
		`nonsense = 1`:                      "unknown key",
		``:                                  "",
		"tag = 5\nquarantine = 'off'\nreject = 'engine'\nmax_size = 65536":                 "",
		"engine = 'spamassassin'\naddress = ['unix:/run/x', '[::1]:783']\nuser = 'nobody'": "",
		"url = ['http://127.0.0.1:11333', 'https://[::1]:11333/']":                         "",
	} {
		err := New().Configure(t.Context(), sdk.Config{Settings: []byte(text)})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim")) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
