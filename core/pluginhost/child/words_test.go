package child

import "testing"

// TestLastWords: what is said of a program that did not start is what it died of, not the end of a
// stack trace.
func TestLastWords(t *testing.T) {
	for text, want := range map[string]string{
		"":         "",
		"one\ntwo": "two",
		"at x:1\nError: no file 'a'\n    at open (fs:573)\n\nNode.js v20":       "Error: no file 'a'",
		"Traceback:\n  File \"x\"\nModuleNotFoundError: No module named 'grpc'": "ModuleNotFoundError: No module named 'grpc'",
		"panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\tx.go:3":          "panic: boom",
	} {
		if got := lastLine(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
