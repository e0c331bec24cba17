package local

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/core/disk"
	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/sdk/mail"
)

// Dump writes what is in the segments of a queue directory, frame by frame, for people. It
// takes no lock and changes nothing, so it may run beside a gateway. With id set it lists
// only what names that entry. Damage is shown where it is.
func Dump(w io.Writer, fs disk.FS, dir string, id queue.ID) error {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	out := bufio.NewWriter(w)
	for _, name := range names {
		if _, ok := parseSegmentName(name); !ok {
			continue
		}
		if err := dumpSegment(out, fs, filepath.Join(dir, name), name, id); err != nil {
			fmt.Fprintf(out, "%s: %v\n", name, err)
		}
	}
	return out.Flush()
}

func dumpSegment(w io.Writer, fs disk.FS, path, name string, id queue.ID) error {
	f, err := fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	number, _ := parseSegmentName(name)
	o := opened{length: size}
	win := window{f: f, limit: size}
	b, err := win.at(0, firstFrame+frameHeader)
	if err != nil {
		return err
	}
	reason, err := o.parse(b, number)
	if err != nil {
		return err
	}
	if reason != "" {
		return fmt.Errorf("unreadable: %s", reason)
	}
	fmt.Fprintf(w, "%s: %d bytes, made %s, after %08x with %d bytes, header damaged: %t\n",
		name, size, time.Unix(o.head.created, 0).UTC().Format(time.RFC3339), o.head.prev, o.head.prevLen, o.broken)
	sc, err := scanFrames(f, o.head.marker, size, func(off int64, fr frame, payload []byte) error {
		return dumpFrame(w, off, fr, payload, id)
	})
	for _, g := range sc.gaps {
		fmt.Fprintf(w, "  %d to %d: not readable: %s\n", g.from, g.to, g.reason)
	}
	return err
}

func dumpFrame(w io.Writer, off int64, fr frame, payload []byte, id queue.ID) error {
	head := fmt.Sprintf("  frame %d at %d, %d bytes\n", fr.seq, off, fr.size)
	if id == 0 {
		io.WriteString(w, head)
	}
	var front item
	for at := 0; at < len(payload); {
		it, err := nextItem(payload, at)
		if err != nil {
			return err
		}
		at += int(it.size())
		if it.kind == itemAdd || it.kind == itemMove {
			front = it
			continue
		}
		text, of, err := dumpItem(&front, &it)
		if err != nil {
			return err
		}
		if id == 0 || id == of {
			if id != 0 {
				io.WriteString(w, head)
			}
			io.WriteString(w, text)
		}
	}
	return nil
}

// dumpItem describes an item; front is the one before a message item.
func dumpItem(front, it *item) (string, queue.ID, error) {
	d := it.check()
	switch it.kind {
	case itemMessage:
		return dumpEntry(front, d)
	case itemResult:
		id, n := queue.ID(d.u64()), d.num()
		rec := d.record()
		return fmt.Sprintf("    result %s recipient %d: %s\n", id, n, dumpRecord(&rec)), id, d.err
	case itemMark:
		key := d.take(16)
		return fmt.Sprintf("    mark %x until %s\n", key, dumpTime(d.time())), 0, d.err
	}
	return fmt.Sprintf("    item of the unknown type %d\n", it.kind), 0, d.err
}

func dumpEntry(front *item, d *decoder) (string, queue.ID, error) {
	fd := front.check()
	f := fd.front()
	records := fd.records(f.records)
	m := d.message(f.id, func(name string) string { return name }, string(f.content))
	if fd.err != nil || d.err != nil {
		return "", 0, errFormat
	}
	kind := "add"
	if front.kind == itemMove {
		kind = "move"
	}
	s := fmt.Sprintf("    %s %s family %s class %s received %s origin %s from <%s> header %d bytes body %d bytes", kind, f.id, m.Family, m.Class, dumpTime(m.Received), m.Envelope.Origin, m.Envelope.ReversePath, len(m.Header.Block()), m.Body.Size)
	if len(f.content) > 0 {
		s += fmt.Sprintf(" in %s at %d checksum %08x", f.content, m.Body.Offset, m.Body.Sum)
	}
	s += fmt.Sprintf(" pipeline complete %t done %q\n", m.Run.Complete, m.Run.Done)
	s += fmt.Sprintf("      client %s\n", dumpClient(&m.Envelope.Client))
	for i := range records {
		to := "?"
		if i < len(m.Envelope.Recipients) {
			to = m.Envelope.Recipients[i].Path.String()
		}
		s += fmt.Sprintf("      recipient %d <%s>: %s\n", i, to, dumpRecord(&records[i]))
	}
	return s, f.id, nil
}

// dumpClient leaves out what is not known.
func dumpClient(c *mail.Client) string {
	s := "none"
	if c.Addr.IsValid() {
		s = netip.AddrPortFrom(c.Addr, c.Port).String()
	}
	s += " class " + c.Class.String()
	for _, f := range [...]struct{ name, text string }{{"helo", c.Helo}, {"host", c.Host}, {"ptr", c.PTR}, {"user", c.User},
		{"mechanism", c.Mechanism}, {"protocol", c.Protocol}, {"tls", c.TLS}, {"listener", c.Listener}} {
		if f.text != "" {
			s += fmt.Sprintf(" %s %q", f.name, f.text)
		}
	}
	if c.Connections > 0 {
		s += fmt.Sprintf(" connections %d", c.Connections)
	}
	return s
}

func dumpRecord(r *queue.Record) string {
	s := fmt.Sprintf("%s to %q attempts %d next %s", r.State, r.Destination, r.Attempts, dumpTime(r.Next))
	if !r.Expires.IsZero() {
		s += " expires " + dumpTime(r.Expires)
	}
	if !r.Status.IsZero() {
		s += fmt.Sprintf(" status %q by %q", r.Status.Error(), r.Status.Remote)
	}
	if r.Reason != "" {
		s += fmt.Sprintf(" reason %q", r.Reason)
	}
	return s
}

func dumpTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
