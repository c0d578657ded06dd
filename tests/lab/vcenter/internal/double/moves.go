package double

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	vim "github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vslm/methods"
	"github.com/vmware/govmomi/vslm/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

func (m *vslmDisks) VslmRelocateVStorageObjectTask(ctx *simulator.Context, request *types.VslmRelocateVStorageObject_Task) soap.HasFault {
	do := nothing(func() error {
		to, err := m.d.placeOf(request.Spec.VslmMigrateSpec)
		if err != nil {
			return err
		}
		return m.d.Disks.Relocate(request.Id.Id, store.Move{Datastore: to.Self.Value, DatastoreName: to.Name})
	})
	task := m.d.runVSLM(ctx, "VslmRelocateVStorageObject_Task", request.Id.Id, do)
	return &methods.VslmRelocateVStorageObject_TaskBody{Res: &types.VslmRelocateVStorageObject_TaskResponse{Returnval: task}}
}

func (m *vslmDisks) VslmCloneVStorageObjectTask(ctx *simulator.Context, request *types.VslmCloneVStorageObject_Task) soap.HasFault {
	do := func() (vim.AnyType, error) {
		to, err := m.d.placeOf(request.Spec.VslmMigrateSpec)
		if err != nil {
			return nil, err
		}
		made, err := m.d.Disks.Clone(request.Id.Id, store.NewDisk{
			Name: request.Spec.Name, Datastore: to.Self.Value, DatastoreName: to.Name,
			Keep: isTrue(request.Spec.KeepAfterDeleteVm), Metadata: metadataFrom(request.Spec.Metadata),
		})
		if err != nil {
			return nil, err
		}
		return storageObject(made), nil
	}
	task := m.d.runVSLM(ctx, "VslmCloneVStorageObject_Task", request.Id.Id, do)
	return &methods.VslmCloneVStorageObject_TaskBody{Res: &types.VslmCloneVStorageObject_TaskResponse{Returnval: task}}
}

// placeOf is the datastore that a disk is to go to.
func (d *Double) placeOf(spec vim.VslmMigrateSpec) (*simulator.Datastore, error) {
	backing, ok := spec.BackingSpec.(*vim.VslmCreateSpecDiskFileBackingSpec)
	if !ok {
		return nil, &store.Refusal{Kind: store.InvalidArgument, Subject: "spec.backingSpec", Why: "only files can back a disk here"}
	}
	return d.datastore(&backing.Datastore)
}

// Relocate moves a disk as the storage migration of its virtual machine does,
// to a datastore that is given by name or reference, or to any other one.
func (d *Double) Relocate(disk, datastore string, keepChangeIDs bool) error {
	found, err := d.Disks.Disk(disk)
	if err != nil {
		return err
	}
	for _, entity := range d.model.Map().All("Datastore") {
		to := entity.(*simulator.Datastore)
		named := datastore == to.Name || datastore == to.Self.Value
		if named || (datastore == "" && to.Self.Value != found.Datastore) {
			return d.Disks.Relocate(disk, store.Move{
				Datastore: to.Self.Value, DatastoreName: to.Name, Quiet: true, KeepChangeIDs: keepChangeIDs,
			})
		}
	}
	return &store.Refusal{Kind: store.NotFound, Subject: "datastore " + datastore, Why: "there is no such datastore"}
}
