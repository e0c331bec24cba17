package imapappend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
)

// maxSaid is what a server may say while one delivery lasts, in bytes.
const maxSaid = 8 << 20

// errLogin is a log-in that failed: the admin has to look at it.
var errLogin = errors.New("log-in failed")

// conn is a connection on which a user's mailbox is open for us.
type conn struct {
	*imapclient.Client
	net    *bounded
	server *server
	user   string
	since  time.Time // idle since
	delim  rune      // between levels of folders; 0: not known yet
	prefix string    // of all folders but the inbox
	known  map[string]bool
}

// bounded is a connection whose other end does not talk for ever.
type bounded struct {
	net.Conn
	left atomic.Int64
}

var errTalkative = errors.New("the server says too much")

func (b *bounded) Read(p []byte) (int, error) {
	left := b.left.Load()
	if left <= 0 {
		return 0, errTalkative
	}
	n, err := b.Conn.Read(p[:min(int64(len(p)), left)])
	b.left.Add(-int64(n))
	return n, err
}

// connect opens a connection and logs in for a user. The end of ctx closes the connection.
func connect(ctx context.Context, s *server, user string) (*conn, error) {
	password, err := s.password()
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", s.Address)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	c := &conn{net: &bounded{Conn: raw}, server: s, user: user, known: make(map[string]bool)}
	c.net.left.Store(maxSaid)
	if err := c.begin(ctx, password); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// begin secures the connection and logs in.
func (c *conn) begin(ctx context.Context, password string) (err error) {
	switch c.server.TLS {
	case "implicit":
		t := tls.Client(c.net, c.server.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
		c.Client = imapclient.New(t, nil)
	case "starttls":
		if c.Client, err = imapclient.NewStartTLS(c.net, &imapclient.Options{TLSConfig: c.server.tls}); err != nil {
			return err
		}
	default:
		c.Client = imapclient.New(c.net, nil)
	}
	if err := c.WaitGreeting(); err != nil {
		return err
	}
	if c.State() == imap.ConnStateAuthenticated {
		return fmt.Errorf("%w: the server has opened a mailbox without asking whose", errLogin)
	}
	authzid, authcid := c.server.identity(c.user)
	if caps := c.Caps(); authzid != "" || caps.Has(imap.AuthCap("PLAIN")) {
		err = c.Authenticate(sasl.NewPlainClient(authzid, authcid, password))
	} else {
		err = c.Login(authcid, password).Wait()
	}
	var said *imap.Error
	if errors.As(err, &said) {
		return fmt.Errorf("%w: %s", errLogin, said.Text)
	}
	return err
}

// bye ends a connection that is in order.
func (c *conn) bye() {
	c.net.SetDeadline(time.Now().Add(time.Second))
	c.Logout().Wait()
	c.Close()
}

// alive reports whether a connection that was idle still works.
func (c *conn) alive(ctx context.Context) bool {
	defer context.AfterFunc(ctx, func() { c.net.Close() })()
	return c.Noop().Wait() == nil
}

// mailbox is what the server calls a folder.
func (c *conn) mailbox(folder string) (string, error) {
	if folder == "" || strings.EqualFold(folder, "INBOX") {
		return "INBOX", nil
	}
	if c.delim == 0 {
		if err := c.learn(); err != nil {
			return "", err
		}
	}
	name := strings.ReplaceAll(folder, "/", string(c.delim))
	if c.prefix != "" && !strings.HasPrefix(name, c.prefix) {
		name = c.prefix + name
	}
	return name, nil
}

// learn asks what is between levels of folders, and where a user's own ones are.
func (c *conn) learn() error {
	c.delim = '/'
	if c.Caps().Has(imap.CapNamespace) {
		n, err := c.Namespace().Wait()
		if err != nil {
			return err
		}
		if len(n.Personal) > 0 {
			if n.Personal[0].Delim != 0 {
				c.delim = n.Personal[0].Delim
			}
			c.prefix = n.Personal[0].Prefix
			return nil
		}
	}
	list, err := c.List("", "", nil).Collect()
	if err == nil && len(list) > 0 && list[0].Delim != 0 {
		c.delim = list[0].Delim
	}
	return err
}

// broken reports whether an error is not the server's word: the connection is of no use.
func broken(err error) bool {
	var said *imap.Error
	return err != nil && !errors.As(err, &said)
}
