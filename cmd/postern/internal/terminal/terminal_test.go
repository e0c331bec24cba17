package terminal

import (
	"encoding/json"
	"strings"
	"testing"
)

const nasty = "a\x1b[2J\u009b31m\u202eb\tc\r\nd\u2028\U000e0041 ü€😀 <&>\x7f"

func TestPrintable(t *testing.T) {
	if got, want := Printable(nasty), "a?[2J?31m?b c??d?? ü€😀 <&>?"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// JSON that is shown in a terminal is text, and says the same to who parses it.
func TestJSON(t *testing.T) {
	var b strings.Builder
	if err := JSON(&b).Encode(map[string]string{"k" + nasty: nasty}); err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSuffix(b.String(), "\n")
	if Printable(line) != line {
		t.Errorf("not printable: %q", line)
	}
	if !strings.Contains(line, "ü€😀 <&>") {
		t.Errorf("escaped more than needed: %s", line)
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(line), &back); err != nil || back["k"+nasty] != nasty {
		t.Errorf("%q, %v", back, err)
	}
}
