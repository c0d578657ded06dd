package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Create makes an empty disk.
func (s *Store) Create(want NewDisk) (Disk, error) {
	return s.create(want, func(path string) error { return makeSparse(path, want.CapacityMiB*MiB) })
}

// CreateFromSnapshot makes a disk that holds what a snapshot holds; it is as
// large as the snapshot, or larger when the caller asks for that.
func (s *Store) CreateFromSnapshot(disk, snapshot string, want NewDisk) (Disk, error) {
	defer s.turn(disk)()
	from, err := s.Disk(disk)
	if err != nil {
		return Disk{}, err
	}
	source, ok := from.Snapshot(snapshot)
	if !ok {
		return Disk{}, refuse(NotFound, "snapshot "+snapshot, "disk %s has no such snapshot", disk)
	}
	if want.CapacityMiB == 0 {
		want.CapacityMiB = source.CapacityMiB
	}
	if want.CapacityMiB < source.CapacityMiB {
		return Disk{}, refuse(InvalidArgument, "capacityInMb", "the snapshot has %d MiB", source.CapacityMiB)
	}
	if want.Datastore == "" {
		want.Datastore = from.Datastore
	}
	return s.create(want, func(path string) error {
		if err := copySparse(s.SnapshotPath(disk, snapshot), path); err != nil {
			return err
		}
		return os.Truncate(path, want.CapacityMiB*MiB)
	})
}

func (s *Store) create(want NewDisk, fill func(path string) error) (Disk, error) {
	if want.CapacityMiB <= 0 {
		return Disk{}, refuse(InvalidArgument, "capacityInMB", "a disk of %d MiB cannot be", want.CapacityMiB)
	}
	id := newID()
	disk := &Disk{
		ID: id, Name: want.Name, CreateTime: now(), CapacityMiB: want.CapacityMiB,
		Datastore: want.Datastore, FilePath: filePath(want.DatastoreName, id),
		BackingObjectID: newID(), Provisioning: want.Provisioning, KeepAfterDeleteVM: want.Keep,
		Metadata: want.Metadata, Snapshots: []Snapshot{}, Volume: want.Volume,
	}
	if disk.Provisioning == "" {
		disk.Provisioning = "thin"
	}
	disk.Track(s.TracksNewDisks())
	// Built under a name that load clears away, so that a crash leaves no half a disk.
	building, err := os.MkdirTemp(s.dir, ".new-*")
	if err != nil {
		return Disk{}, err
	}
	defer os.RemoveAll(building)
	if err := errors.Join(
		os.Chmod(building, 0o755),
		os.Mkdir(filepath.Join(building, "snapshots"), 0o755),
		fill(filepath.Join(building, "disk.raw")),
	); err != nil {
		return Disk{}, err
	}
	if err := s.publish(disk, building); err != nil {
		return Disk{}, err
	}
	s.onChange(id)
	return disk.copy(), nil
}

func (s *Store) publish(disk *Disk, building string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Rename(building, filepath.Join(s.dir, disk.ID)); err != nil {
		return err
	}
	if err := s.save(disk); err != nil {
		return err
	}
	s.disks[disk.ID] = disk
	return nil
}

// Delete removes a disk that nobody uses and that has no snapshots.
func (s *Store) Delete(id string) error {
	defer s.turn(id)()
	disk, err := s.Disk(id)
	if err != nil {
		return err
	}
	if disk.Attached != nil {
		return refuse(InvalidState, "disk "+id, "it is attached to %s", disk.Attached.VM)
	}
	if len(disk.Snapshots) > 0 {
		return refuse(InvalidState, "disk "+id, "it has %d snapshots", len(disk.Snapshots))
	}
	return s.drop(id)
}

// Erase removes a disk whatever its state, as when someone deletes its files.
func (s *Store) Erase(id string) error {
	defer s.turn(id)()
	return s.drop(id)
}

func (s *Store) drop(id string) error {
	s.mu.Lock()
	if _, ok := s.disks[id]; !ok {
		s.mu.Unlock()
		return refuse(NotFound, "disk "+id, "there is no such disk")
	}
	gone := filepath.Join(s.dir, ".gone-"+id)
	err := os.Rename(filepath.Join(s.dir, id), gone)
	if err == nil {
		delete(s.disks, id)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.onChange(id)
	return os.RemoveAll(gone)
}

// TakeSnapshot keeps what a disk holds now.
func (s *Store) TakeSnapshot(id string, want NewSnapshot) (Snapshot, error) {
	defer s.turn(id)()
	disk, err := s.Disk(id)
	if err != nil {
		return Snapshot{}, err
	}
	if len(disk.Snapshots) >= MaxSnapshots {
		return Snapshot{}, refuse(InvalidState, "disk "+id, "it has %d snapshots, and more cannot be", MaxSnapshots)
	}
	if want.ID == "" {
		want.ID = newID()
	}
	if !validID.MatchString(want.ID) {
		return Snapshot{}, refuse(InvalidArgument, "snapshotId", "%q is no id", want.ID)
	}
	if _, taken := disk.Snapshot(want.ID); taken {
		return Snapshot{}, refuse(AlreadyExists, "snapshot "+want.ID, "the disk has it already")
	}
	taken := Snapshot{
		ID: want.ID, Description: want.Description, BackingObjectID: newID(),
		CreateTime: now(), CapacityMiB: disk.CapacityMiB,
	}
	if err := copySparse(s.DiskPath(id), s.SnapshotPath(id, taken.ID)); err != nil {
		return Snapshot{}, err
	}
	var held []grain
	tracked := disk.Tracking != nil
	if tracked {
		// What the copy holds, not the disk: that may be written to at this moment.
		if held, err = scan(s.SnapshotPath(id, taken.ID)); err != nil {
			return Snapshot{}, err
		}
	}
	err = s.Change(id, func(disk *Disk) (err error) {
		if tracked && disk.Tracking != nil {
			taken.ChangeID, err = s.mark(disk, held)
		}
		disk.Snapshots = append(disk.Snapshots, taken)
		return err
	})
	return taken, err
}

// DeleteSnapshot removes a snapshot and its content.
func (s *Store) DeleteSnapshot(id, snapshot string) error {
	defer s.turn(id)()
	if err := s.Change(id, func(disk *Disk) error {
		i := disk.snapshotIndex(snapshot)
		if i < 0 {
			return refuse(NotFound, "snapshot "+snapshot, "disk %s has no such snapshot", id)
		}
		disk.Snapshots = append(disk.Snapshots[:i], disk.Snapshots[i+1:]...)
		return nil
	}); err != nil {
		return err
	}
	err := os.Remove(s.SnapshotPath(id, snapshot))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Extend makes a disk larger; its new end reads as zeroes.
func (s *Store) Extend(id string, capacityMiB int64) error {
	defer s.turn(id)()
	return s.Change(id, func(disk *Disk) error {
		switch {
		case capacityMiB < disk.CapacityMiB:
			return refuse(InvalidArgument, "newCapacityInMB", "the disk has %d MiB already", disk.CapacityMiB)
		case len(disk.Snapshots) > 0:
			return refuse(InvalidState, "disk "+id, "a disk with snapshots cannot grow")
		}
		if err := os.Truncate(s.DiskPath(id), capacityMiB*MiB); err != nil {
			return err
		}
		disk.CapacityMiB = capacityMiB
		disk.ResetTracking()
		return nil
	})
}

// Revert puts back what a snapshot holds, and drops all newer snapshots.
func (s *Store) Revert(id, snapshot string) error {
	defer s.turn(id)()
	disk, err := s.Disk(id)
	if err != nil {
		return err
	}
	i := disk.snapshotIndex(snapshot)
	if i < 0 {
		return refuse(NotFound, "snapshot "+snapshot, "disk %s has no such snapshot", id)
	}
	if disk.Attached != nil {
		return refuse(InvalidState, "disk "+id, "it is attached to %s", disk.Attached.VM)
	}
	if err := copySparse(s.SnapshotPath(id, snapshot), s.DiskPath(id)); err != nil {
		return err
	}
	newer := disk.Snapshots[i+1:]
	if err := s.Change(id, func(disk *Disk) error {
		disk.CapacityMiB = disk.Snapshots[i].CapacityMiB
		disk.Snapshots = disk.Snapshots[:i+1]
		disk.ResetTracking()
		return nil
	}); err != nil {
		return err
	}
	for _, gone := range newer {
		err = errors.Join(err, os.Remove(s.SnapshotPath(id, gone.ID)))
	}
	return err
}
