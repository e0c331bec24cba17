package confine

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseUser(t *testing.T) {
	for s, want := range map[string]string{"64321": "&{64321 64321}", "64321:7": "&{64321 7}", "64321:no-such-group": `there is no group "no-such-group"`,
		"no-such-user": `there is no user "no-such-user"`, "": "there is no user", "0": "root", "-1": "no user", "root": "root"} {
		u, err := ParseUser(s)
		if got := fmt.Sprint(u, err); !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}
