package double

import (
	"github.com/vmware/govmomi/cns"
	"github.com/vmware/govmomi/cns/methods"
	"github.com/vmware/govmomi/cns/types"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	vim "github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// volumes answers for the container storage service's CnsVolumeManager:
// making and changing volumes here, queries in cns_query.go, snapshots in
// cns_snapshots.go. The simulator's own keeps separate lists of everything,
// so nothing of it is used but the types.
type volumes struct {
	unlocked
	vim.ManagedObjectReference
	d *Double
}

func (d *Double) serveCNS() {
	registry := simulator.NewRegistry()
	registry.Namespace, registry.Path = cns.Namespace, cns.Path
	registry.Put(&volumes{ManagedObjectReference: cns.CnsVolumeManagerInstance, d: d})
	d.service.RegisterSDK(registry)
}

// results wraps what happened to each volume as a task's result.
func results(each ...types.BaseCnsVolumeOperationResult) *types.CnsVolumeOperationBatchResult {
	return &types.CnsVolumeOperationBatchResult{VolumeResults: each}
}

// perVolume is work on one volume whose failure is told in the task's result
// and not by the task, as the service does.
func (v *volumes) perVolume(method string, id string, do func() (types.BaseCnsVolumeOperationResult, error)) work {
	rule := v.d.Rules.Take(rules.Result, method, []string{id})
	return func() (vim.AnyType, error) {
		var result types.BaseCnsVolumeOperationResult
		var err error
		if rule == nil || rule.Operates() {
			result, err = do()
		}
		if err != nil {
			return results(failed(id, localized(err))), nil
		}
		if rule == nil || rule.Fault == "" {
			return results(result), nil
		}
		fault, err := FaultFor(rule)
		if err != nil {
			return nil, err
		}
		return results(failed(id, &vim.LocalizedMethodFault{Fault: fault, LocalizedMessage: rule.Message})), nil
	}
}

func failed(id string, fault *vim.LocalizedMethodFault) types.BaseCnsVolumeOperationResult {
	return &types.CnsVolumeOperationResult{VolumeId: types.CnsVolumeId{Id: id}, Fault: fault}
}

func succeeded(id string) types.BaseCnsVolumeOperationResult {
	return &types.CnsVolumeOperationResult{VolumeId: types.CnsVolumeId{Id: id}}
}

// onlyOne refuses batches: the service takes one at a time.
func onlyOne(count int) error {
	if count != 1 {
		return &store.Refusal{Kind: store.InvalidArgument, Subject: "InputSpec", Why: "there must be exactly one"}
	}
	return nil
}

func (v *volumes) CnsCreateVolume(ctx *simulator.Context, request *types.CnsCreateVolume) soap.HasFault {
	do, name := work(nil), ""
	if err := onlyOne(len(request.CreateSpecs)); err != nil {
		do = nothing(func() error { return err })
	} else {
		spec := request.CreateSpecs[0]
		name = spec.Name
		do = v.perVolume("CnsCreateVolume", name, func() (types.BaseCnsVolumeOperationResult, error) { return v.create(spec) })
	}
	task := v.d.run(ctx, "CnsCreateVolume", []string{name}, do)
	return &methods.CnsCreateVolumeBody{Res: &types.CnsCreateVolumeResponse{Returnval: task}}
}

func (v *volumes) create(spec types.CnsVolumeCreateSpec) (types.BaseCnsVolumeOperationResult, error) {
	backing, ok := spec.BackingObjectDetails.(*types.CnsBlockBackingDetails)
	if !ok || spec.VolumeType != string(types.CnsVolumeTypeBlock) {
		return nil, &store.Refusal{Kind: store.InvalidArgument, Subject: "createSpecs.backingObjectDetails", Why: "only block volumes can be made here"}
	}
	volume, err := volumeOf(spec)
	if err != nil {
		return nil, err
	}
	var disk store.Disk
	if backing.BackingDiskId != "" {
		disk, err = v.adopt(backing.BackingDiskId, volume)
	} else {
		disk, err = v.makeDisk(spec, backing.CapacityInMb, volume)
	}
	if err != nil {
		return nil, err
	}
	return &types.CnsVolumeCreateResult{
		CnsVolumeOperationResult: types.CnsVolumeOperationResult{VolumeId: types.CnsVolumeId{Id: disk.ID}},
		Name:                     spec.Name,
		PlacementResults:         []types.CnsPlacementResult{{Datastore: datastoreRef(disk.Datastore)}},
	}, nil
}

func (v *volumes) makeDisk(spec types.CnsVolumeCreateSpec, capacityMiB int64, volume *store.Volume) (store.Disk, error) {
	var place *vim.ManagedObjectReference
	if len(spec.Datastores) > 0 {
		place = &spec.Datastores[0]
	}
	datastore, err := v.d.datastore(place)
	if err != nil {
		return store.Disk{}, err
	}
	want := store.NewDisk{
		Name: spec.Name, CapacityMiB: capacityMiB, Datastore: datastore.Self.Value, DatastoreName: datastore.Name,
		Keep: true, Volume: volume,
	}
	if source, ok := spec.VolumeSource.(*types.CnsSnapshotVolumeSource); ok {
		return v.d.Disks.CreateFromSnapshot(source.VolumeId.Id, source.SnapshotId.Id, want)
	}
	return v.d.Disks.Create(want)
}

// adopt makes a volume of a disk that exists already.
func (v *volumes) adopt(disk string, volume *store.Volume) (store.Disk, error) {
	err := v.d.Disks.Change(disk, func(disk *store.Disk) error {
		if disk.Volume != nil {
			return &store.Refusal{Kind: store.AlreadyExists, Subject: "volume " + disk.ID, Why: "the disk is a volume already"}
		}
		disk.Volume = volume
		return nil
	})
	if err != nil {
		return store.Disk{}, err
	}
	return v.d.Disks.Disk(disk)
}

func (v *volumes) CnsDeleteVolume(ctx *simulator.Context, request *types.CnsDeleteVolume) soap.HasFault {
	do, id := work(nil), ""
	if err := onlyOne(len(request.VolumeIds)); err != nil {
		do = nothing(func() error { return err })
	} else {
		id = request.VolumeIds[0].Id
		do = v.perVolume("CnsDeleteVolume", id, func() (types.BaseCnsVolumeOperationResult, error) {
			return succeeded(id), v.remove(id, request.DeleteDisk)
		})
	}
	task := v.d.run(ctx, "CnsDeleteVolume", []string{id}, do)
	return &methods.CnsDeleteVolumeBody{Res: &types.CnsDeleteVolumeResponse{Returnval: task}}
}

func (v *volumes) remove(id string, andDisk bool) error {
	if _, err := v.find(id); err != nil {
		return err
	}
	if andDisk {
		return v.d.Disks.Delete(id)
	}
	return v.d.Disks.Change(id, func(disk *store.Disk) error { disk.Volume = nil; return nil })
}

// find gets a disk that is a volume.
func (v *volumes) find(id string) (store.Disk, error) {
	disk, err := v.d.Disks.Disk(id)
	if err == nil && disk.Volume == nil {
		err = &store.Refusal{Kind: store.NotFound, Subject: "volume " + id, Why: "the disk is no volume"}
	}
	return disk, err
}

func (v *volumes) CnsExtendVolume(ctx *simulator.Context, request *types.CnsExtendVolume) soap.HasFault {
	do, id := work(nil), ""
	if err := onlyOne(len(request.ExtendSpecs)); err != nil {
		do = nothing(func() error { return err })
	} else {
		spec := request.ExtendSpecs[0]
		id = spec.VolumeId.Id
		do = v.perVolume("CnsExtendVolume", id, func() (types.BaseCnsVolumeOperationResult, error) {
			return succeeded(id), v.d.Disks.Extend(id, spec.CapacityInMb)
		})
	}
	task := v.d.run(ctx, "CnsExtendVolume", []string{id}, do)
	return &methods.CnsExtendVolumeBody{Res: &types.CnsExtendVolumeResponse{Returnval: task}}
}

// eachVolume runs one task over several volumes, each with a result of its own.
func (v *volumes) eachVolume(ctx *simulator.Context, method string, ids []string, do func(i int) (types.BaseCnsVolumeOperationResult, error)) vim.ManagedObjectReference {
	parts := make([]work, len(ids))
	for i, id := range ids {
		parts[i] = v.perVolume(method, id, func() (types.BaseCnsVolumeOperationResult, error) { return do(i) })
	}
	return v.d.run(ctx, method, ids, func() (vim.AnyType, error) {
		all := results()
		for _, part := range parts {
			result, err := part()
			if err != nil {
				return nil, err
			}
			all.VolumeResults = append(all.VolumeResults, result.(*types.CnsVolumeOperationBatchResult).VolumeResults...)
		}
		return all, nil
	})
}

func (v *volumes) CnsAttachVolume(ctx *simulator.Context, request *types.CnsAttachVolume) soap.HasFault {
	ids := make([]string, len(request.AttachSpecs))
	for i, spec := range request.AttachSpecs {
		ids[i] = spec.VolumeId.Id
	}
	task := v.eachVolume(ctx, "CnsAttachVolume", ids, func(i int) (types.BaseCnsVolumeOperationResult, error) {
		result := &types.CnsVolumeAttachResult{CnsVolumeOperationResult: types.CnsVolumeOperationResult{VolumeId: types.CnsVolumeId{Id: ids[i]}}}
		return result, v.d.Attach(ids[i], request.AttachSpecs[i].Vm.Value)
	})
	return &methods.CnsAttachVolumeBody{Res: &types.CnsAttachVolumeResponse{Returnval: task}}
}

func (v *volumes) CnsDetachVolume(ctx *simulator.Context, request *types.CnsDetachVolume) soap.HasFault {
	ids := make([]string, len(request.DetachSpecs))
	for i, spec := range request.DetachSpecs {
		ids[i] = spec.VolumeId.Id
	}
	task := v.eachVolume(ctx, "CnsDetachVolume", ids, func(i int) (types.BaseCnsVolumeOperationResult, error) {
		return succeeded(ids[i]), v.d.Detach(ids[i])
	})
	return &methods.CnsDetachVolumeBody{Res: &types.CnsDetachVolumeResponse{Returnval: task}}
}

func (v *volumes) CnsUpdateVolumeMetadata(ctx *simulator.Context, request *types.CnsUpdateVolumeMetadata) soap.HasFault {
	ids := make([]string, len(request.UpdateSpecs))
	for i, spec := range request.UpdateSpecs {
		ids[i] = spec.VolumeId.Id
	}
	task := v.eachVolume(ctx, "CnsUpdateVolumeMetadata", ids, func(i int) (types.BaseCnsVolumeOperationResult, error) {
		return succeeded(ids[i]), v.update(ids[i], request.UpdateSpecs[i].Metadata)
	})
	return &methods.CnsUpdateVolumeBody{Res: &types.CnsUpdateVolumeMetadataResponse{Returnval: task}}
}

func (v *volumes) update(id string, metadata types.CnsVolumeMetadata) error {
	if _, err := v.find(id); err != nil {
		return err
	}
	entities, err := entitiesOf(metadata)
	if err != nil {
		return err
	}
	return v.d.Disks.Change(id, func(disk *store.Disk) error {
		disk.Volume.Entities = entities
		return nil
	})
}
