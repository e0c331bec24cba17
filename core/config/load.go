package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"
)

// maxFile bounds the file.
const maxFile = 1 << 20

// Load reads and checks a file. The error is a [Problems] with everything that is wrong.
func Load(path string) (*Config, error) {
	data, mode, err := readBounded(path, maxFile)
	if err != nil {
		return nil, Problems{{File: path, Text: err.Error()}}
	}
	return parse(path, data, mode)
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, os.FileMode, error) {
	// A FIFO must not make the gateway wait.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, plainError(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, plainError(err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errors.New("is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, 0, plainError(err)
	}
	if int64(len(data)) > limit {
		return nil, 0, fmt.Errorf("is larger than %s", Size(limit))
	}
	return data, info.Mode(), nil
}

// plainError drops the path, which the message names already.
func plainError(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// Parse checks the text of a file that Load would find at path.
func Parse(path string, data []byte) (*Config, error) { return parse(path, data, 0o600) }

func parse(path string, data []byte, mode os.FileMode) (*Config, error) {
	if len(data) > maxFile {
		return nil, Problems{{File: path, Text: fmt.Sprintf("is larger than %s", Size(maxFile))}}
	}
	text := strings.TrimPrefix(string(data), "\ufeff")
	lines, end, deep := scanLines(text)
	if deep > 0 {
		return nil, Problems{{File: path, Line: deep, Text: fmt.Sprintf("is nested deeper than %d levels", maxDepth)}}
	}
	if err := syntaxError(path, text, end); err != nil {
		return nil, err
	}
	raw := make(map[string]any)
	if _, err := toml.Decode(text, &raw); err != nil {
		return nil, problemOf(path, err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, Problems{{File: path, Text: err.Error()}}
	}
	c := Defaults()
	c.file, c.lines, c.exposed = path, lines, worldAccess(mode)
	d := &decoder{file: path, lines: lines}
	d.table("", raw, reflect.ValueOf(c).Elem())
	c.complete(filepath.Dir(abs))
	problems := append(d.problems, c.problems()...)
	if err := problems.sorted(); err != nil {
		return nil, err
	}
	return c, nil
}

// syntaxError handles text of which the scanner understood only the start: the library
// gets no more than a little after that point, so that its recursion stays bounded too.
func syntaxError(path, text string, end int) error {
	if end == len(text) {
		return nil
	}
	cut := text[:min(len(text), end+256)]
	stopped := 1 + strings.Count(text[:end], "\n")
	var raw map[string]any
	if _, err := toml.Decode(cut, &raw); err != nil {
		ps := problemOf(path, err)
		// The library blames the line after an unfinished one.
		ps[0].Line = min(ps[0].Line, stopped)
		return ps
	}
	return Problems{{File: path, Line: stopped, Text: "is not valid TOML here"}}
}

func problemOf(path string, err error) Problems {
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return Problems{{File: path, Text: strings.TrimPrefix(err.Error(), "toml: ")}}
	}
	text := pe.Message
	if strings.HasPrefix(text, "expected value but found") {
		text += "; a text needs quotes"
	}
	return Problems{{File: path, Line: pe.Position.Line, Text: text}}
}
