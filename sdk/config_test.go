package sdk_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
)

// odd is a type that knows what it may be.
type odd struct{}

func (odd) UnmarshalTOML(any) error { return errors.New("is odd") }

func TestConfigDecode(t *testing.T) {
	type table struct {
		Name   string        `toml:"name"`
		Count  int           `toml:"count"`
		Wait   time.Duration `toml:"wait"`
		Nested struct {
			On bool `toml:"on"`
		} `toml:"nested"`
		Odd  odd      `toml:"odd"`
		List []string `toml:"list"`
		Many []struct {
			Wait time.Duration `toml:"wait"`
		} `toml:"many"`
	}
	tests := []struct {
		settings string
		wrong    string // "" for none
	}{
		{"", ""},
		{"name = 'x'\nwait = '5s'\n[nested]\non = true\n", ""},
		{"name = 'x'\nnmae = 'y'\n", `unknown key "nmae" (did you mean "name"?)`},
		{"[nested]\nonn = true\n", `unknown key "nested.onn" (did you mean "on"?)`},
		{"[[many]]\nwiat = '1s'\n", `(did you mean "wait"?)`},
		{"wait = 5\n", `key "wait": must be a duration in quotes, like "30s", not 5`},
		{"[[many]]\nwait = 5\n", `key "many.wait"`},
		{"odd = 3\n", `settings: key "odd": is odd`},
		{"wait = '5days'\n", `"30s", "4h" or "5d"`},
		{"name = ['x']\n", `key "name": must be a string, in quotes, not an array`},
		{"list = 'x'\n", `key "list": must be an array, in [ ], not a string`},
		{"count = true\n", `must be a whole number, not true or false`},
		{"[nested]\noff = true\n", `unknown key "nested.off"`},
		{"name = 'x'\ncount = 'many'\n", `"count"`},
		{"name = \n", "line 1"},
		{"wait = 'soon'\n", `"wait"`},
	}
	for _, tt := range tests {
		got := table{Name: "default", Count: 7}
		err := sdk.Config{Settings: []byte(tt.settings)}.Decode(&got)
		if tt.wrong == "" {
			if err != nil || got.Count != 7 {
				t.Errorf("%q: %+v, %v", tt.settings, got, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%q: error is %v, want one with %s", tt.settings, err, tt.wrong)
		}
	}
}

// Common is what settings of several kinds have.
type Common struct {
	Keep time.Duration `toml:"keep"`
}

// TestConfigDays: settings write days as the rest of the configuration does.
func TestConfigDays(t *testing.T) {
	type table struct {
		Wait   time.Duration            `toml:"wait"`
		Text   string                   `toml:"text"`
		By     map[string]time.Duration `toml:"by"`
		Nested *struct {
			Wait time.Duration `toml:"wait"`
		} `toml:"nested"`
		Many []struct {
			Wait time.Duration `toml:"wait"`
		} `toml:"many"`
		List    []time.Duration `toml:"list"`
		Pointer *time.Duration  `toml:"pointer"`
		Common
	}
	var got table
	settings := "keep = '9d'\npointer = '10d'\nlist = ['11d', '12s']\nwait = '2d'\ntext = '3d'\n[by]\nx = '4d'\ny = '5s'\n[nested]\nwait = '6d'\n[[many]]\nwait = '7d'\n[[many]]\nwait = '8m'\n"
	if err := (sdk.Config{Settings: []byte(settings)}).Decode(&got); err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	if got.Wait != 2*day || got.Text != "3d" || got.By["x"] != 4*day || got.By["y"] != 5*time.Second || got.Nested.Wait != 6*day || got.Many[0].Wait != 7*day || got.Many[1].Wait != 8*time.Minute {
		t.Errorf("%+v %+v", got, *got.Nested)
	}
	if got.Keep != 9*day || *got.Pointer != 10*day || len(got.List) != 2 || got.List[0] != 11*day || got.List[1] != 12*time.Second {
		t.Errorf("%+v", got)
	}
}
