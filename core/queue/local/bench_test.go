package local

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/spool"
	"github.com/postern-mail/postern/sdk/mail"
)

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCommit is one message's whole way through the queue: body into the spool,
// commit, claim, result. It reports CPU time per message beside wall time.
func BenchmarkCommit(b *testing.B) {
	for _, workers := range []int{1, 20} {
		b.Run(fmt.Sprintf("committers=%d", workers), func(b *testing.B) { benchmarkCommit(b, workers) })
	}
}

func benchmarkCommit(b *testing.B, workers int) {
	dir := b.TempDir()
	sp, err := spool.Open(spool.Options{Dir: filepath.Join(dir, "spool")})
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(Options{Dir: filepath.Join(dir, "queue"), Content: sp})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var ids queue.IDs
	body := bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"), 62)
	header := mail.NewHeader(bytes.Repeat([]byte("X-Header: some text\r\n"), 10))
	from, rcpt := mail.MustPath("a@example.org"), mail.MustPath("b@example.com")
	b.ReportAllocs()
	b.SetParallelism(max(1, workers/runtime.GOMAXPROCS(0)))
	if workers == 1 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		b.SetParallelism(1)
	}
	b.ResetTimer()
	start := cpu()
	b.RunParallel(func(pb *testing.PB) {
		ctx := context.Background()
		for pb.Next() {
			now := time.Now()
			w := sp.NewWriter()
			w.Write(body)
			content, err := w.Finish()
			if err != nil {
				b.Fatal(err)
			}
			id := ids.New(now)
			e := &queue.Entry{ID: id, Family: id, Received: now, Header: header, Body: content, Envelope: mail.Envelope{
				ID: id.String(), Origin: mail.Incoming, ReversePath: from, Recipients: []mail.Recipient{{Path: rcpt}},
			}}
			rec := queue.Record{State: queue.Pending, Destination: "example.com", Attempts: 1, Next: now.Add(5 * time.Minute)}
			if err := s.Commit(ctx, queue.Batch{Add: []queue.Add{{Entry: e, Records: []queue.Record{rec}}}}); err != nil {
				b.Fatal(err)
			}
			leases, _, err := s.Claim(ctx, queue.Claim{Now: time.Now(), Max: 1})
			if err != nil || len(leases) != 1 {
				b.Fatal(leases, err)
			}
			l := leases[0]
			l.Records[0].State = queue.Delivered
			if err := s.Commit(ctx, queue.Batch{Results: []queue.Result{{ID: l.Entry.ID, Recipient: l.Recipients[0], Record: l.Records[0]}}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64((cpu()-start).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkOpen is a restart with many small entries.
func BenchmarkOpen(b *testing.B) {
	const n = 100_000
	dir := b.TempDir()
	sp, err := spool.Open(spool.Options{Dir: filepath.Join(dir, "spool")})
	if err != nil {
		b.Fatal(err)
	}
	o := Options{Dir: filepath.Join(dir, "queue"), Content: sp, FS: fast{}}
	s, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	var ids queue.IDs
	body := string(bytes.Repeat([]byte("x"), 1000))
	for i := 0; i < n; i += 100 {
		var batch queue.Batch
		for k := range 100 {
			e, recs := testEntry(ids.New(time.Now()), body, fmt.Sprintf("u@d%d.example", (i+k)%1000))
			recs[0].Attempts = 3
			batch.Add = append(batch.Add, queue.Add{Entry: e, Records: recs})
		}
		if err := s.Commit(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	var with, without runtime.MemStats
	b.ResetTimer()
	for b.Loop() {
		if s, err = Open(o); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&with)
		if len(s.x.ids) != n {
			b.Fatal(len(s.x.ids))
		}
		s.Close()
		s = nil
		runtime.GC()
		runtime.ReadMemStats(&without)
		b.StartTimer()
	}
	b.ReportMetric((float64(with.HeapAlloc)-float64(without.HeapAlloc))/n, "heap-B/entry")
}
