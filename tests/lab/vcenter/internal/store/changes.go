package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Allocated stands in place of a change id and asks for all areas that were
// ever written.
const Allocated = "*"

// keptMarks is how many points in time of one disk can be asked for.
const keptMarks = 64

// Changes are the areas in which a snapshot differs from an earlier point in
// time, in order, none touching the next.
type Changes struct {
	Capacity int64 // of the snapshot, in bytes
	Areas    []Area
}

// Changes compares a snapshot with what the disk held when it gave a change
// id. The snapshot that had the id may be gone.
func (s *Store) Changes(id, snapshot, since string) (Changes, error) {
	disk, err := s.Disk(id)
	if err != nil {
		return Changes{}, err
	}
	taken, ok := disk.Snapshot(snapshot)
	if !ok {
		return Changes{}, refuse(NotFound, "snapshot "+snapshot, "disk %s has no such snapshot", id)
	}
	if err := disk.comparable(taken, since); err != nil {
		return Changes{}, err
	}
	after, err := s.grainsOf(id, taken)
	if err != nil {
		return Changes{}, err
	}
	changes := Changes{Capacity: taken.CapacityMiB * MiB}
	if since == Allocated {
		changes.Areas = areas(written(after), changes.Capacity)
		return changes, nil
	}
	before, err := s.readMark(id, since)
	if err != nil {
		return Changes{}, refuse(ChangesUnknown, "disk "+id, "what it held at %s is lost: %s", since, err)
	}
	changes.Areas = areas(differing(before, after), changes.Capacity)
	return changes, nil
}

// comparable says why a snapshot cannot be held against a change id.
func (d *Disk) comparable(taken Snapshot, since string) error {
	asked, ok := parseChangeID(since)
	if since != Allocated && !ok {
		return refuse(InvalidArgument, "changeId", "%q has not the form of a change id", since)
	}
	if d.Tracking == nil || taken.ChangeID == "" {
		return refuse(NotTracked, "disk "+d.ID, "changes were not tracked when snapshot %s was taken, or are not now", taken.ID)
	}
	if since != Allocated && !d.gave(asked) {
		return refuse(InvalidArgument, "changeId", "disk %s never gave %q", d.ID, since)
	}
	given, _ := parseChangeID(taken.ChangeID)
	current := given.Generation == d.Tracking.Generation
	switch {
	case since == Allocated && !current:
		return refuse(NoEpoch, "disk "+d.ID, "tracking began anew after snapshot %s was taken", taken.ID)
	case since == Allocated:
		return nil
	case !current || asked.Generation != given.Generation:
		return refuse(ChangesUnknown, "disk "+d.ID, "tracking began anew after %s", since)
	case asked.Epoch > given.Epoch:
		return refuse(ChangesUnknown, "disk "+d.ID, "%s is of a time after snapshot %s", since, taken.ID)
	}
	return nil
}

// grainsOf are a snapshot's grains: as they were noted when it was taken or,
// when so much has happened since that the note is gone, from its content.
func (s *Store) grainsOf(disk string, snapshot Snapshot) ([]grain, error) {
	if noted, err := s.readMark(disk, snapshot.ChangeID); err == nil {
		return noted, nil
	}
	return scan(s.SnapshotPath(disk, snapshot.ID))
}

// A mark is a note of what a disk held when it gave a change id.
func (s *Store) markPath(disk string, at Tracking) string {
	return filepath.Join(s.dir, disk, "changes", fmt.Sprintf("%s-%d.grains", at.Generation, at.Epoch))
}

func (s *Store) readMark(disk, changeID string) ([]grain, error) {
	at, _ := parseChangeID(changeID)
	text, err := os.ReadFile(s.markPath(disk, at))
	if err != nil {
		return nil, err
	}
	return decode(text)
}

// mark has a disk give a change id, for what it holds now.
func (s *Store) mark(disk *Disk, held []grain) (changeID string, err error) {
	disk.Tracking.Epoch++
	path := s.markPath(disk.ID, *disk.Tracking)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return disk.Tracking.changeID(), errors.Join(writeFile(path, encode(held)), s.sweepMarks(disk))
}

// sweepMarks removes the marks that nobody can ask for any more.
func (s *Store) sweepMarks(disk *Disk) error {
	folder := filepath.Join(s.dir, disk.ID, "changes")
	files, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was never tracked
	}
	for _, file := range files {
		if !disk.wantsMark(file.Name()) {
			err = errors.Join(err, os.Remove(filepath.Join(folder, file.Name())))
		}
	}
	return err
}

func (d *Disk) wantsMark(file string) bool {
	generation, rest, _ := strings.Cut(file, "-")
	number, ok := strings.CutSuffix(rest, ".grains")
	epoch, err := strconv.Atoi(number)
	return ok && err == nil && d.Tracking != nil && generation == d.Tracking.Generation &&
		epoch <= d.Tracking.Epoch && epoch > d.Tracking.Epoch-keptMarks
}
