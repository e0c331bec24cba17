package pluginhost

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"github.com/postern-mail/postern/core/confine"
)

// rules are about what the process may open and reach; nil: there are none.
func (r *runner) rules(program *os.File, offline bool) (*confine.Rules, error) {
	rules, err := confine.NewRules(r.spec.Files != nil, offline)
	if rules == nil || r.spec.Files == nil {
		return rules, err
	}
	err = errors.Join(rules.AllowSystem(), rules.AllowProgram(r.argv, program), rules.AllowSockets(r.socketDir), r.host.allowMail(rules), rules.Allow(*r.spec.Files))
	if err != nil {
		rules.Close()
		return nil, err
	}
	r.filesBy = "landlock v" + strconv.Itoa(rules.ABI)
	if gaps := rules.Gaps(); gaps != "" {
		r.host.opt.Log.Warn("plugin's files are not wholly restricted", "plugin", r.name, "gap", gaps)
	}
	return rules, nil
}

// allowMail permits what the host hands over as files: the bodies of large messages, to be
// read, and drafts, to be written.
func (h *Host) allowMail(rules *confine.Rules) error {
	// It is made with the first draft otherwise.
	if err := os.Mkdir(h.drafts, 0o710); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	err := rules.AllowOverwrite(h.drafts)
	if h.opt.ContentDir == "" || err != nil {
		return err
	}
	if err = rules.AllowNamed(h.opt.ContentDir); errors.Is(err, fs.ErrNotExist) { // no mail yet
		return nil
	}
	return err
}
