package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/builtin"
	"github.com/postern-mail/postern/cmd/postern/internal/gateway"
)

// The files of a new plugin, by their names in it.
//
//go:embed all:templates/plugin
var pluginTemplates embed.FS

const (
	sdkModule = "github.com/postern-mail/postern"
	goVersion = "1.26.0" // that of the SDK's go.mod
)

// pluginName is what is a name in a manifest, a module path, a folder and a command.
var pluginName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// newPlugin is what the templates know.
type newPlugin struct {
	Name    string
	Module  string // of the SDK
	Version string // of the SDK
	SDK     string // a folder with it; "": it is published
	Go      string // version of the language
}

// pluginNewCommand writes the beginning of a plugin.
func pluginNewCommand() *cobra.Command {
	var dir, sdkDir string
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Write a plugin that builds, tests and runs as it is",
		Long: "Writes a Go module with a small filter, its test and its README, in a new folder NAME, for you to\n" +
			"change. Needs the go command to complete the module's requirements.",
		Example: "  postern plugin new date-guard\n" +
			"  postern plugin new date-guard --dir ~/src/date-guard --sdk ~/src/postern",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			p, err := describeNew(a[0], sdkDir)
			if err != nil {
				return usageError{err}
			}
			if dir == "" {
				dir = a[0]
			}
			if err := writePlugin(dir, p); err != nil {
				return err
			}
			if err := completeModule(cmd.Context(), dir, sdkDir); err != nil {
				return fmt.Errorf("%s is written, but what it requires could not be found: %w\n"+
					"Run `go mod tidy` in it when that is mended; --sdk DIR takes the SDK from a folder", dir, err)
			}
			nextSteps(cmd.OutOrStdout(), dir, a[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the folder to write to (default NAME)")
	cmd.Flags().StringVar(&sdkDir, "sdk", "", "a folder with the source of Postern, to build against while it is not published")
	return cmd
}

func describeNew(name, sdkDir string) (newPlugin, error) {
	p := newPlugin{Name: name, Module: sdkModule, Version: "v0.0.0", Go: goVersion}
	if len(name) > 64 || !pluginName.MatchString(name) {
		return p, fmt.Errorf("%q is no name for a plugin: 1 to 64 lower case letters, digits and single hyphens, beginning with a letter", name)
	}
	if _, ok := builtin.Plugins[name]; ok {
		return p, fmt.Errorf("there is a built-in plugin %s: choose another name", name)
	}
	if v := gateway.Version(); strings.HasPrefix(v, "v") {
		p.Version = v
	}
	if sdkDir == "" {
		return p, nil
	}
	mod, err := os.ReadFile(filepath.Join(sdkDir, "go.mod"))
	if err != nil || !strings.HasPrefix(string(mod), "module "+sdkModule+"\n") {
		return p, fmt.Errorf("--sdk: %s is not a folder with the source of %s", sdkDir, sdkModule)
	}
	p.Version = "v0.0.0"
	p.SDK, err = filepath.Abs(sdkDir)
	if strings.ContainsAny(p.SDK, " \"'`,;()[]{}") {
		p.SDK = strconv.Quote(p.SDK)
	}
	return p, err
}

// writePlugin writes into a folder that does not exist or is empty.
func writePlugin(dir string, p newPlugin) error {
	old, err := os.ReadDir(dir)
	switch {
	case err == nil && len(old) > 0:
		return fmt.Errorf("%s is not empty, and nothing is overwritten: name another folder with --dir", dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	all, err := template.New("").ParseFS(pluginTemplates, "templates/plugin/*")
	if err != nil {
		return err
	}
	for _, t := range all.Templates() {
		f, err := os.OpenFile(filepath.Join(dir, strings.TrimSuffix(t.Name(), ".tmpl")), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := errors.Join(t.Execute(f, p), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// completeModule fills in the indirect requirements and their checksums. Those of the SDK itself
// spare a look-up of each, so that it works offline with what building the gateway has fetched.
func completeModule(ctx context.Context, dir, sdkDir string) error {
	if sdkDir != "" {
		if err := inheritModule(ctx, dir, sdkDir); err != nil {
			return err
		}
	}
	var first error
	for _, line := range [][]string{{"mod", "tidy"}, {"list", "-mod=mod", "-deps", "-test", "./..."}} {
		_, err := runGo(ctx, dir, line...)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// inheritModule begins with the checksums and with all that the SDK requires: with the whole list
// at hand, go looks into the go.mod of no module that it does not build. Tidying drops the rest.
func inheritModule(ctx context.Context, dir, sdkDir string) error {
	sums, err := os.ReadFile(filepath.Join(sdkDir, "go.sum"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o644); err != nil {
		return err
	}
	out, err := runGo(ctx, sdkDir, "mod", "edit", "-json")
	if err != nil {
		return err
	}
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		return fmt.Errorf("the SDK's go.mod: %w", err)
	}
	edit := []string{"mod", "edit"}
	for _, r := range mod.Require {
		edit = append(edit, "-require="+r.Path+"@"+r.Version)
	}
	_, err = runGo(ctx, dir, edit...)
	return err
}

// runGo runs a go command in a folder and returns its standard output; an error has all it said.
func runGo(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=") // which may forbid what is wanted here
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s%s", strings.Join(args, " "), err, out, said.Bytes())
	}
	return out, nil
}

func nextSteps(w io.Writer, dir, name string) {
	fmt.Fprintf(w, `%s is written. Next:

  cd %s
  go test ./...
  go build -o %s .
  postern plugin test ./%s

Install it where the gateway can start it, and name it in the configuration:

  [[plugin]]
  name = "%s"
  command = "/usr/local/lib/postern/%s"

postern check says whether it starts with its settings, postern try what it makes of a message.
`, dir, dir, name, name, name, name)
}
