package engine

import (
	"strconv"
	"strings"
)

// Print writes the tree as a script that parses into the same tree, but for its lines.
func (t *Tree) Print() string {
	var b strings.Builder
	printCommands(&b, t.Commands, 0)
	return b.String()
}

func printCommands(b *strings.Builder, list []*Node, depth int) {
	indent := strings.Repeat("\t", depth)
	for _, n := range list {
		b.WriteString(indent)
		printNode(b, n)
		if !n.HasBlock {
			b.WriteString(";\r\n")
			continue
		}
		b.WriteString(" {\r\n")
		printCommands(b, n.Block, depth+1)
		b.WriteString(indent + "}\r\n")
	}
}

func printNode(b *strings.Builder, n *Node) {
	b.WriteString(n.Name)
	for _, a := range n.Args {
		b.WriteByte(' ')
		printArg(b, a)
	}
	switch {
	case n.List:
		b.WriteString(" (")
		for i, t := range n.Tests {
			if i > 0 {
				b.WriteString(", ")
			}
			printNode(b, t)
		}
		b.WriteByte(')')
	case len(n.Tests) == 1:
		b.WriteByte(' ')
		printNode(b, n.Tests[0])
	}
}

func printArg(b *strings.Builder, a Arg) {
	switch a.Kind {
	case ArgTag:
		b.WriteString(":" + a.Tag)
	case ArgNumber:
		b.WriteString(strconv.FormatInt(a.Number, 10))
	case ArgString:
		printString(b, a.Strings[0].Text)
	case ArgStrings:
		b.WriteByte('[')
		for i, s := range a.Strings {
			if i > 0 {
				b.WriteString(", ")
			}
			printString(b, s.Text)
		}
		b.WriteByte(']')
	}
}

func printString(b *strings.Builder, s string) {
	b.WriteByte('"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
}
