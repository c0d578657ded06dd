package double

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	vim "github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vslm/methods"
	"github.com/vmware/govmomi/vslm/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

func (m *vslmDisks) VslmRetrieveVStorageObject(_ *simulator.Context, request *types.VslmRetrieveVStorageObject) soap.HasFault {
	disk, err := m.d.Disks.Disk(request.Id.Id)
	if err != nil {
		return &methods.VslmRetrieveVStorageObjectBody{Fault_: soapFault(err)}
	}
	return &methods.VslmRetrieveVStorageObjectBody{Res: &types.VslmRetrieveVStorageObjectResponse{Returnval: storageObject(disk)}}
}

func (m *vslmDisks) VslmRetrieveVStorageObjects(_ *simulator.Context, request *types.VslmRetrieveVStorageObjects) soap.HasFault {
	response := new(types.VslmRetrieveVStorageObjectsResponse)
	for _, id := range request.Ids {
		response.Returnval = append(response.Returnval, m.summary(id))
	}
	return &methods.VslmRetrieveVStorageObjectsBody{Res: response}
}

func (m *vslmDisks) summary(id vim.ID) types.VslmVsoVStorageObjectResult {
	disk, err := m.d.Disks.Disk(id.Id)
	if err != nil {
		return types.VslmVsoVStorageObjectResult{Id: id, Error: localized(err)}
	}
	summary := types.VslmVsoVStorageObjectResult{
		Id: id, Name: disk.Name, CapacityInMB: disk.CapacityMiB, CreateTime: &disk.CreateTime,
		DatastoreUrl: m.d.datastoreURL(disk.Datastore), DiskPath: disk.FilePath,
		BackingObjectId: &vim.ID{Id: disk.BackingObjectID}, Metadata: keyValues(disk.Metadata),
	}
	for _, snapshot := range disk.Snapshots {
		summary.SnapshotInfo = append(summary.SnapshotInfo, types.VslmVsoVStorageObjectSnapshotResult{
			BackingObjectId: vim.ID{Id: snapshot.BackingObjectID}, Description: snapshot.Description,
			SnapshotId: &vim.ID{Id: snapshot.ID},
		})
	}
	return summary
}

func (m *vslmDisks) VslmRetrieveVStorageObjectState(_ *simulator.Context, request *types.VslmRetrieveVStorageObjectState) soap.HasFault {
	if _, err := m.d.Disks.Disk(request.Id.Id); err != nil {
		return &methods.VslmRetrieveVStorageObjectStateBody{Fault_: soapFault(err)}
	}
	state := vim.VStorageObjectStateInfo{Tentative: vim.NewBool(false)}
	return &methods.VslmRetrieveVStorageObjectStateBody{Res: &types.VslmRetrieveVStorageObjectStateResponse{Returnval: state}}
}

func (m *vslmDisks) VslmRetrieveVStorageObjectAssociations(_ *simulator.Context, request *types.VslmRetrieveVStorageObjectAssociations) soap.HasFault {
	response := new(types.VslmRetrieveVStorageObjectAssociationsResponse)
	for _, id := range request.Ids {
		found := types.VslmVsoVStorageObjectAssociations{Id: id}
		disk, err := m.d.Disks.Disk(id.Id)
		switch {
		case err != nil:
			found.Fault = localized(err)
		case disk.Attached != nil:
			found.VmDiskAssociation = []types.VslmVsoVStorageObjectAssociationsVmDiskAssociation{{VmId: disk.Attached.VM, DiskKey: 2000}}
		}
		response.Returnval = append(response.Returnval, found)
	}
	return &methods.VslmRetrieveVStorageObjectAssociationsBody{Res: response}
}

// VslmListVStorageObjectForSpec is the simulator's own, held off while its
// catalog is being changed.
func (m *vslmDisks) VslmListVStorageObjectForSpec(ctx *simulator.Context, request *types.VslmListVStorageObjectForSpec) soap.HasFault {
	m.d.catalog.Lock()
	defer m.d.catalog.Unlock()
	return m.VStorageObjectManager.VslmListVStorageObjectForSpec(ctx, request)
}

func (m *vslmDisks) VslmRetrieveSnapshotInfo(_ *simulator.Context, request *types.VslmRetrieveSnapshotInfo) soap.HasFault {
	disk, err := m.d.Disks.Disk(request.Id.Id)
	if err != nil {
		return &methods.VslmRetrieveSnapshotInfoBody{Fault_: soapFault(err)}
	}
	return &methods.VslmRetrieveSnapshotInfoBody{Res: &types.VslmRetrieveSnapshotInfoResponse{Returnval: snapshotInfo(disk)}}
}

func (m *vslmDisks) VslmRetrieveSnapshotDetails(_ *simulator.Context, request *types.VslmRetrieveSnapshotDetails) soap.HasFault {
	details, err := m.d.snapshotDetails(request.Id, request.SnapshotId)
	if err != nil {
		return &methods.VslmRetrieveSnapshotDetailsBody{Fault_: soapFault(err)}
	}
	return &methods.VslmRetrieveSnapshotDetailsBody{Res: &types.VslmRetrieveSnapshotDetailsResponse{Returnval: details}}
}

func (m *vslmDisks) VslmRetrieveVStorageObjectMetadata(_ *simulator.Context, request *types.VslmRetrieveVStorageObjectMetadata) soap.HasFault {
	pairs, err := m.d.metadata(request.Id, request.Prefix)
	if err != nil {
		return &methods.VslmRetrieveVStorageObjectMetadataBody{Fault_: soapFault(err)}
	}
	return &methods.VslmRetrieveVStorageObjectMetadataBody{Res: &types.VslmRetrieveVStorageObjectMetadataResponse{Returnval: pairs}}
}

func (m *vslmDisks) VslmRetrieveVStorageObjectMetadataValue(_ *simulator.Context, request *types.VslmRetrieveVStorageObjectMetadataValue) soap.HasFault {
	disk, err := m.d.Disks.Disk(request.Id.Id)
	if err != nil {
		return &methods.VslmRetrieveVStorageObjectMetadataValueBody{Fault_: soapFault(err)}
	}
	value, ok := disk.Metadata[request.Key]
	if !ok {
		fault := simulator.Fault("no such key", &vim.KeyNotFound{Key: request.Key})
		return &methods.VslmRetrieveVStorageObjectMetadataValueBody{Fault_: fault}
	}
	return &methods.VslmRetrieveVStorageObjectMetadataValueBody{Res: &types.VslmRetrieveVStorageObjectMetadataValueResponse{Returnval: value}}
}

// lifecycle answers for VSLM's StorageLifecycleManager.
type lifecycle struct {
	unlocked
	vim.ManagedObjectReference
	d *Double
}

// VslmSyncDatastore has nothing to bring in step; it refuses what is not there.
func (l *lifecycle) VslmSyncDatastore(_ *simulator.Context, request *types.VslmSyncDatastore) soap.HasFault {
	err := l.known(request.DatastoreUrl)
	if err == nil && request.FcdId != nil {
		_, err = l.d.Disks.Disk(request.FcdId.Id)
	}
	if err != nil {
		return &methods.VslmSyncDatastoreBody{Fault_: soapFault(err)}
	}
	return &methods.VslmSyncDatastoreBody{Res: new(types.VslmSyncDatastoreResponse)}
}

func (l *lifecycle) VslmQueryDatastoreInfo(_ *simulator.Context, request *types.VslmQueryDatastoreInfo) soap.HasFault {
	response := new(types.VslmQueryDatastoreInfoResponse)
	for _, entity := range l.d.model.Map().All("Datastore") {
		datastore := entity.(*simulator.Datastore)
		if datastore.Info.GetDatastoreInfo().Url == request.DatastoreUrl {
			response.Returnval = append(response.Returnval, types.VslmQueryDatastoreInfoResult{
				Datacenter: l.d.model.Map().Any("Datacenter").Reference(), Datastore: datastore.Self,
			})
		}
	}
	if len(response.Returnval) == 0 {
		return &methods.VslmQueryDatastoreInfoBody{Fault_: soapFault(l.known(request.DatastoreUrl))}
	}
	return &methods.VslmQueryDatastoreInfoBody{Res: response}
}

func (l *lifecycle) known(url string) error {
	for _, entity := range l.d.model.Map().All("Datastore") {
		if entity.(*simulator.Datastore).Info.GetDatastoreInfo().Url == url {
			return nil
		}
	}
	return &store.Refusal{Kind: store.NotFound, Subject: "datastore " + url, Why: "there is no such datastore"}
}
