package store

import "fmt"

// Move says where a disk goes, and how.
type Move struct {
	Datastore     string // reference value
	DatastoreName string
	Quiet         bool // as the storage migration of a virtual machine moves its disks: also while attached, and unasked
	KeepChangeIDs bool // a move that should have reset tracking and did not
}

// Relocate puts a disk on another datastore. Its content stays where it is in
// the store; what a server says of it changes.
func (s *Store) Relocate(id string, to Move) error {
	defer s.turn(id)()
	return s.Change(id, func(disk *Disk) error {
		switch {
		case to.Datastore == disk.Datastore:
			return refuse(InvalidArgument, "datastore", "disk %s is there already", id)
		case disk.Attached != nil && !to.Quiet:
			return refuse(InvalidState, "disk "+id, "it is attached to %s", disk.Attached.VM)
		case disk.NoRelocation && !to.Quiet:
			return refuse(InvalidState, "disk "+id, "its relocation is disabled")
		}
		disk.Datastore, disk.FilePath = to.Datastore, filePath(to.DatastoreName, id)
		disk.BackingObjectID = newID()
		if !to.KeepChangeIDs {
			disk.ResetTracking()
		}
		return nil
	})
}

// Clone makes a disk that holds what another holds now.
func (s *Store) Clone(id string, want NewDisk) (Disk, error) {
	defer s.turn(id)()
	from, err := s.Disk(id)
	if err != nil {
		return Disk{}, err
	}
	if from.Attached != nil {
		return Disk{}, refuse(InvalidState, "disk "+id, "it is attached to %s", from.Attached.VM)
	}
	want.CapacityMiB = from.CapacityMiB
	return s.create(want, func(path string) error { return copySparse(s.DiskPath(id), path) })
}

func filePath(datastoreName, disk string) string {
	return fmt.Sprintf("[%s] fcd/%s.vmdk", datastoreName, disk)
}
