//go:build !linux

package disk

import "os"

func datasync(f *os.File) error { return f.Sync() }

// space knows nothing here: a file system without limits.
func space(string) (Space, error) { return Space{}, nil }

func check(string) (Kind, error) { return Durable, nil }
