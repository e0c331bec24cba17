package proto

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The committed code is what the generators make of postern.proto.
func TestGeneratedCodeIsFresh(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the generators")
	}
	protoc, err := exec.LookPath("protoc")
	if err != nil {
		if os.Getenv("POSTERN_REQUIRE_PEERS") == "1" {
			t.Fatal("protoc is not installed")
		}
		t.Skip("SKIPPED: protoc is not installed, generated code is not compared")
	}
	bin, out := t.TempDir(), t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, text)
		}
	}
	run("go", "build", "-o", bin+"/", "google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc")
	run(protoc, "-I", ".", "--go_out="+out, "--go_opt=paths=source_relative", "--go-grpc_out="+out, "--go-grpc_opt=paths=source_relative", "directory.proto", "host.proto", "observer.proto", "planner.proto", "postern.proto", "service.proto")
	for _, name := range []string{"directory.pb.go", "directory_grpc.pb.go", "host.pb.go", "host_grpc.pb.go", "observer.pb.go", "observer_grpc.pb.go", "planner.pb.go", "planner_grpc.pb.go", "postern.pb.go", "postern_grpc.pb.go", "service.pb.go", "service_grpc.pb.go"} {
		want, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// The first lines name the version of protoc, which may differ.
		if !bytes.Equal(body(got), body(want)) {
			t.Errorf("%s is not what postern.proto gives; see doc.go for the command", name)
		}
	}
}

func body(b []byte) []byte { return b[bytes.Index(b, []byte("\npackage ")):] }
