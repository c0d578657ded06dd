package main

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

func quantityMiB(count int64) resource.Quantity {
	return *resource.NewQuantity(count*mib, resource.BinarySI)
}

// fileSystem is what the class asks for, ext4 when it does not say; none for
// volumes that are used as a block device.
func fileSystem(options controller.ProvisionOptions) string {
	if mode := options.PVC.Spec.VolumeMode; mode != nil && *mode == v1.PersistentVolumeBlock {
		return ""
	}
	if kind := options.StorageClass.Parameters["csi.storage.k8s.io/fstype"]; kind != "" {
		return kind
	}
	return "ext4"
}
