package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/postern-mail/postern/sdk/mail"
)

// tree is where mailboxes are: an absolute path with the placeholders {domain} and {local}.
type tree struct{ path string }

func newTree(path, data string) (tree, error) {
	if !strings.Contains(path, "{local}") {
		return tree{}, fmt.Errorf("path %q has no {local}: all recipients would share a mailbox", path)
	}
	full := strings.ReplaceAll(path, "{data_dir}", data)
	if rest := strings.NewReplacer("{domain}", "", "{local}", "").Replace(strings.TrimPrefix(full, data)); strings.ContainsAny(rest, "{}\x00") {
		return tree{}, fmt.Errorf("path %q: the placeholders are {data_dir}, {domain} and {local}", path)
	}
	if !filepath.IsAbs(full) {
		full = filepath.Join(data, full)
	}
	if !filepath.IsAbs(full) {
		return tree{}, fmt.Errorf("path %q is not absolute", full)
	}
	return tree{filepath.Clean(full)}, nil
}

// root is the mailbox of an address.
func (t tree) root(to mail.Path) (string, error) {
	to = to.Fold()
	domain, local := safe(to.Domain.String()), safe(to.Local)
	if local == "" || domain == "" || len(local) > maxName || len(domain) > maxName {
		return "", fmt.Errorf("the address %q is no name for a directory", to)
	}
	return strings.NewReplacer("{domain}", domain, "{local}", local).Replace(t.path), nil
}

// walk calls visit for the mailboxes that are there, with their addresses (the zero Path if
// the path does not tell), until ctx ends.
func (t tree) walk(ctx context.Context, visit func(root string, address mail.Path)) {
	t.descend(ctx, "/", strings.Split(strings.TrimPrefix(t.path, "/"), "/"), "", "", visit)
}

func (t tree) descend(ctx context.Context, dir string, parts []string, local, domain string, visit func(string, mail.Path)) {
	for len(parts) > 0 && !strings.Contains(parts[0], "{") {
		dir, parts = filepath.Join(dir, parts[0]), parts[1:]
	}
	if ctx.Err() != nil {
		return
	}
	if len(parts) == 0 {
		if fi, err := os.Stat(filepath.Join(dir, "cur")); err == nil && fi.IsDir() {
			address, _ := mail.MakePath(local, domain)
			visit(dir, address)
		}
		return
	}
	pattern := level(parts[0])
	names, _ := osDisk{}.Names(dir)
	for _, name := range names {
		m := pattern.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		l, d := local, domain
		for i, group := range pattern.SubexpNames() {
			v, ok := unsafe(m[i])
			switch {
			case group == "local" && ok:
				l = v
			case group == "domain" && ok:
				d = v
			}
		}
		t.descend(ctx, filepath.Join(dir, name), parts[1:], l, d, visit)
	}
}

// level is what the names of one level of the path look like. What [safe] makes does not
// begin with a dot: a folder of a mailbox is no mailbox.
func level(part string) *regexp.Regexp {
	expr := regexp.QuoteMeta(part)
	for _, name := range []string{"domain", "local"} {
		expr = strings.Replace(expr, `\{`+name+`\}`, `(?P<`+name+`>[^./][^/]*)`, 1)
		expr = strings.ReplaceAll(expr, `\{`+name+`\}`, `[^./][^/]*`)
	}
	return regexp.MustCompile("^" + expr + "$")
}
