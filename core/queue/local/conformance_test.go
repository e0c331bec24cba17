package local

import (
	"testing"
	"time"

	"github.com/postern-mail/postern/core/queue"
	"github.com/postern-mail/postern/core/queue/queuetest"
	"github.com/postern-mail/postern/core/spool"
)

func TestConformance(t *testing.T) {
	for name, o := range map[string]Options{"Default": {}, "SmallSegments": {SegmentSize: 1024, FS: fast{}}, "NoCache": {Cache: 1, FS: fast{}}} {
		t.Run(name, func(t *testing.T) {
			queuetest.Run(t, func(t *testing.T, now func() time.Time) func() (queue.Store, error) {
				o := o
				o.Dir, o.Clock = t.TempDir()+"/queue", now
				sp, err := spool.Open(spool.Options{Dir: t.TempDir() + "/spool"})
				if err != nil {
					t.Fatal(err)
				}
				o.Content = sp
				return func() (queue.Store, error) { return Open(o) }
			})
		})
	}
}
