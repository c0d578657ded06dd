package double

import (
	"maps"
	"slices"

	"github.com/vmware/govmomi/cns/methods"
	"github.com/vmware/govmomi/cns/types"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	vim "github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// noFilter is the answer to a filter that did not say its type: the decoder
// cannot make sense of it, and a real server cannot either.
func noFilter() *soap.Fault {
	return simulator.Fault("the filter has no xsi:type", &vim.InvalidArgument{InvalidProperty: "filter"})
}

func (v *volumes) CnsQueryVolume(_ *simulator.Context, request *types.CnsQueryVolume) soap.HasFault {
	if request.Filter == nil {
		return &methods.CnsQueryVolumeBody{Fault_: noFilter()}
	}
	found := v.query(*request.Filter.GetCnsQueryFilter())
	return &methods.CnsQueryVolumeBody{Res: &types.CnsQueryVolumeResponse{Returnval: found}}
}

func (v *volumes) CnsQueryAllVolume(_ *simulator.Context, request *types.CnsQueryAllVolume) soap.HasFault {
	found := v.query(request.Filter)
	return &methods.CnsQueryAllVolumeBody{Res: &types.CnsQueryAllVolumeResponse{Returnval: found}}
}

func (v *volumes) CnsQueryAsync(ctx *simulator.Context, request *types.CnsQueryAsync) soap.HasFault {
	var disks []string
	for _, id := range request.Filter.VolumeIds {
		disks = append(disks, id.Id)
	}
	task := v.d.run(ctx, "CnsQueryAsync", disks, func() (vim.AnyType, error) {
		return results(&types.CnsAsyncQueryResult{QueryResult: v.query(request.Filter)}), nil
	})
	return &methods.CnsQueryAsyncBody{Res: &types.CnsQueryAsyncResponse{Returnval: task}}
}

func (v *volumes) CnsQueryVolumeInfo(ctx *simulator.Context, request *types.CnsQueryVolumeInfo) soap.HasFault {
	ids := make([]string, len(request.VolumeIds))
	for i, id := range request.VolumeIds {
		ids[i] = id.Id
	}
	task := v.eachVolume(ctx, "CnsQueryVolumeInfo", ids, func(i int) (types.BaseCnsVolumeOperationResult, error) {
		disk, err := v.d.Disks.Disk(ids[i])
		if err != nil {
			return nil, err
		}
		return &types.CnsQueryVolumeInfoResult{
			CnsVolumeOperationResult: types.CnsVolumeOperationResult{VolumeId: request.VolumeIds[i]},
			VolumeInfo:               &types.CnsBlockVolumeInfo{VStorageObject: storageObject(disk)},
		}, nil
	})
	return &methods.CnsQueryVolumeInfoBody{Res: &types.CnsQueryVolumeInfoResponse{Returnval: task}}
}

func (v *volumes) query(filter types.CnsQueryFilter) types.CnsQueryResult {
	var found []types.CnsVolume
	for _, disk := range v.d.Disks.Disks() {
		if disk.Volume != nil && wanted(filter, disk) {
			found = append(found, v.volume(disk))
		}
	}
	total := int64(len(found))
	start, end := int64(0), total
	if cursor := filter.Cursor; cursor != nil {
		start = min(max(cursor.Offset, 0), total)
		if cursor.Limit > 0 {
			end = min(start+cursor.Limit, total)
		}
	}
	return types.CnsQueryResult{
		Volumes: found[start:end],
		Cursor:  types.CnsCursor{Offset: end, Limit: end - start, TotalRecords: total},
	}
}

func wanted(filter types.CnsQueryFilter, disk store.Disk) bool {
	anyOf := func(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }
	return (len(filter.VolumeIds) == 0 || slices.Contains(filter.VolumeIds, types.CnsVolumeId{Id: disk.ID})) &&
		(len(filter.Datastores) == 0 || slices.Contains(filter.Datastores, datastoreRef(disk.Datastore))) &&
		anyOf(filter.Names, disk.Volume.Name) &&
		anyOf(filter.ContainerClusterIds, disk.Volume.Cluster.ID) &&
		(filter.StoragePolicyId == "" || filter.StoragePolicyId == disk.Volume.PolicyID) &&
		labelled(filter.Labels, disk.Volume.Entities)
}

func labelled(labels []vim.KeyValue, entities []store.Entity) bool {
	if len(labels) == 0 {
		return true
	}
	return slices.ContainsFunc(entities, func(entity store.Entity) bool {
		return slices.ContainsFunc(labels, func(label vim.KeyValue) bool {
			value, ok := entity.Labels[label.Key]
			return ok && value == label.Value
		})
	})
}

// volume is a disk in the storage service's shape.
func (v *volumes) volume(disk store.Disk) types.CnsVolume {
	return types.CnsVolume{
		VolumeId: types.CnsVolumeId{Id: disk.ID}, DatastoreUrl: v.d.datastoreURL(disk.Datastore), Name: disk.Volume.Name,
		VolumeType: string(types.CnsVolumeTypeBlock), StoragePolicyId: disk.Volume.PolicyID,
		Metadata: metadataOf(*disk.Volume),
		BackingObjectDetails: &types.CnsBlockBackingDetails{
			CnsBackingObjectDetails: types.CnsBackingObjectDetails{CapacityInMb: disk.CapacityMiB},
			BackingDiskId:           disk.ID, BackingDiskPath: disk.FilePath, BackingDiskObjectId: disk.BackingObjectID,
		},
		ComplianceStatus: "compliant", DatastoreAccessibilityStatus: "accessible", HealthStatus: "green",
	}
}

// volumeOf keeps what a request says of a volume; metadataOf says it again.
func volumeOf(spec types.CnsVolumeCreateSpec) (*store.Volume, error) {
	entities, err := entitiesOf(spec.Metadata)
	if err != nil {
		return nil, err
	}
	cluster := spec.Metadata.ContainerCluster
	volume := &store.Volume{Name: spec.Name, Entities: entities, Cluster: store.Cluster{
		Type: cluster.ClusterType, ID: cluster.ClusterId, User: cluster.VSphereUser,
		Flavor: cluster.ClusterFlavor, Distribution: cluster.ClusterDistribution,
	}}
	if len(spec.Profile) > 0 {
		if profile, ok := spec.Profile[0].(*vim.VirtualMachineDefinedProfileSpec); ok {
			volume.PolicyID = profile.ProfileId
		}
	}
	return volume, nil
}

func entitiesOf(metadata types.CnsVolumeMetadata) ([]store.Entity, error) {
	var entities []store.Entity
	for _, entity := range metadata.EntityMetadata {
		known, ok := entity.(*types.CnsKubernetesEntityMetadata)
		if !ok {
			return nil, &store.Refusal{Kind: store.InvalidArgument, Subject: "entityMetadata", Why: "only Kubernetes' objects can own a volume here"}
		}
		if known.Delete {
			continue
		}
		labels := map[string]string{}
		for _, label := range known.Labels {
			labels[label.Key] = label.Value
		}
		var refers []store.Entity
		for _, other := range known.ReferredEntity {
			refers = append(refers, store.Entity{Type: other.EntityType, Name: other.EntityName, Namespace: other.Namespace, ClusterID: other.ClusterID})
		}
		entities = append(entities, store.Entity{
			Type: known.EntityType, Name: known.EntityName, Namespace: known.Namespace,
			ClusterID: known.ClusterID, Labels: labels, Refers: refers,
		})
	}
	return entities, nil
}

func metadataOf(volume store.Volume) types.CnsVolumeMetadata {
	cluster := types.CnsContainerCluster{
		ClusterType: volume.Cluster.Type, ClusterId: volume.Cluster.ID, VSphereUser: volume.Cluster.User,
		ClusterFlavor: volume.Cluster.Flavor, ClusterDistribution: volume.Cluster.Distribution,
	}
	metadata := types.CnsVolumeMetadata{ContainerCluster: cluster, ContainerClusterArray: []types.CnsContainerCluster{cluster}}
	for _, entity := range volume.Entities {
		known := &types.CnsKubernetesEntityMetadata{EntityType: entity.Type, Namespace: entity.Namespace}
		known.EntityName, known.ClusterID = entity.Name, entity.ClusterID
		for _, key := range slices.Sorted(maps.Keys(entity.Labels)) {
			known.Labels = append(known.Labels, vim.KeyValue{Key: key, Value: entity.Labels[key]})
		}
		for _, other := range entity.Refers {
			known.ReferredEntity = append(known.ReferredEntity, types.CnsKubernetesEntityReference{
				EntityType: other.Type, EntityName: other.Name, Namespace: other.Namespace, ClusterID: other.ClusterID,
			})
		}
		metadata.EntityMetadata = append(metadata.EntityMetadata, known)
	}
	return metadata
}
