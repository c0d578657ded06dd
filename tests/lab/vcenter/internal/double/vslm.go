package double

import (
	"github.com/vmware/govmomi/simulator"
	vim "github.com/vmware/govmomi/vim25/types"

	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vslm"
	"github.com/vmware/govmomi/vslm/methods"
	vslmsim "github.com/vmware/govmomi/vslm/simulator"
	"github.com/vmware/govmomi/vslm/types"
)

// vslmDisks answers for VSLM's VStorageObjectManager: its tasks here, what
// only reads in vslm_read.go. Tags and the like are the simulator's.
type vslmDisks struct {
	unlocked
	*vslmsim.VStorageObjectManager
	d *Double
}

// serveVSLM registers the simulator's endpoint, and ours over parts of it.
func (d *Double) serveVSLM() {
	registry := vslmsim.New()
	content := registry.Get(vslm.ServiceInstance).(*vslmsim.ServiceInstance).Content
	stock := registry.Get(content.VStorageObjectManager).(*vslmsim.VStorageObjectManager)
	registry.Put(&vslmDisks{VStorageObjectManager: stock, d: d})
	registry.Put(&lifecycle{ManagedObjectReference: content.StorageLifecycleManager, d: d})
	d.service.RegisterSDK(registry)
}

func (m *vslmDisks) VslmCreateDiskTask(ctx *simulator.Context, request *types.VslmCreateDisk_Task) soap.HasFault {
	task := m.d.runVSLM(ctx, "VslmCreateDisk_Task", request.Spec.Name, m.d.createDisk(request.Spec))
	return &methods.VslmCreateDisk_TaskBody{Res: &types.VslmCreateDisk_TaskResponse{Returnval: task}}
}

func (m *vslmDisks) VslmDeleteVStorageObjectTask(ctx *simulator.Context, request *types.VslmDeleteVStorageObject_Task) soap.HasFault {
	do := nothing(func() error { return m.d.Disks.Delete(request.Id.Id) })
	task := m.d.runVSLM(ctx, "VslmDeleteVStorageObject_Task", request.Id.Id, do)
	return &methods.VslmDeleteVStorageObject_TaskBody{Res: &types.VslmDeleteVStorageObject_TaskResponse{Returnval: task}}
}

func (m *vslmDisks) VslmExtendDiskTask(ctx *simulator.Context, request *types.VslmExtendDisk_Task) soap.HasFault {
	do := nothing(func() error { return m.d.Disks.Extend(request.Id.Id, request.NewCapacityInMB) })
	task := m.d.runVSLM(ctx, "VslmExtendDisk_Task", request.Id.Id, do)
	return &methods.VslmExtendDisk_TaskBody{Res: &types.VslmExtendDisk_TaskResponse{Returnval: task}}
}

func (m *vslmDisks) VslmCreateSnapshotTask(ctx *simulator.Context, request *types.VslmCreateSnapshot_Task) soap.HasFault {
	do := m.d.takeSnapshot(request.Id, request.Description)
	task := m.d.runVSLM(ctx, "VslmCreateSnapshot_Task", request.Id.Id, do)
	return &methods.VslmCreateSnapshot_TaskBody{Res: &types.VslmCreateSnapshot_TaskResponse{Returnval: task}}
}

func (m *vslmDisks) VslmDeleteSnapshotTask(ctx *simulator.Context, request *types.VslmDeleteSnapshot_Task) soap.HasFault {
	do := nothing(func() error { return m.d.Disks.DeleteSnapshot(request.Id.Id, request.SnapshotId.Id) })
	task := m.d.runVSLM(ctx, "VslmDeleteSnapshot_Task", request.Id.Id, do)
	return &methods.VslmDeleteSnapshot_TaskBody{Res: &types.VslmDeleteSnapshot_TaskResponse{Returnval: task}}
}

func (m *vslmDisks) VslmRevertVStorageObjectTask(ctx *simulator.Context, request *types.VslmRevertVStorageObject_Task) soap.HasFault {
	do := nothing(func() error { return m.d.Disks.Revert(request.Id.Id, request.SnapshotId.Id) })
	task := m.d.runVSLM(ctx, "VslmRevertVStorageObject_Task", request.Id.Id, do)
	return &methods.VslmRevertVStorageObject_TaskBody{Res: &types.VslmRevertVStorageObject_TaskResponse{Returnval: task}}
}

func (m *vslmDisks) VslmCreateDiskFromSnapshotTask(ctx *simulator.Context, request *types.VslmCreateDiskFromSnapshot_Task) soap.HasFault {
	do := m.d.diskFromSnapshot(request.Id, request.SnapshotId, request.Name)
	task := m.d.runVSLM(ctx, "VslmCreateDiskFromSnapshot_Task", request.Id.Id, do)
	return &methods.VslmCreateDiskFromSnapshot_TaskBody{Res: &types.VslmCreateDiskFromSnapshot_TaskResponse{Returnval: task}}
}

func (m *vslmDisks) VslmUpdateVStorageObjectMetadataTask(ctx *simulator.Context, request *types.VslmUpdateVStorageObjectMetadata_Task) soap.HasFault {
	do := nothing(func() error { return m.d.updateMetadata(request.Id, request.Metadata, request.DeleteKeys) })
	task := m.d.runVSLM(ctx, "VslmUpdateVStorageObjectMetadata_Task", request.Id.Id, do)
	return &methods.VslmUpdateVStorageObjectMetadata_TaskBody{Res: &types.VslmUpdateVStorageObjectMetadata_TaskResponse{Returnval: task}}
}

func (m *vslmDisks) VslmAttachDiskTask(ctx *simulator.Context, request *types.VslmAttachDisk_Task) soap.HasFault {
	do := nothing(func() error { return m.d.Attach(request.Id.Id, request.Vm.Value) })
	task := m.d.runVSLM(ctx, "VslmAttachDisk_Task", request.Id.Id, do)
	return &methods.VslmAttachDisk_TaskBody{Res: &types.VslmAttachDisk_TaskResponse{Returnval: task}}
}

func (m *vslmDisks) VslmSetVStorageObjectControlFlags(_ *simulator.Context, request *types.VslmSetVStorageObjectControlFlags) soap.HasFault {
	if err := m.d.setFlags(request.Id, request.ControlFlags, true); err != nil {
		return &methods.VslmSetVStorageObjectControlFlagsBody{Fault_: soapFault(err)}
	}
	return &methods.VslmSetVStorageObjectControlFlagsBody{Res: new(types.VslmSetVStorageObjectControlFlagsResponse)}
}

func (m *vslmDisks) VslmClearVStorageObjectControlFlags(_ *simulator.Context, request *types.VslmClearVStorageObjectControlFlags) soap.HasFault {
	if err := m.d.setFlags(request.Id, request.ControlFlags, false); err != nil {
		return &methods.VslmClearVStorageObjectControlFlagsBody{Fault_: soapFault(err)}
	}
	return &methods.VslmClearVStorageObjectControlFlagsBody{Res: new(types.VslmClearVStorageObjectControlFlagsResponse)}
}

// VslmRegisterDisk hides the simulator's, which would make a disk without content.
func (m *vslmDisks) VslmRegisterDisk(*simulator.Context, *types.VslmRegisterDisk) soap.HasFault {
	return &methods.VslmRegisterDiskBody{Fault_: simulator.Fault("the double cannot register files", new(vim.NotSupported))}
}
