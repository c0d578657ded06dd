package double

import (
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// What vim25 and VSLM both offer, apart from the shape of requests and answers.

func (d *Double) createDisk(spec types.VslmCreateSpec) work {
	return func() (types.AnyType, error) {
		backing, ok := spec.BackingSpec.(*types.VslmCreateSpecDiskFileBackingSpec)
		if !ok {
			return nil, &store.Refusal{Kind: store.InvalidArgument, Subject: "spec.backingSpec", Why: "only files can back a disk here"}
		}
		datastore, err := d.datastore(&backing.Datastore)
		if err != nil {
			return nil, err
		}
		disk, err := d.Disks.Create(store.NewDisk{
			Name: spec.Name, CapacityMiB: spec.CapacityInMB, Datastore: datastore.Self.Value, DatastoreName: datastore.Name,
			Provisioning: backing.ProvisioningType, Keep: isTrue(spec.KeepAfterDeleteVm), Metadata: metadataFrom(spec.Metadata),
		})
		if err != nil {
			return nil, err
		}
		return storageObject(disk), nil
	}
}

func (d *Double) diskFromSnapshot(disk, snapshot types.ID, name string) work {
	return func() (types.AnyType, error) {
		from, err := d.Disks.Disk(disk.Id)
		if err != nil {
			return nil, err
		}
		place := datastoreRef(from.Datastore)
		datastore, err := d.datastore(&place)
		if err != nil {
			return nil, err
		}
		made, err := d.Disks.CreateFromSnapshot(disk.Id, snapshot.Id, store.NewDisk{
			Name: name, DatastoreName: datastore.Name, Provisioning: from.Provisioning, Keep: true,
		})
		if err != nil {
			return nil, err
		}
		return storageObject(made), nil
	}
}

func (d *Double) takeSnapshot(disk types.ID, description string) work {
	return func() (types.AnyType, error) {
		taken, err := d.Disks.TakeSnapshot(disk.Id, store.NewSnapshot{Description: description})
		if err != nil {
			return nil, err
		}
		return types.ID{Id: taken.ID}, nil
	}
}

// nothing makes work of an operation that has no result.
func nothing(do func() error) work {
	return func() (types.AnyType, error) { return nil, do() }
}

func (d *Double) snapshotDetails(disk, snapshot types.ID) (types.VStorageObjectSnapshotDetails, error) {
	found, err := d.Disks.Disk(disk.Id)
	if err != nil {
		return types.VStorageObjectSnapshotDetails{}, err
	}
	taken, ok := found.Snapshot(snapshot.Id)
	if !ok {
		return types.VStorageObjectSnapshotDetails{}, &store.Refusal{
			Kind: store.InvalidArgument, Subject: "snapshotId", Why: "the disk has no snapshot " + snapshot.Id,
		}
	}
	return types.VStorageObjectSnapshotDetails{
		Path:                   strings.TrimSuffix(found.FilePath, ".vmdk") + "-" + taken.ID + ".vmdk",
		ChangedBlockTrackingId: taken.ChangeID,
	}, nil
}

// setFlags switches control flags of a disk on or off; naming none means all.
func (d *Double) setFlags(disk types.ID, flags []string, on bool) error {
	if len(flags) == 0 {
		flags = types.VslmVStorageObjectControlFlag("").Strings()
	}
	return d.Disks.Change(disk.Id, func(disk *store.Disk) error {
		for _, flag := range flags {
			switch types.VslmVStorageObjectControlFlag(flag) {
			case types.VslmVStorageObjectControlFlagKeepAfterDeleteVm:
				disk.KeepAfterDeleteVM = on
			case types.VslmVStorageObjectControlFlagDisableRelocation:
				disk.NoRelocation = on
			case types.VslmVStorageObjectControlFlagEnableChangedBlockTracking:
				if disk.Attached != nil {
					return &store.Refusal{Kind: store.InvalidState, Subject: "disk " + disk.ID, Why: "it is attached to " + disk.Attached.VM}
				}
				disk.Track(on)
			default:
				return &store.Refusal{Kind: store.InvalidArgument, Subject: "controlFlags", Why: "there is no flag " + flag}
			}
		}
		return nil
	})
}

func (d *Double) updateMetadata(disk types.ID, set []types.KeyValue, remove []string) error {
	return d.Disks.Change(disk.Id, func(disk *store.Disk) error {
		if disk.Metadata == nil {
			disk.Metadata = map[string]string{}
		}
		for _, key := range remove {
			delete(disk.Metadata, key)
		}
		for _, pair := range set {
			disk.Metadata[pair.Key] = pair.Value
		}
		return nil
	})
}

func (d *Double) metadata(disk types.ID, prefix string) ([]types.KeyValue, error) {
	found, err := d.Disks.Disk(disk.Id)
	if err != nil {
		return nil, err
	}
	all := keyValues(found.Metadata)
	return slices.DeleteFunc(all, func(pair types.KeyValue) bool { return !strings.HasPrefix(pair.Key, prefix) }), nil
}

func metadataFrom(pairs []types.KeyValue) map[string]string {
	metadata := map[string]string{}
	for _, pair := range pairs {
		metadata[pair.Key] = pair.Value
	}
	return metadata
}

func isTrue(flag *bool) bool { return flag != nil && *flag }
