package double

import (
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// mirror brings the simulator's own catalog in step with the store, for those
// of its methods that are good as they are (listing, for one).
func (d *Double) mirror(id string) {
	d.catalog.Lock()
	defer d.catalog.Unlock()
	catalog := d.model.Map().VStorageObjectManager().Catalog()
	key := types.ID{Id: id}
	for _, objects := range catalog {
		delete(objects, key)
	}
	disk, err := d.Disks.Disk(id)
	if err != nil {
		return // it is gone, and so it is from the catalog
	}
	datastore := datastoreRef(disk.Datastore)
	if catalog[datastore] == nil {
		catalog[datastore] = map[types.ID]*simulator.VStorageObject{}
	}
	catalog[datastore][key] = &simulator.VStorageObject{
		VStorageObject:             storageObject(disk),
		VStorageObjectSnapshotInfo: snapshotInfo(disk),
		Metadata:                   keyValues(disk.Metadata),
	}
}

func datastoreRef(value string) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "Datastore", Value: value}
}

// datastore finds where a new disk can go: the wanted place, or the first one.
func (d *Double) datastore(want *types.ManagedObjectReference) (*simulator.Datastore, error) {
	if want != nil {
		found, ok := d.model.Map().Get(*want).(*simulator.Datastore)
		if !ok {
			return nil, &store.Refusal{Kind: store.InvalidArgument, Subject: "datastore", Why: "there is no datastore " + want.Value}
		}
		return found, nil
	}
	all := d.model.Map().All("Datastore")
	names := make([]*simulator.Datastore, len(all))
	for i, entity := range all {
		names[i] = entity.(*simulator.Datastore)
	}
	return slices.MinFunc(names, func(a, b *simulator.Datastore) int {
		return slices.Compare([]byte(a.Name), []byte(b.Name))
	}), nil
}

func (d *Double) datastoreURL(value string) string {
	found, ok := d.model.Map().Get(datastoreRef(value)).(*simulator.Datastore)
	if !ok {
		return ""
	}
	return found.Info.GetDatastoreInfo().Url
}

// onDatastore refuses a disk that is not where the caller says it is.
func (d *Double) onDatastore(id types.ID, datastore types.ManagedObjectReference) error {
	disk, err := d.Disks.Disk(id.Id)
	if err != nil {
		return err
	}
	if disk.Datastore != datastore.Value {
		return &store.Refusal{Kind: store.NotFound, Subject: "disk " + id.Id, Why: "it is not on " + datastore.Value}
	}
	return nil
}

// storageObject is a disk in vSphere's shape.
func storageObject(disk store.Disk) types.VStorageObject {
	object := types.VStorageObject{Config: types.VStorageObjectConfigInfo{
		BaseConfigInfo: types.BaseConfigInfo{
			Id:                          types.ID{Id: disk.ID},
			Name:                        disk.Name,
			CreateTime:                  disk.CreateTime,
			KeepAfterDeleteVm:           types.NewBool(disk.KeepAfterDeleteVM),
			RelocationDisabled:          types.NewBool(disk.NoRelocation),
			NativeSnapshotSupported:     types.NewBool(false),
			ChangedBlockTrackingEnabled: types.NewBool(disk.Tracking != nil),
			Backing: &types.BaseConfigInfoDiskFileBackingInfo{
				BaseConfigInfoFileBackingInfo: types.BaseConfigInfoFileBackingInfo{
					BaseConfigInfoBackingInfo: types.BaseConfigInfoBackingInfo{Datastore: datastoreRef(disk.Datastore)},
					FilePath:                  disk.FilePath,
					BackingObjectId:           disk.BackingObjectID,
				},
				ProvisioningType: disk.Provisioning,
			},
		},
		CapacityInMB:    disk.CapacityMiB,
		ConsumptionType: []string{"disk"},
	}}
	if disk.Attached != nil {
		object.Config.ConsumerId = []types.ID{{Id: disk.Attached.Consumer}}
	}
	return object
}

func snapshotInfo(disk store.Disk) types.VStorageObjectSnapshotInfo {
	var info types.VStorageObjectSnapshotInfo
	for _, snapshot := range disk.Snapshots {
		info.Snapshots = append(info.Snapshots, types.VStorageObjectSnapshotInfoVStorageObjectSnapshot{
			Id:              &types.ID{Id: snapshot.ID},
			BackingObjectId: snapshot.BackingObjectID,
			CreateTime:      snapshot.CreateTime,
			Description:     snapshot.Description,
		})
	}
	return info
}

// keyValues lists metadata in the order of its keys.
func keyValues(metadata map[string]string) []types.KeyValue {
	var list []types.KeyValue
	for key, value := range metadata {
		list = append(list, types.KeyValue{Key: key, Value: value})
	}
	slices.SortFunc(list, func(a, b types.KeyValue) int { return slices.Compare([]byte(a.Key), []byte(b.Key)) })
	return list
}
