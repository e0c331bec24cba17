package disk

import (
	"os"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	if _, err := Check(t.TempDir()); err != nil {
		t.Error(err)
	}
	if _, err := Check("/does/not/exist"); err == nil {
		t.Error("no error for a directory that is not there")
	}
	if mounts, _ := os.ReadFile("/proc/mounts"); strings.Contains(string(mounts), " /dev/shm tmpfs ") {
		if k, err := Check("/dev/shm"); k != Memory || err != nil {
			t.Errorf("/dev/shm: %s, %v", k, err)
		}
	} else {
		t.Log("no tmpfs on /dev/shm: not tried")
	}
}

func TestMountOption(t *testing.T) {
	const info = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
36 22 0:31 / /var/lib/x rw,relatime shared:5 master:2 - overlay overlay rw,lowerdir=/a:/b,upperdir=/u,workdir=/w,volatile
37 22 0:32 / /volatile rw,volatile - overlay overlay rw,lowerdir=/volatile,upperdir=/u
38 22 0:33 garbage
`
	for dev, want := range map[string]bool{"0:31": true, "0:32": false, "0:33": false, "254:0": false, "0:3": false} {
		if got := mountOption(strings.NewReader(info), dev, "volatile"); got != want {
			t.Errorf("%s: %t", dev, got)
		}
	}
}

func TestDevice(t *testing.T) {
	// Packed as makedev(3) does it: twelve bits of major, twenty of minor.
	pack := func(major, minor uint64) uint64 {
		return (major&0xfff)<<8 | (major&^0xfff)<<32 | minor&0xff | (minor&^0xff)<<12
	}
	for _, want := range [][2]uint64{{0, 31}, {254, 0}, {259, 65537}, {4095, 1<<20 - 1}, {4097, 256}} {
		if major, minor := device(pack(want[0], want[1])); major != want[0] || minor != want[1] {
			t.Errorf("%v became %d:%d", want, major, minor)
		}
	}
	if major, minor := device(0xfe01); major != 254 || minor != 1 {
		t.Errorf("%d:%d", major, minor)
	}
}
