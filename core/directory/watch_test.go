package directory

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

// TestOtherProcess: what another process has changed is seen once it has closed the file,
// however lately this one looked.
func TestOtherProcess(t *testing.T) {
	if path := os.Getenv("POSTERN_TEST_DIRECTORY"); path != "" {
		d := open(t, path)
		ctx := context.Background()
		err := errors.Join(d.AddAccount(ctx, mail.MustPath("new@example.org"), "pw"),
			d.AddDomain(ctx, Domain{Name: mail.MustDomain("stored.example")}),
			d.AddAlias(ctx, mail.MustPath("x@stored.example"), mail.MustPath("new@example.org")))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("changed")
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		fmt.Println("closed")
		io.Copy(io.Discard, os.Stdin) // until the other one has looked
		return
	}
	path := filepath.Join(t.TempDir(), "directory.db")
	d := open(t, path)
	for _, a := range []string{"new@example.org", "x@stored.example"} {
		if got := resolve(d, a); !strings.HasPrefix(got, "not") {
			t.Fatalf("%s before: %s", a, got)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestOtherProcess$")
	cmd.Env = append(os.Environ(), "POSTERN_TEST_DIRECTORY="+path)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	var said []string
	for closed := false; !closed; resolve(d, "new@example.org") { // it has always looked just now
		select {
		case line, ok := <-lines:
			said = append(said, line)
			closed = !ok || line == "closed"
		default:
		}
	}
	for _, a := range []string{"new@example.org", "x@stored.example"} {
		if got := resolve(d, a); got != "new@example.org" {
			t.Errorf("%s after: %s", a, got)
		}
	}
	if _, ok, err := d.Verifier(context.Background(), mail.MustPath("new@example.org")); !ok || err != nil {
		t.Errorf("verifier: %v %v", ok, err)
	}
	in.Close()
	for line := range lines {
		said = append(said, line)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
}
