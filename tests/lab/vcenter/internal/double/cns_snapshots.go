package double

import (
	"github.com/vmware/govmomi/cns/methods"
	"github.com/vmware/govmomi/cns/types"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	vim "github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// snapshotPage is how many snapshots one answer holds at most.
const snapshotPage = 128

func (v *volumes) CnsCreateSnapshots(ctx *simulator.Context, request *types.CnsCreateSnapshots) soap.HasFault {
	ids := make([]string, len(request.SnapshotSpecs))
	for i, spec := range request.SnapshotSpecs {
		ids[i] = spec.VolumeId.Id
	}
	task := v.eachVolume(ctx, "CnsCreateSnapshots", ids, func(i int) (types.BaseCnsVolumeOperationResult, error) {
		return v.takeSnapshot(request.SnapshotSpecs[i])
	})
	return &methods.CnsCreateSnapshotsBody{Res: &types.CnsCreateSnapshotsResponse{Returnval: task}}
}

func (v *volumes) takeSnapshot(spec types.CnsSnapshotCreateSpec) (types.BaseCnsVolumeOperationResult, error) {
	disk, err := v.find(spec.VolumeId.Id)
	if err != nil {
		return nil, err
	}
	want := store.NewSnapshot{Description: spec.Description}
	if spec.SnapshotId != nil {
		want.ID = spec.SnapshotId.Id
	}
	taken, err := v.d.Disks.TakeSnapshot(disk.ID, want)
	if err != nil {
		return nil, err
	}
	return &types.CnsSnapshotCreateResult{
		CnsSnapshotOperationResult: snapshotResult(spec.VolumeId),
		Snapshot:                   cnsSnapshot(disk.ID, taken),
	}, nil
}

func snapshotResult(volume types.CnsVolumeId) types.CnsSnapshotOperationResult {
	return types.CnsSnapshotOperationResult{CnsVolumeOperationResult: types.CnsVolumeOperationResult{VolumeId: volume}}
}

func cnsSnapshot(disk string, snapshot store.Snapshot) types.CnsSnapshot {
	return types.CnsSnapshot{
		SnapshotId: types.CnsSnapshotId{Id: snapshot.ID}, VolumeId: types.CnsVolumeId{Id: disk},
		Description: snapshot.Description, CreateTime: snapshot.CreateTime, ChangedBlockTrackingId: snapshot.ChangeID,
	}
}

func (v *volumes) CnsDeleteSnapshots(ctx *simulator.Context, request *types.CnsDeleteSnapshots) soap.HasFault {
	ids := make([]string, len(request.SnapshotDeleteSpecs))
	for i, spec := range request.SnapshotDeleteSpecs {
		ids[i] = spec.VolumeId.Id
	}
	task := v.eachVolume(ctx, "CnsDeleteSnapshots", ids, func(i int) (types.BaseCnsVolumeOperationResult, error) {
		spec := request.SnapshotDeleteSpecs[i]
		result := &types.CnsSnapshotDeleteResult{CnsSnapshotOperationResult: snapshotResult(spec.VolumeId), SnapshotId: spec.SnapshotId}
		return result, v.d.Disks.DeleteSnapshot(spec.VolumeId.Id, spec.SnapshotId.Id)
	})
	return &methods.CnsDeleteSnapshotBody{Res: &types.CnsDeleteSnapshotsResponse{Returnval: task}}
}

func (v *volumes) CnsQuerySnapshots(ctx *simulator.Context, request *types.CnsQuerySnapshots) soap.HasFault {
	filter := request.SnapshotQueryFilter
	var disks []string
	for _, spec := range filter.SnapshotQuerySpecs {
		disks = append(disks, spec.VolumeId.Id)
	}
	task := v.d.run(ctx, "CnsQuerySnapshots", disks, func() (vim.AnyType, error) {
		switch len(filter.SnapshotQuerySpecs) {
		case 0:
			return page(v.allSnapshots(), filter.Cursor), nil
		case 1:
			return page(v.snapshots(filter.SnapshotQuerySpecs[0]), filter.Cursor), nil
		default:
			return nil, onlyOne(len(filter.SnapshotQuerySpecs))
		}
	})
	return &methods.CnsQuerySnapshotsBody{Res: &types.CnsQuerySnapshotsResponse{Returnval: task}}
}

func (v *volumes) allSnapshots() []types.CnsSnapshotQueryResultEntry {
	var entries []types.CnsSnapshotQueryResultEntry
	for _, disk := range v.d.Disks.Disks() {
		if disk.Volume != nil {
			entries = append(entries, v.snapshots(types.CnsSnapshotQuerySpec{VolumeId: types.CnsVolumeId{Id: disk.ID}})...)
		}
	}
	return entries
}

func (v *volumes) snapshots(spec types.CnsSnapshotQuerySpec) []types.CnsSnapshotQueryResultEntry {
	disk, err := v.find(spec.VolumeId.Id)
	if err != nil {
		return notFound(&types.CnsVolumeNotFoundFault{VolumeId: spec.VolumeId}, err)
	}
	var entries []types.CnsSnapshotQueryResultEntry
	for _, snapshot := range disk.Snapshots {
		if spec.SnapshotId == nil || spec.SnapshotId.Id == "" || spec.SnapshotId.Id == snapshot.ID {
			entries = append(entries, types.CnsSnapshotQueryResultEntry{Snapshot: cnsSnapshot(disk.ID, snapshot)})
		}
	}
	if len(entries) == 0 && spec.SnapshotId != nil && spec.SnapshotId.Id != "" {
		missing := &store.Refusal{Kind: store.NotFound, Subject: "snapshot " + spec.SnapshotId.Id, Why: "the volume has no such snapshot"}
		return notFound(&types.CnsSnapshotNotFoundFault{VolumeId: spec.VolumeId, SnapshotId: *spec.SnapshotId}, missing)
	}
	return entries
}

func notFound(fault vim.BaseMethodFault, err error) []types.CnsSnapshotQueryResultEntry {
	return []types.CnsSnapshotQueryResultEntry{{Error: &vim.LocalizedMethodFault{Fault: fault, LocalizedMessage: err.Error()}}}
}

// page cuts a list to what one answer may hold.
func page(entries []types.CnsSnapshotQueryResultEntry, cursor *types.CnsCursor) *types.CnsSnapshotQueryResult {
	at := types.CnsCursor{Limit: snapshotPage}
	if cursor != nil {
		at = *cursor
	}
	if at.Limit <= 0 || at.Limit > snapshotPage {
		at.Limit = snapshotPage
	}
	at.TotalRecords = int64(len(entries))
	start := min(max(at.Offset, 0), at.TotalRecords)
	end := min(start+at.Limit, at.TotalRecords)
	at.Offset = end
	return &types.CnsSnapshotQueryResult{Entries: entries[start:end], Cursor: at}
}
