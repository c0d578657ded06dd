package main

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const (
	driverName = "csi.vsphere.vmware.com"
	mib        = 1 << 20
)

// volumeStorage is what the provisioner needs of vCenter.
type volumeStorage interface {
	// create makes a volume, or finds the one of that name, and returns its id.
	create(ctx context.Context, want wantedVolume) (string, error)
	// remove deletes a volume and its disk; one that is gone is no error.
	remove(ctx context.Context, id string) error
}

// wantedVolume says what volume to make.
type wantedVolume struct {
	name           string
	capacityMiB    int64
	cluster, user  string
	claim          string
	claimNamespace string
	claimLabels    map[string]string
}

// provisioner turns claims into volumes. The library calls it.
type provisioner struct {
	storage       volumeStorage
	cluster, user string
}

// SupportsBlock says that volumes need not have a file system.
func (p *provisioner) SupportsBlock(context.Context) bool { return true }

// Provision makes the volume for a claim.
func (p *provisioner) Provision(ctx context.Context, options controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	if claim.Spec.Selector != nil {
		return nil, controller.ProvisioningFinished, errors.New("claim Selector is not supported")
	}
	request := claim.Spec.Resources.Requests[v1.ResourceStorage]
	capacityMiB := roundUpMiB(request.Value())
	if capacityMiB == 0 {
		return nil, controller.ProvisioningFinished, errors.New("the claim asks for no storage")
	}
	id, err := p.storage.create(ctx, wantedVolume{
		name: options.PVName, capacityMiB: capacityMiB, cluster: p.cluster, user: p.user,
		claim: claim.Name, claimNamespace: claim.Namespace, claimLabels: claim.Labels,
	})
	if err != nil {
		// The reply may be lost and the volume be there: the next try finds it by its name.
		return nil, controller.ProvisioningInBackground, fmt.Errorf("create volume %s: %w", options.PVName, err)
	}
	return persistentVolume(options, id, capacityMiB), controller.ProvisioningFinished, nil
}

// Delete removes the volume of a released PersistentVolume.
func (p *provisioner) Delete(ctx context.Context, volume *v1.PersistentVolume) error {
	source := volume.Spec.CSI
	if source == nil || source.Driver != driverName {
		return &controller.IgnoredError{Reason: "it is not a volume of " + driverName}
	}
	if err := p.storage.remove(ctx, source.VolumeHandle); err != nil {
		return fmt.Errorf("delete volume %s: %w", source.VolumeHandle, err)
	}
	return nil
}

func roundUpMiB(bytes int64) int64 { return (bytes + mib - 1) / mib }

func persistentVolume(options controller.ProvisionOptions, id string, capacityMiB int64) *v1.PersistentVolume {
	claim, class := options.PVC, options.StorageClass
	reclaim := v1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: v1.PersistentVolumeSpec{
			Capacity:                      v1.ResourceList{v1.ResourceStorage: quantityMiB(capacityMiB)},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    claim.Spec.VolumeMode,
			MountOptions:                  class.MountOptions,
			PersistentVolumeReclaimPolicy: reclaim,
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
				Driver:           driverName,
				VolumeHandle:     id,
				FSType:           fileSystem(options),
				VolumeAttributes: map[string]string{"type": "vSphere CNS Block Volume", "storage.kubernetes.io/csiProvisionerIdentity": driverName},
			}},
		},
	}
}
