package milter

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// parseAddress reads where a milter listens, as Postfix (inet:host:port) and as milters
// themselves write it (inet:port@host).
func parseAddress(s string) (network, address string, err error) {
	kind, rest, ok := strings.Cut(s, ":")
	switch {
	case s == "":
		return "", "", errors.New(`it is empty; name where the milter listens, as in "inet:127.0.0.1:8891" or "unix:/run/opendkim/opendkim.sock"`)
	case ok && (kind == "unix" || kind == "local"):
		return parsePath(rest)
	case ok && kind == "inet":
		return parseHost("tcp", rest)
	case ok && kind == "inet6":
		return parseHost("tcp6", rest)
	case s[0] == '/':
		return parsePath(s)
	}
	return parseHost("tcp", s)
}

func parsePath(s string) (network, address string, err error) {
	if !strings.HasPrefix(s, "/") || len(s) > 107 || strings.ContainsRune(s, 0) {
		return "", "", fmt.Errorf("%q is not the absolute path of a socket", s)
	}
	return "unix", s, nil
}

func parseHost(network, s string) (string, string, error) {
	if port, host, ok := strings.Cut(s, "@"); ok {
		s = net.JoinHostPort(strings.Trim(host, "[]"), port)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsAny(host, " /@") {
		return "", "", fmt.Errorf("%q is not host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("%q is not a port", port)
	}
	return network, s, nil
}
