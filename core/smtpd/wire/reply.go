package wire

import "time"

// maxReply is the greatest length of a reply line with its CRLF (RFC 5321 §4.5.3.1.5).
const maxReply = 512

// Reply has a line of a reply written, at the latest before the next wait for input: printable,
// one line, cut where it is too long.
func (c *Conn) Reply(text string) {
	if c.dead != nil {
		return
	}
	if len(text) > maxReply-2 {
		text = text[:maxReply-2]
	}
	start := len(c.out)
	c.out = append(c.out, text...)
	for i, b := range c.out[start:] {
		if b < ' ' || b >= 0x7f {
			c.out[start+i] = '?' // a status may quote UTF-8; not every client can read it
		}
	}
	c.out = append(c.out, '\r', '\n')
	if len(c.out) > outMax {
		c.Flush()
	}
}

// Flush writes the replies that are waiting.
func (c *Conn) Flush() error {
	if len(c.out) == 0 || c.dead != nil {
		c.out = c.out[:0]
		return c.dead
	}
	c.conn.SetWriteDeadline(time.Now().Add(c.timeouts.Write))
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	c.dead = err
	return err
}
