package maildir

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Settings of the plugin.
type Settings struct {
	// Path of a recipient's Maildir, with the placeholders {data_dir}, {domain} and {local}.
	// Default: "{data_dir}/mail/{domain}/{local}".
	Path string `toml:"path"`
	// FolderNames is how names of folders are written that are not ASCII: "utf-7" (modified,
	// as most programs want it) or "utf-8". Default: "utf-7".
	FolderNames string `toml:"folder_names"`
	// CreateFolders has every folder made that mail is to be filed into, and not only where
	// a script asks for that. Default: false.
	CreateFolders bool `toml:"create_folders"`
	// Quota is what a mailbox may hold where neither the account nor its domain says it:
	// "2GiB". Default: "", no limit.
	Quota size `toml:"quota"`
	// QuotaMessages is the same in messages. Default: 0, no limit.
	QuotaMessages int64 `toml:"quota_messages"`
	// QuotaWarning is how full a mailbox is when its owner is told, in percent; 0: never.
	// Default: 90.
	QuotaWarning int64 `toml:"quota_warning"`
	// Trash and Junk are the folders for what was deleted, and for spam. They are made when
	// they are needed. Default: ["Trash"], ["Junk"].
	Trash []string `toml:"trash"`
	Junk  []string `toml:"junk"`
	// TrashDays and JunkDays are how long messages stay there; 0: for ever. An account may
	// have settings of the same names. Default: 0.
	TrashDays int `toml:"trash_days"`
	JunkDays  int `toml:"junk_days"`
}

// Defaults are the settings where nothing else is said.
func Defaults() Settings {
	return Settings{Path: "{data_dir}/mail/{domain}/{local}", FolderNames: "utf-7", QuotaWarning: 90, Trash: []string{"Trash"}, Junk: []string{"Junk"}}
}

func (s *Settings) check() error {
	if s.FolderNames != "utf-7" && s.FolderNames != "utf-8" {
		return fmt.Errorf("settings: folder_names is %q; it can be utf-7 or utf-8", s.FolderNames)
	}
	if s.QuotaMessages < 0 || s.QuotaWarning < 0 || s.QuotaWarning > 100 || s.TrashDays < 0 || s.JunkDays < 0 {
		return errors.New("settings: quota_messages, trash_days and junk_days cannot be below 0, and quota_warning is a percentage")
	}
	for _, name := range slices.Concat(s.Trash, s.Junk) {
		if _, err := s.folder(name); err != nil || strings.EqualFold(name, "INBOX") {
			return fmt.Errorf("settings: %q is no folder for trash or junk", name)
		}
	}
	return nil
}

// special reports whether a directory is that of a folder for trash or junk.
func (s *Settings) special(dir string) bool {
	return slices.ContainsFunc(slices.Concat(s.Trash, s.Junk), func(name string) bool {
		own, err := s.folder(name)
		return err == nil && own == dir
	})
}

// size is a number of bytes, written with a unit or without.
type size int64

// UnmarshalText reads "500MiB".
func (s *size) UnmarshalText(text []byte) error {
	v := strings.TrimSpace(string(text))
	if v == "" {
		*s = 0
		return nil
	}
	unit := int64(1)
	for suffix, u := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40} {
		if rest, ok := strings.CutSuffix(v, suffix); ok {
			v, unit = strings.TrimSpace(rest), u
			break
		}
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return fmt.Errorf("%q is no size: write it like 500MiB", text)
	}
	*s = size(n * unit)
	return nil
}
