// Package core_test holds the rules of the house: what may import what, and why. Read it
// when a dependency you want is refused.
package core_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/postern-mail/postern/"

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath, Dir, Doc, Name string
	GoFiles, Imports, Deps     []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Name,GoFiles,Imports,Deps", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var ps []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		ps = append(ps, p)
	}
}

// rule forbids some imports to some packages.
type rule struct {
	packages func(path string) bool
	forbids  func(path, imported string) bool
	why      string
}

func under(dirs ...string) func(string) bool {
	return func(path string) bool {
		return slices.ContainsFunc(dirs, func(d string) bool { return path == d || strings.HasPrefix(path, d+"/") })
	}
}

var rules = []rule{
	{under("plugins"), func(path, imp string) bool {
		own := strings.Join(strings.SplitN(path, "/", 3)[:2], "/")
		return strings.HasPrefix(imp, module) && !under("sdk", "plugins/internal", own)(strings.TrimPrefix(imp, module))
	}, "a plugin is written against the contract alone, as third parties do, and knows no other plugin"},
	{under("sdk"), func(_, imp string) bool {
		return strings.HasPrefix(imp, module+"core") || strings.HasPrefix(imp, module+"plugins")
	},
		"a plugin author must not link the gateway"},
	{under("sdk/mail"), func(_, imp string) bool { return strings.Contains(imp, ".") && imp != "golang.org/x/net/idna" },
		"the vocabulary depends on nothing"},
	{under("core", "sdk", "plugins"), func(path, imp string) bool { return imp == module+"core/config" && path != "core/config" },
		"each package takes its own small options; only cmd knows the configuration file"},
	{func(p string) bool { return !under("sdk", "core/pluginhost")(p) || under("sdk/mail")(p) }, func(_, imp string) bool {
		return strings.HasPrefix(imp, "google.golang.org/grpc") || strings.HasPrefix(imp, "github.com/hashicorp/go-plugin")
	}, "how plugins are called is the business of the SDK and the plugin host"},
	{under("core/pluginhost/child", "core/pluginhost/draft", "core/pluginhost/pluginlog"), func(_, imp string) bool {
		return strings.HasPrefix(imp, "google.golang.org/grpc") || strings.HasPrefix(imp, "github.com/hashicorp")
	}, "processes, files and logs know nothing of calls"},
	{under("core/pluginhost/hostservice"), func(_, imp string) bool { return strings.HasPrefix(imp, "github.com/hashicorp") },
		"go-plugin starts processes, and serves nothing"},
	{func(p string) bool { return strings.HasPrefix(p, "core/pluginhost/") }, func(_, imp string) bool {
		return under("core/pluginhost")(strings.TrimPrefix(imp, module)) && imp != module+"core/pluginhost/pluginlog"
	}, "the parts of the plugin host know neither it nor each other: it puts them together"},
	{under("core/queue", "core/spool", "core/smtpd"), func(_, imp string) bool {
		return strings.HasPrefix(imp, module) && under("sdk", "core/pluginhost", "core/pipeline", "plugins")(strings.TrimPrefix(imp, module)) && imp != module+"sdk/mail"
	}, "queue, spool and sessions know no plugins: they declare the interfaces they consume"},
	{under("core/smtpcmd"), func(_, imp string) bool {
		return strings.HasPrefix(imp, module) && imp != module+"sdk/mail" || slices.Contains([]string{"context", "io", "net", "os", "sync", "time"}, imp)
	}, "the grammar of commands is functions of their arguments"},
	{under("core/smtpd/wire"), func(_, imp string) bool { return strings.HasPrefix(imp, module) },
		"the wire carries octets, and knows neither commands nor mail"},
	{func(p string) bool { return !under("cmd")(p) }, func(_, imp string) bool { return imp == module+"core/delivery" },
		"delivery owns the loop; nobody re-enters it"},
	{func(p string) bool { return !under("cmd")(p) }, func(_, imp string) bool { return strings.HasPrefix(imp, module+"cmd") },
		"main only wires"},
	{under("cmd/postern/internal/gateway"), func(_, imp string) bool { return imp == module+"cmd/postern/internal/trial" },
		"the gateway knows nothing of trials: they put one together aside"},
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		for _, r := range rules {
			if !r.packages(p.ImportPath) {
				continue
			}
			for _, imp := range p.Imports {
				if r.forbids(p.ImportPath, imp) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, r.why)
				}
			}
		}
	}
}

// TestPackageDocs: a package's doc is its contract.
func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 && p.ImportPath != "sdk/proto" {
			t.Errorf("%s has no package doc", p.ImportPath)
		}
	}
}

// TestOneDoor: only core/intake makes queue entries; the queue itself decodes them.
func TestOneDoor(t *testing.T) {
	for _, p := range packages(t) {
		if under("core/intake", "core/queue")(p.ImportPath) || !slices.Contains(p.Imports, module+"core/queue") {
			continue
		}
		for _, name := range p.GoFiles {
			for _, line := range literals(t, filepath.Join(p.Dir, name), "queue", "Entry") {
				t.Errorf("%s:%s makes a queue.Entry: everything enters through core/intake", p.ImportPath, line)
			}
		}
	}
}

// literals returns where file has a composite literal of the type pkg.name.
func literals(t *testing.T, file, pkg, name string) []string {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		if lit, ok := n.(*ast.CompositeLit); ok {
			if sel, ok := lit.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == name {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg {
					found = append(found, fset.Position(lit.Pos()).String())
				}
			}
		}
		return true
	})
	return found
}

// TestNoInit: nothing happens because a package is linked.
func TestNoInit(t *testing.T) {
	for _, p := range packages(t) {
		if p.ImportPath == "sdk/proto" {
			continue // generated
		}
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s/%s has an init function", p.ImportPath, name)
				}
			}
		}
	}
}

// TestTopLevel: the top level is fixed.
func TestTopLevel(t *testing.T) {
	allowed := []string{"cmd", "core", "plugins", "sdk", "testdata", "config.example.toml", "go.mod", "go.sum", "README.md", "LICENSE"}
	out, err := exec.Command("git", "ls-files", "..").Output()
	if err != nil && os.Getenv("POSTERN_REQUIRE_PEERS") == "1" {
		t.Fatal(err)
	} else if err != nil {
		t.Skipf("SKIP: not a git checkout: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n") {
		rel, _ := filepath.Rel("..", name)
		top, _, _ := strings.Cut(rel, "/")
		if strings.HasPrefix(name, "../") && !slices.Contains(allowed, top) && !strings.HasPrefix(top, ".") {
			t.Errorf("%s does not belong at the top level", top)
		}
	}
}

// TestPluginReadmes: every first-party plugin has a README, in the same order.
func TestPluginReadmes(t *testing.T) {
	dirs, err := filepath.Glob("../plugins/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if filepath.Base(dir) == "internal" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "README.md"))
		if err != nil {
			t.Errorf("%s has no README.md", dir)
			continue
		}
		at := 0
		for _, heading := range []string{"does", "Settings", "reads", "change", "fails", "logs"} {
			i := strings.Index(string(b[at:]), heading)
			if i < 0 {
				t.Errorf("%s/README.md: no heading with %q after byte %d", dir, heading, at)
				break
			}
			at += i
		}
	}
}

// TestFuzzCorpora: what is kept for a fuzz target belongs to one that is there. Of any other
// nobody would notice that it does not run.
func TestFuzzCorpora(t *testing.T) {
	for _, p := range packages(t) {
		kept, _ := filepath.Glob(filepath.Join(p.Dir, "testdata", "fuzz", "*"))
		if len(kept) == 0 {
			continue
		}
		var source []byte
		files, _ := filepath.Glob(filepath.Join(p.Dir, "*_test.go"))
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			source = append(source, b...)
		}
		for _, dir := range kept {
			if target := filepath.Base(dir); !strings.Contains(string(source), "\nfunc "+target+"(f *testing.F)") {
				t.Errorf("%s has inputs for %s, which is not there", p.ImportPath, target)
			}
		}
	}
}
