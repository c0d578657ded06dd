// Package store keeps first-class disks as files, so that anyone can look at
// what a backup should contain.
//
// One folder per disk:
//
//	DIR/<disk>/disk.raw             what the disk holds now (sparse; its size is the capacity in bytes)
//	DIR/<disk>/disk.json            everything else that is known of it ([Disk])
//	DIR/<disk>/snapshots/<id>.raw   what it held when the snapshot was taken
//	DIR/<disk>/changes/             what it held when it gave a change id: a checksum for each 64 KiB that was not hole
//
// The store is what a restart of the double keeps. It knows nothing of SOAP,
// sessions or tasks: it refuses with a [Refusal], and its callers choose the
// words of the protocol for that.
//
//	disks, err := store.Open(dir)
//	disk, err := disks.Create(store.NewDisk{Name: "pvc-1", CapacityMiB: 64, Datastore: "datastore-39"})
//	snapshot, err := disks.TakeSnapshot(disk.ID, store.NewSnapshot{Description: "before the upgrade"})
package store
