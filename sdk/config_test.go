package sdk_test

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/sdk"
)

func TestConfigDecode(t *testing.T) {
	type table struct {
		Name   string        `toml:"name"`
		Count  int           `toml:"count"`
		Wait   time.Duration `toml:"wait"`
		Nested struct {
			On bool `toml:"on"`
		} `toml:"nested"`
	}
	tests := []struct {
		settings string
		wrong    string // "" for none
	}{
		{"", ""},
		{"name = 'x'\nwait = '5s'\n[nested]\non = true\n", ""},
		{"name = 'x'\nnmae = 'y'\n", `unknown key "nmae"`},
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
