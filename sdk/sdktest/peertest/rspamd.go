package peertest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// GTUBE in the body of a message is spam to rspamd and SpamAssassin.
const GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

// Rspamd is a running rspamd. Its only rules are GTUBE (reject) and what a message asks for
// in these fields:
//
//   - X-Test-Score: the score
//   - X-Test-Action: an action whatever the score, with X-Test-Message as its text
//   - X-Test-Milter: anything adds "X-Rspamd-Test: yes" and removes X-Remove-Me
//
// From a score of 4 the action is greylist, from 6 add header, from 8 rewrite subject (as
// "[spam] %s"), from 14.8 quarantine, from 14.9 discard, from 15 reject. The symbol POSTERN_FACTS tells what it was told of the
// envelope, as "from=", "rcpt=", "ip=", "helo=", "host=", "user=", "qid=" and "size=".
type Rspamd struct {
	*Engine
	URL    string // of the scanner, for HTTP
	Milter string // host:port of the proxy, for milters
}

// StartRspamd starts one.
func StartRspamd(t testing.TB) *Rspamd {
	t.Helper()
	program := Program(t, "rspamd")
	r := &Rspamd{}
	r.Engine = launch(t, func(e *Engine) {
		scanner, milter := port(t), port(t)
		r.URL, r.Milter = "http://"+scanner, milter
		config := filepath.Join(e.dir, "rspamd.conf")
		file(t, config, fmt.Sprintf(rspamdConfig, e.dir, scanner, milter))
		file(t, filepath.Join(e.dir, "rules.lua"), rspamdRules)
		file(t, filepath.Join(e.dir, "none", "README"), "no modules\n")
		file(t, filepath.Join(e.dir, "domains"), "com\nnet\norg\ntest\n")
		e.command = []string{program, "--no-fork", "--config", config}
		if os.Getuid() == 0 {
			e.command = append(e.command, "--insecure", "--user", "root", "--group", "root")
		}
		e.address = []string{scanner, milter}
	})
	return r
}

const rspamdConfig = `
lua = "%[1]s/rules.lua"
options {
  filters = "";
  pidfile = "%[1]s/pid";
  cache_file = "%[1]s/symbols.cache";
  dynamic_conf = "%[1]s/dynamic";
  hs_cache_dir = "%[1]s/";
  control_socket = "%[1]s/control mode=0600";
  tempdir = "%[1]s";
  url_tld = "%[1]s/domains"; # the real list takes ten seconds to compile
  disable_hyperscan = true;
  dns { timeout = 1s; retransmits = 1; nameserver = ["127.0.0.1:1"]; }
  allow_raw_input = true;
  local_addrs = [];
}
logging { type = "console"; level = "info"; }
worker "normal" { bind_socket = "%[2]s"; mime = true; count = 1; }
worker "rspamd_proxy" {
  bind_socket = "%[3]s"; milter = yes; timeout = 30s; count = 1;
  upstream "local" { default = yes; self_scan = yes; }
}
actions { greylist = 4; add_header = 6; rewrite_subject = 8; reject = 15; quarantine = 14.8; discard = 14.9; subject = "[spam] %%s"; }
modules { path = "%[1]s/none"; }
`

const rspamdRules = `
local score = rspamd_config:register_symbol{
  name = 'POSTERN_SCORE', type = 'normal', score = 1.0,
  callback = function(task)
    local s = tonumber(task:get_header('X-Test-Score') or '')
    if s then task:insert_result('POSTERN_SCORE', s) end
    local function show(v) return tostring(v or '') end
    local facts, from, ip = {}, task:get_from('smtp'), task:get_from_ip()
    facts[1] = 'from=' .. show(from and from[1] and from[1].addr)
    for _, r in ipairs(task:get_recipients('smtp') or {}) do facts[#facts+1] = 'rcpt=' .. r.addr end
    facts[#facts+1] = 'ip=' .. show(ip and ip:is_valid() and ip)
    facts[#facts+1] = 'helo=' .. show(task:get_helo())
    facts[#facts+1] = 'host=' .. show(task:get_hostname())
    facts[#facts+1] = 'user=' .. show(task:get_user())
    facts[#facts+1] = 'qid=' .. show(task:get_queue_id())
    facts[#facts+1] = 'size=' .. show(task:get_size())
    task:insert_result('POSTERN_FACTS', 0.0, facts)
    if task:get_header('X-Test-Milter') then
      task:set_milter_reply{ add_headers = { ['X-Rspamd-Test'] = 'yes' }, remove_headers = { ['X-Remove-Me'] = 0 } }
    end
    local a = task:get_header('X-Test-Action')
    if a then task:set_pre_result(a, task:get_header('X-Test-Message') or '', 'postern') end
  end,
}
rspamd_config:register_symbol{ name = 'POSTERN_FACTS', type = 'virtual', score = 0.0, parent = score }
`
