//! Labels and annotations that others read, and our own. Keys only; values are said beside them.

use std::collections::BTreeMap;

/// On all seven kinds, `"true"`: Velero does not back them up.
pub const EXCLUDE_FROM_BACKUP: &str = "velero.io/exclude-from-backup";
/// On Snapshots: name of the Velero backup, shortened to what a label may hold by [`backup_name`].
pub const BACKUP_NAME: &str = "velero.io/backup-name";
/// On CloneFromSnapshots: name of the Velero restore, shortened as [`backup_name`] does.
pub const RESTORE_NAME: &str = "velero.io/restore-name";
/// On Snapshots and DeleteSnapshots: uid of the Velero backup. Only our plugin writes it.
pub const BACKUP_UID: &str = "velero.io/backup-uid";
/// Annotation on a claim in the backup's tarball: base64 of the JSON of its Snapshot.
pub const SNAPSHOT_BLOB: &str = "velero-plugin-for-vsphere/item-snapshot-blob";
/// Annotation beside [`SNAPSHOT_BLOB`]: version of the plugin that wrote it.
pub const PLUGIN_VERSION: &str = "velero-plugin-for-vsphere/plugin-version";
/// Annotation of a DeleteSnapshot that Velero asks for through our snapshotter, for a backup of plugin 1.0.2 or older: the object's own
/// name, so that a copy which somebody makes of it is nobody's but theirs.
pub const SNAPSHOTTER: &str = "velero-plugin-for-vsphere/snapshotter";
/// Annotations on claims that a webhook of the CSI driver lets nobody else write.
pub const VOLUME_HEALTH: [&str; 2] =
    ["volumehealth.storage.kubernetes.io/health", "volumehealth.storage.kubernetes.io/health-timestamp"];
/// Name of the vSphere CSI driver.
pub const CSI_DRIVER: &str = "csi.vsphere.vmware.com";
/// Name of the driver of vSphere volumes that Kubernetes itself once had, as storage classes of its time name it.
pub const IN_TREE_DRIVER: &str = "kubernetes.io/vsphere-volume";
/// Annotation on a volume of the in-tree driver that a CSI driver has taken over: the CSI driver's name.
pub const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// Label on a ConfigMap that belongs to a Velero plugin.
pub const PLUGIN_CONFIG: &str = "velero.io/plugin-config";
/// Label on the ConfigMap that maps storage classes at restore, `RestoreItemAction`.
pub const CHANGE_STORAGE_CLASS: &str = "velero.io/change-storage-class";
/// Annotation on a restored claim: uid of the CloneFromSnapshot whose data it is to get. The proof of ownership.
pub const CLONE_UID: &str = "velero-plugin-for-vsphere/clone-uid";
/// Key in the selector of a claim that Velero makes for us: uid of the CloneFromSnapshot. No volume carries it, so
/// nothing binds the claim until its volume names it; the selector of a claim cannot be changed, so it proves ownership.
pub const CLONE_SELECTOR: &str = "velero-plugin-for-vsphere/clone";
/// Annotation on a volume in the backup's tarball, [`IN_REPOSITORY`]: its data is ours, a restore must not bring it back.
pub const VOLUME_DATA: &str = "velero-plugin-for-vsphere/data";
/// Value of [`VOLUME_DATA`].
pub const IN_REPOSITORY: &str = "repository";
/// Label on an Upload: uid of the Snapshot it is for. Names come back, uids do not.
pub const SNAPSHOT_UID: &str = "velero-plugin-for-vsphere/snapshot-uid";
/// Annotation on a volume that is being handed over: the reclaim policy it gets once its claim is bound. On a
/// CloneFromSnapshot: the one that the old volume had.
pub const RECLAIM_POLICY: &str = "velero-plugin-for-vsphere/reclaim-policy";
/// Annotation on a CloneFromSnapshot: labels of the old volume, a JSON object of texts; the new volume gets them too.
pub const VOLUME_LABELS: &str = "velero-plugin-for-vsphere/volume-labels";
/// Label on scratch claims and their volumes: uid of the CloneFromSnapshot they work for.
pub const SCRATCH_FOR: &str = "velero-plugin-for-vsphere/scratch-for";
/// Annotation on a Download for which the driver makes the disk: who answers for that disk. Its words are in
/// `lifecycle::new_disk::Owner`.
pub const NEW_DISK: &str = "velero-plugin-for-vsphere/new-disk";
/// Annotation on a BackupRepository, any text: free the space of deleted backups now. Removed when it is done.
pub const MAINTAIN: &str = "velero-plugin-for-vsphere/maintain";
/// Annotation on a BackupRepository, a time: a backup was deleted and its space is not freed yet.
pub const MAINTENANCE_DELETED: &str = "velero-plugin-for-vsphere/maintenance-deleted";
/// Annotation on a BackupRepository, a time: when the last maintenance run that ended well had begun.
pub const MAINTENANCE_RAN: &str = "velero-plugin-for-vsphere/maintenance-ran";
/// Annotation on a BackupRepository, a time: when the first of what is marked may be removed.
pub const MAINTENANCE_DUE: &str = "velero-plugin-for-vsphere/maintenance-due";
/// Annotation on a BackupRepository, names with commas between: namespaces that it does not allow and that were backed up through it all
/// the same. `BackupRepository::namespaces` reads it.
pub const ALSO_FOR: &str = "velero-plugin-for-vsphere/also-for";

/// Longest value a label may have, in characters.
const LONGEST_VALUE: usize = 63;

/// The label that every object of ours carries.
pub fn ours() -> BTreeMap<String, String> {
    BTreeMap::from([(EXCLUDE_FROM_BACKUP.to_owned(), "true".to_owned())])
}

/// A backup's name as a label value: as it is where it fits, else cut so that the API server takes it.
pub fn backup_name(name: &str) -> String {
    let cut: String = name.chars().take(LONGEST_VALUE).collect();
    cut.trim_end_matches(['-', '.', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_with_a_long_name_can_still_be_snapshotted() {
        assert_eq!(backup_name("nightly-20240305"), "nightly-20240305");
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(40));
        assert_eq!(backup_name(&long), "a".repeat(62), "a label may not end in a dash");
    }
}
