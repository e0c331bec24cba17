package maildir

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"time"
)

// The file with the folders that a user wants to see: a name a line, or since its second
// version, which the first lines say, with tabs between levels.
const (
	subscriptionFile  = "subscriptions"
	subscriptionStale = 30 * time.Second
	subscriptionsV2   = "V\t2\n\n"
	maxSubscriptions  = 4 << 20 // bytes
)

// subscribe adds a folder, named like its directory without the first dot. That it fails is
// no reason not to store the message.
func (p *Plugin) subscribe(root, folder string) {
	if err := p.addSubscription(root, folder); err != nil {
		slog.Warn("folder is not subscribed", "dir", root, "folder", folder, "error", err.Error())
	}
}

func (p *Plugin) addSubscription(root, folder string) error {
	path := filepath.Join(root, subscriptionFile)
	lock := path + ".lock" // becomes the file
	f, err := p.lockFile(context.Background(), lock, subscriptionStale)
	if err != nil {
		return err
	}
	old, err := readAll(path, maxSubscriptions)
	text, changed := subscribed(old, folder)
	if err == nil && changed {
		_, err = f.Write(text)
		err = errors.Join(err, f.Sync())
	}
	err = errors.Join(err, f.Close())
	if err != nil || !changed {
		return errors.Join(err, p.disk.Remove(lock))
	}
	if err := p.disk.Rename(lock, path); err != nil {
		return errors.Join(err, p.disk.Remove(lock))
	}
	return p.disk.SyncDir(root)
}

// subscribed is the file's text with the folder.
func subscribed(text []byte, folder string) (_ []byte, changed bool) {
	line := folder
	if bytes.HasPrefix(text, []byte(subscriptionsV2)) {
		line = strings.ReplaceAll(folder, ".", "\t")
	}
	for l := range bytes.Lines(text) {
		if string(bytes.TrimRight(l, "\r\n")) == line {
			return text, false
		}
	}
	if n := len(text); n > 0 && text[n-1] != '\n' {
		text = append(text, '\n')
	}
	return append(append(text, line...), '\n'), true
}
