package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/cmd/postern/internal/terminal"
	"github.com/postern-mail/postern/sdk/sdktest/suite"
)

// pluginTestCommand holds any executable against the plugin contract.
func pluginTestCommand() *cobra.Command {
	var settings string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "test BINARY [ARGUMENT...]",
		Short: "Hold a plugin's executable against the contract",
		Long: "Starts the executable as the gateway would, asks everything that the gateway would ask, about\n" +
			"messages of all kinds, and prints a line a check. The plugin may be written in any language; no\n" +
			"gateway has to run. Exit code 0: nothing is wrong, 1: something is, 2: the command was not understood.",
		Example: "  postern plugin test ./date-guard\n" +
			"  postern plugin test ./date-guard --settings settings.toml\n" +
			"  postern plugin test -- node filter.js --verbose",
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			path, err := findProgram(a[0])
			if err != nil {
				return usageError{err}
			}
			p := suite.Program{Path: path, Args: a[1:]}
			if settings != "" {
				if p.Settings, err = os.ReadFile(settings); err != nil {
					return usageError{err}
				}
			}
			report := printResult
			if asJSON {
				report = printResultJSON
			}
			checks, failed := 0, 0
			suite.Run(cmd.Context(), p, func(r suite.Result) {
				checks++
				if r.Err != nil {
					failed++
				}
				report(cmd.OutOrStdout(), r)
			})
			switch {
			case cmd.Context().Err() != nil:
				return errors.New("interrupted")
			case failed > 0:
				return fmt.Errorf("%s: %d of %d checks failed", a[0], failed, checks)
			case !asJSON:
				fmt.Fprintf(cmd.OutOrStdout(), "%s keeps the contract: %d checks\n", a[0], checks)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&settings, "settings", "", "a TOML file with the settings under which it should work")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a check")
	return cmd
}

// findProgram makes a path of what was named as in a shell, but finds a file in the current
// folder too.
func findProgram(name string) (string, error) {
	if !strings.ContainsRune(name, '/') {
		if fi, err := os.Stat(name); err != nil || fi.IsDir() {
			path, err := exec.LookPath(name)
			if err != nil {
				return "", fmt.Errorf("there is no program %s, neither here nor in PATH", name)
			}
			name = path
		}
	}
	if _, err := os.Stat(name); err != nil {
		return "", err
	}
	return filepath.Abs(name)
}

func printResult(w io.Writer, r suite.Result) {
	if r.Err != nil {
		fmt.Fprintf(w, "FAIL  %s\n      %s\n", r.Name, strings.ReplaceAll(r.Err.Error(), "\n", "\n      "))
		return
	}
	if r.Note != "" {
		r.Name += " (" + r.Note + ")"
	}
	fmt.Fprintf(w, "ok    %s\n", r.Name)
}

func printResultJSON(w io.Writer, r suite.Result) {
	line := struct {
		Check string  `json:"check"`
		OK    bool    `json:"ok"`
		Error string  `json:"error,omitempty"`
		Note  string  `json:"note,omitempty"`
		Took  float64 `json:"took_ms"`
	}{Check: r.Name, OK: r.Err == nil, Note: r.Note, Took: float64(r.Took) / float64(time.Millisecond)}
	if r.Err != nil {
		line.Error = r.Err.Error()
	}
	terminal.JSON(w).Encode(line)
}
