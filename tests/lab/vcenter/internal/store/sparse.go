package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// From Linux's headers; package syscall has no names for them.
const (
	ficlone  = 0x40049409 // share the blocks of another file, where the file system can
	seekData = 3
	seekHole = 4
)

// makeSparse creates an empty file of the given size in bytes, all hole.
func makeSparse(path string, size int64) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return file.Truncate(size)
}

// copySparse copies a file without its holes, so that a large empty disk costs
// nothing. The copy appears under its name only when it is complete.
func copySparse(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()

	part := to + ".part"
	target, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, target.Close())
		if err != nil {
			_ = os.Remove(part)
		}
	}()

	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, target.Fd(), ficlone, source.Fd())
	if errno != 0 {
		if err := copyData(source, target); err != nil {
			return fmt.Errorf("copy %s: %w", from, err)
		}
	}
	return os.Rename(part, to)
}

func copyData(source, target *os.File) error {
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if err := target.Truncate(info.Size()); err != nil {
		return err
	}
	return eachData(source, info.Size(), func(start, end int64) error {
		if _, err := source.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := target.Seek(start, io.SeekStart); err != nil {
			return err
		}
		_, err := io.CopyN(target, source, end-start)
		return err
	})
}

// eachData calls a function with each part of a file that is not hole, in order.
func eachData(file *os.File, size int64, do func(start, end int64) error) error {
	for offset := int64(0); offset < size; {
		start, err := file.Seek(offset, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return nil // nothing but hole up to the end
		}
		if err != nil {
			return err
		}
		end, err := file.Seek(start, seekHole)
		if err != nil {
			return err
		}
		if err := do(start, min(end, size)); err != nil {
			return err
		}
		offset = end
	}
	return nil
}

// writeFile replaces a file's content at once: a reader, or a restart, sees
// either all of the old or all of the new.
func writeFile(path string, content []byte) error {
	part, err := os.CreateTemp(dirOf(path), ".part-*")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	if _, err := part.Write(content); err != nil {
		return errors.Join(err, part.Close())
	}
	if err := part.Chmod(0o644); err != nil {
		return errors.Join(err, part.Close())
	}
	if err := part.Close(); err != nil {
		return err
	}
	return os.Rename(part.Name(), path)
}
