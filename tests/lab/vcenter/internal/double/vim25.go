package double

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// vimDisks answers for vim25's VcenterVStorageObjectManager.
type vimDisks struct {
	unlocked
	mo.VcenterVStorageObjectManager
	d *Double
}

// serveVim25 puts vimDisks in front of the simulator's own object. That one
// stays registered, because the simulator reaches for it by its Go type.
func (d *Double) serveVim25() {
	registry := d.model.Map()
	stock := registry.VStorageObjectManager()
	ours := &vimDisks{VcenterVStorageObjectManager: stock.VcenterVStorageObjectManager, d: d}
	registry.Handler = func(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
		if method.This == stock.Self && ctx.Session != nil {
			ctx.Session.Registry.Put(ours) // what a session has comes before what all share
		}
		return nil, nil
	}
}

func (m *vimDisks) ListVStorageObject(_ *simulator.Context, request *types.ListVStorageObject) soap.HasFault {
	response := new(types.ListVStorageObjectResponse)
	for _, disk := range m.d.Disks.Disks() {
		if disk.Datastore == request.Datastore.Value {
			response.Returnval = append(response.Returnval, types.ID{Id: disk.ID})
		}
	}
	return &methods.ListVStorageObjectBody{Res: response}
}

func (m *vimDisks) RetrieveVStorageObject(_ *simulator.Context, request *types.RetrieveVStorageObject) soap.HasFault {
	disk, err := m.at(request.Id, request.Datastore)
	if err != nil {
		return &methods.RetrieveVStorageObjectBody{Fault_: soapFault(err)}
	}
	return &methods.RetrieveVStorageObjectBody{Res: &types.RetrieveVStorageObjectResponse{Returnval: storageObject(disk)}}
}

func (m *vimDisks) at(id types.ID, datastore types.ManagedObjectReference) (store.Disk, error) {
	if err := m.d.onDatastore(id, datastore); err != nil {
		return store.Disk{}, err
	}
	return m.d.Disks.Disk(id.Id)
}

// there has work start by looking whether the disk is where the caller says.
func (m *vimDisks) there(id types.ID, datastore types.ManagedObjectReference, do work) work {
	return func() (types.AnyType, error) {
		if err := m.d.onDatastore(id, datastore); err != nil {
			return nil, err
		}
		return do()
	}
}

func (m *vimDisks) CreateDiskTask(ctx *simulator.Context, request *types.CreateDisk_Task) soap.HasFault {
	task := m.d.run(ctx, "CreateDisk_Task", []string{request.Spec.Name}, m.d.createDisk(request.Spec))
	return &methods.CreateDisk_TaskBody{Res: &types.CreateDisk_TaskResponse{Returnval: task}}
}

func (m *vimDisks) DeleteVStorageObjectTask(ctx *simulator.Context, request *types.DeleteVStorageObject_Task) soap.HasFault {
	do := m.there(request.Id, request.Datastore, nothing(func() error { return m.d.Disks.Delete(request.Id.Id) }))
	task := m.d.run(ctx, "DeleteVStorageObject_Task", []string{request.Id.Id}, do)
	return &methods.DeleteVStorageObject_TaskBody{Res: &types.DeleteVStorageObject_TaskResponse{Returnval: task}}
}

func (m *vimDisks) ExtendDiskTask(ctx *simulator.Context, request *types.ExtendDisk_Task) soap.HasFault {
	do := m.there(request.Id, request.Datastore, nothing(func() error {
		return m.d.Disks.Extend(request.Id.Id, request.NewCapacityInMB)
	}))
	task := m.d.run(ctx, "ExtendDisk_Task", []string{request.Id.Id}, do)
	return &methods.ExtendDisk_TaskBody{Res: &types.ExtendDisk_TaskResponse{Returnval: task}}
}

func (m *vimDisks) VStorageObjectCreateSnapshotTask(ctx *simulator.Context, request *types.VStorageObjectCreateSnapshot_Task) soap.HasFault {
	do := m.there(request.Id, request.Datastore, m.d.takeSnapshot(request.Id, request.Description))
	task := m.d.run(ctx, "VStorageObjectCreateSnapshot_Task", []string{request.Id.Id}, do)
	return &methods.VStorageObjectCreateSnapshot_TaskBody{Res: &types.VStorageObjectCreateSnapshot_TaskResponse{Returnval: task}}
}

func (m *vimDisks) DeleteSnapshotTask(ctx *simulator.Context, request *types.DeleteSnapshot_Task) soap.HasFault {
	do := m.there(request.Id, request.Datastore, nothing(func() error {
		return m.d.Disks.DeleteSnapshot(request.Id.Id, request.SnapshotId.Id)
	}))
	task := m.d.run(ctx, "DeleteSnapshot_Task", []string{request.Id.Id}, do)
	return &methods.DeleteSnapshot_TaskBody{Res: &types.DeleteSnapshot_TaskResponse{Returnval: task}}
}

func (m *vimDisks) RevertVStorageObjectTask(ctx *simulator.Context, request *types.RevertVStorageObject_Task) soap.HasFault {
	do := m.there(request.Id, request.Datastore, nothing(func() error {
		return m.d.Disks.Revert(request.Id.Id, request.SnapshotId.Id)
	}))
	task := m.d.run(ctx, "RevertVStorageObject_Task", []string{request.Id.Id}, do)
	return &methods.RevertVStorageObject_TaskBody{Res: &types.RevertVStorageObject_TaskResponse{Returnval: task}}
}

func (m *vimDisks) CreateDiskFromSnapshotTask(ctx *simulator.Context, request *types.CreateDiskFromSnapshot_Task) soap.HasFault {
	do := m.there(request.Id, request.Datastore, m.d.diskFromSnapshot(request.Id, request.SnapshotId, request.Name))
	task := m.d.run(ctx, "CreateDiskFromSnapshot_Task", []string{request.Id.Id}, do)
	return &methods.CreateDiskFromSnapshot_TaskBody{Res: &types.CreateDiskFromSnapshot_TaskResponse{Returnval: task}}
}

func (m *vimDisks) RetrieveSnapshotInfo(_ *simulator.Context, request *types.RetrieveSnapshotInfo) soap.HasFault {
	disk, err := m.at(request.Id, request.Datastore)
	if err != nil {
		return &methods.RetrieveSnapshotInfoBody{Fault_: soapFault(err)}
	}
	return &methods.RetrieveSnapshotInfoBody{Res: &types.RetrieveSnapshotInfoResponse{Returnval: snapshotInfo(disk)}}
}

func (m *vimDisks) RetrieveSnapshotDetails(_ *simulator.Context, request *types.RetrieveSnapshotDetails) soap.HasFault {
	if err := m.d.onDatastore(request.Id, request.Datastore); err != nil {
		return &methods.RetrieveSnapshotDetailsBody{Fault_: soapFault(err)}
	}
	details, err := m.d.snapshotDetails(request.Id, request.SnapshotId)
	if err != nil {
		return &methods.RetrieveSnapshotDetailsBody{Fault_: soapFault(err)}
	}
	return &methods.RetrieveSnapshotDetailsBody{Res: &types.RetrieveSnapshotDetailsResponse{Returnval: details}}
}

func (m *vimDisks) SetVStorageObjectControlFlags(_ *simulator.Context, request *types.SetVStorageObjectControlFlags) soap.HasFault {
	if err := m.d.setFlags(request.Id, request.ControlFlags, true); err != nil {
		return &methods.SetVStorageObjectControlFlagsBody{Fault_: soapFault(err)}
	}
	return &methods.SetVStorageObjectControlFlagsBody{Res: new(types.SetVStorageObjectControlFlagsResponse)}
}

func (m *vimDisks) ClearVStorageObjectControlFlags(_ *simulator.Context, request *types.ClearVStorageObjectControlFlags) soap.HasFault {
	if err := m.d.setFlags(request.Id, request.ControlFlags, false); err != nil {
		return &methods.ClearVStorageObjectControlFlagsBody{Fault_: soapFault(err)}
	}
	return &methods.ClearVStorageObjectControlFlagsBody{Res: new(types.ClearVStorageObjectControlFlagsResponse)}
}

func (m *vimDisks) VCenterUpdateVStorageObjectMetadataExTask(ctx *simulator.Context, request *types.VCenterUpdateVStorageObjectMetadataEx_Task) soap.HasFault {
	do := m.there(request.Id, request.Datastore, nothing(func() error {
		return m.d.updateMetadata(request.Id, request.Metadata, request.DeleteKeys)
	}))
	task := m.d.run(ctx, "VCenterUpdateVStorageObjectMetadataEx_Task", []string{request.Id.Id}, do)
	return &methods.VCenterUpdateVStorageObjectMetadataEx_TaskBody{
		Res: &types.VCenterUpdateVStorageObjectMetadataEx_TaskResponse{Returnval: task},
	}
}
