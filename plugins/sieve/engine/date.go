package engine

import (
	"fmt"
	"strings"
	"time"
)

// dateTest has the tests of RFC 5260 §4 and §5.
func dateTest(name string) (testSpec, bool) {
	zone := tagSpec{name: "zone", value: str, group: "zone"}
	switch name {
	case "date":
		tags := append(indexTags(), zone, tagSpec{name: "originalzone", group: "zone"})
		return testSpec{signature{ext: "date", tags: matchTags(tags...), pos: []kind{str, str, strList}}, buildDate}, true
	case "currentdate":
		return testSpec{signature{ext: "date", tags: matchTags(zone), pos: []kind{str, strList}}, buildCurrentDate}, true
	}
	return testSpec{}, false
}

// dateMatch is what both tests have in common.
type dateMatch struct {
	m    *matcher
	zone *text // nil: the environment's
	part text
	keys []text
}

func (c *compiler) dateMatch(b *bound) (d dateMatch, err *Error) {
	if d.m, err = c.matcher(b); err != nil {
		return d, err
	}
	if a, ok := b.tags["zone"]; ok {
		t, err := c.text(a.Strings[0])
		if err != nil {
			return d, err
		}
		d.zone = &t
	}
	n := len(b.pos)
	if d.part, err = c.text(b.pos[n-2].Strings[0]); err != nil {
		return d, err
	}
	d.keys, err = c.keys(d.m, b.pos[n-1])
	return d, err
}

func buildDate(c *compiler, b *bound) (cond, *Error) {
	d, err := c.dateMatch(b)
	if err != nil {
		return nil, err
	}
	ix, err := c.index(b)
	if err != nil {
		return nil, err
	}
	name, err := c.text(b.pos[0].Strings[0])
	if err != nil {
		return nil, err
	}
	original := b.has("originalzone")
	return condFunc(func(x *run) (bool, error) {
		var values []string
		x.work += perItem * int64(len(x.msg.fields))
		for _, f := range pick(ix, x.msg.all(x.text(name))) {
			if err := x.spend(perDate+int64(len(f.raw)), b.Line); err != nil {
				return false, err
			}
			when, ok := parseDate(x.msg.value(f))
			if !ok {
				continue
			}
			if v, ok := x.datePart(d, when, original); ok {
				values = append(values, v)
			}
		}
		return x.matchValues(d.m, values, x.texts(d.keys))
	}), nil
}

func buildCurrentDate(c *compiler, b *bound) (cond, *Error) {
	d, err := c.dateMatch(b)
	if err != nil {
		return nil, err
	}
	return condFunc(func(x *run) (bool, error) {
		v, ok := x.datePart(d, x.env.Now, false)
		if !ok {
			return false, nil
		}
		return x.matchValues(d.m, []string{v}, x.texts(d.keys))
	}), nil
}

// datePart is the part of a date that is asked for, in the zone that is asked for; false if there is no such part. What
// is no zone stands for the local one.
func (x *run) datePart(d dateMatch, when time.Time, original bool) (string, bool) {
	if !original {
		zone := x.env.Now.Location()
		if d.zone != nil {
			if z, ok := parseZone(x.text(*d.zone)); ok {
				zone = z
			}
		}
		when = when.In(zone)
	}
	part := strings.ToLower(x.text(d.part))
	return formatDate(when, part), isDatePart(part)
}

// parseZone reads an offset such as "+0100" or "-1130".
func parseZone(s string) (*time.Location, bool) {
	if len(s) != 5 || s[0] != '+' && s[0] != '-' || !isNumber(s[1:]) {
		return nil, false
	}
	minutes := (int(s[1]-'0')*10+int(s[2]-'0'))*60 + int(s[3]-'0')*10 + int(s[4]-'0')
	if s[0] == '-' {
		minutes = -minutes
	}
	return time.FixedZone("", minutes*60), true
}

func isDatePart(s string) bool {
	switch s {
	case "year", "month", "day", "date", "julian", "hour", "minute", "second", "time", "iso8601", "std11", "zone", "weekday":
		return true
	}
	return false
}

// formatDate is RFC 5260 §4.2.
func formatDate(t time.Time, part string) string {
	switch part {
	case "year":
		return fmt.Sprintf("%04d", t.Year())
	case "month":
		return t.Format("01")
	case "day":
		return t.Format("02")
	case "date":
		return t.Format("2006-01-02")
	case "julian": // modified Julian day: days since 17 November 1858
		days := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).Unix() / 86400
		if t.Year() < 1970 && time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).Unix()%86400 != 0 {
			days--
		}
		return fmt.Sprint(days + 40587)
	case "hour":
		return t.Format("15")
	case "minute":
		return t.Format("04")
	case "second":
		return t.Format("05")
	case "time":
		return t.Format("15:04:05")
	case "iso8601":
		return t.Format(time.RFC3339) // with Z
	case "std11":
		return t.Format("Mon, 02 Jan 2006 15:04:05 -0700")
	case "zone":
		return t.Format("-0700")
	}
	return fmt.Sprint(int(t.Weekday()))
}

// index picks one of several fields (RFC 5260 §6).
type index struct {
	n    int64 // from 1; 0: all
	last bool  // counted from the end
}

func indexTags() []tagSpec {
	return []tagSpec{{name: "index", value: num, ext: "index"}, {name: "last", ext: "index"}}
}

func (c *compiler) index(b *bound) (index, *Error) {
	a, ok := b.tags["index"]
	switch {
	case !ok && b.has("last"):
		return index{}, errorAt(b.Line, "':last' needs ':index'")
	case ok && a.Number < 1:
		return index{}, errorAt(a.Line, "':index' counts from 1")
	}
	return index{a.Number, b.has("last")}, nil
}

// pick returns the elements that an index means.
func pick[T any](ix index, list []T) []T {
	switch {
	case ix.n == 0:
		return list
	case ix.n > int64(len(list)):
		return nil
	case ix.last:
		return list[len(list)-int(ix.n):][:1]
	}
	return list[ix.n-1:][:1]
}
