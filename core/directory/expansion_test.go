package directory

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/sdk/mail"
)

// TestExpansionProperties: whatever aliases and groups have become, each address leads to
// exactly the enabled accounts and outside addresses that it reaches, each once.
func TestExpansionProperties(t *testing.T) {
	d, ctx := newDirectory(t), context.Background()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		name := func(i int) string { return fmt.Sprintf("n%d@example.org", i) }
		nodes := 1 + r.IntN(9) // a way is never longer than maxDepth
		accounts, enabled := make(map[string]bool), make(map[string]bool)
		edges := make(map[string][]string)
		tx, err := d.db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		exec := func(sql string, args ...any) {
			if _, err := tx.Exec(sql, args...); err != nil {
				t.Fatal(err)
			}
		}
		exec(`DELETE FROM accounts`)
		exec(`DELETE FROM aliases`)
		for i := range nodes {
			n := name(i)
			local, _, _ := strings.Cut(n, "@")
			if r.IntN(2) == 0 {
				accounts[n], enabled[n] = true, r.IntN(3) > 0
				exec(`INSERT INTO accounts (domain, local, enabled, created, salt, iterations, stored_key, server_key) VALUES ('example.org', ?, ?, 0, x'00', 1, x'00', x'00')`, local, enabled[n])
			}
			var to []string
			for range r.IntN(4) {
				target := name(r.IntN(nodes + 1)) // the last one does not exist
				switch r.IntN(5) {
				case 0:
					target = fmt.Sprintf("out%d@example.com", r.IntN(3))
				case 1:
					target = strings.Replace(target, "@example.org", "+tag@example.net", 1)
				}
				if !slices.Contains(to, target) {
					to = append(to, target)
					exec(`INSERT INTO aliases (domain, local, target) VALUES ('example.org', ?, ?)`, local, target)
				}
			}
			edges[n] = to
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		d.watch.changed()
		for i := range nodes {
			want := reached(name(i), edges, accounts, enabled)
			targets, err := d.Expand(ctx, mail.MustPath(name(i)))
			var got []string
			for _, p := range targets {
				got = append(got, p.String())
			}
			slices.Sort(got)
			switch {
			case len(want) > 0:
				if err != nil || !slices.Equal(got, want) {
					t.Fatalf("seed %d: %s: %v %v, want %v of %v", seed, name(i), got, err, want, edges)
				}
			case err == nil && !slices.Equal(got, []string{name(i)}):
				t.Fatalf("seed %d: %s leads nowhere and is %v", seed, name(i), got)
			}
		}
	}
}

// reached is what an address leads to, said in another way: a walk over the graph.
func reached(from string, edges map[string][]string, accounts, enabled map[string]bool) []string {
	var out []string
	seen := map[string]bool{from: true}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		if strings.HasSuffix(n, "@example.com") {
			out = append(out, n)
			continue
		}
		to := edges[n]
		if accounts[n] && enabled[n] && (len(to) == 0 || slices.Contains(to, n)) {
			out = append(out, n)
		}
		for _, t := range to {
			if t = strings.Replace(t, "+tag@example.net", "@example.org", 1); !seen[t] {
				seen[t] = true
				queue = append(queue, t)
			}
		}
	}
	slices.Sort(out)
	return out
}
