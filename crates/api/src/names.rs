//! Names of the objects we make. Where a name is made of ids it is the key that makes a step repeatable.
//! Random parts come from the caller: this crate knows no chance.

use disk::DiskSnapshotId;

/// Lease of the one active driver, in the Velero namespace.
pub const DRIVER_LEASE: &str = "backup-driver";
/// Deployment, service account and pod label of the driver.
pub const DRIVER: &str = "backup-driver";
/// DaemonSet, service account and pod label of the data-manager.
pub const DATA_MANAGER: &str = "datamgr-for-vsphere-plugin";
/// ConfigMap with the user's settings.
pub const CONFIG: &str = "velero-vsphere-plugin-config";
/// ConfigMap with feature switches such as `local-mode`.
pub const FEATURES: &str = "velero-vsphere-plugin-feature-states";
/// ConfigMap with resources that are refused in backups and restores.
pub const BLOCKED_RESOURCES: &str = "velero-vsphere-plugin-blocked-resources-list";
/// ConfigMap with settings of VDDK, by its documented name. The original finds it by a label under any name; we read this
/// one by name, so that no account may list ConfigMaps.
pub const VDDK_CONFIG: &str = "vddk-config";
/// Secret with vCenter's address and credentials, unless the settings name another.
pub const VCENTER_SECRET: &str = "velero-vsphere-config-secret";
/// Secrets with vCenter's credentials that the CSI driver has, in the order they are tried.
pub const CSI_SECRETS: [&str; 2] = ["vsphere-config-secret", "csi-vsphere-config"];
/// Secret with the key of the repositories.
pub const REPOSITORY_KEY_SECRET: &str = "vsphere-backup-repository-key";
/// Velero's Secret with the key of its own repositories, used when [`REPOSITORY_KEY_SECRET`] is not there.
pub const VELERO_REPOSITORY_KEY_SECRET: &str = "velero-repo-credentials";
/// Key inside both Secrets.
pub const REPOSITORY_PASSWORD: &str = "repository-password";
/// Velero's Secret with the keys of the bucket.
pub const CLOUD_CREDENTIALS_SECRET: &str = "cloud-credentials";

/// Whether the API server would take it as an object's name: a DNS subdomain (RFC 1123) of at most 253 bytes. What is none
/// must not come into the path of a request.
pub fn is_object_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let ends_well = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends_well(label.chars().next())
            && ends_well(label.chars().last())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Name of a Snapshot; `random` is a random UUID.
pub fn snapshot(random: impl std::fmt::Display) -> String {
    format!("snap-{random}")
}

/// Name of a DeleteSnapshot; `random` is a random UUID.
pub fn delete_snapshot(random: impl std::fmt::Display) -> String {
    format!("delete-{random}")
}

/// Name of a BackupRepositoryClaim; `random` is a random UUID.
pub fn backup_repository_claim(random: impl std::fmt::Display) -> String {
    format!("brc-{random}")
}

/// Name of the BackupRepository of the claim with this uid.
pub fn backup_repository(claim_uid: &str) -> String {
    format!("br-{claim_uid}")
}

/// Name of the Upload of a disk snapshot. Deleting a backup finds the Upload by it.
pub fn upload(snapshot: &DiskSnapshotId) -> String {
    format!("upload-{snapshot}")
}

/// Name of a Download; `unique` is a UUID: random, or the clone's own uid so that a repeated step finds the first.
pub fn download(snapshot: &DiskSnapshotId, unique: impl std::fmt::Display) -> String {
    format!("download-{snapshot}-{unique}")
}

/// Lease of an Upload.
pub fn upload_lease(upload: &str) -> String {
    format!("upload-lease.{upload}")
}

/// Lease of a Download.
pub fn download_lease(download: &str) -> String {
    format!("download-lease.{download}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may fail where it stands

    use super::*;

    #[test]
    fn only_a_name_of_an_object_comes_into_a_path() {
        for good in ["br-1f4d0a77", "a", "0.b-c.d", &"a".repeat(253)] {
            assert!(is_object_name(good), "{good}");
        }
        for bad in ["", "../x y", "x?y=1", "a/b", "A", "-a", "a-", "a..b", ".a", "a%2e", "\u{e4}", &"a".repeat(254)] {
            assert!(!is_object_name(bad), "{bad}");
        }
    }

    #[test]
    fn names_are_those_the_original_looks_up() {
        let snapshot: DiskSnapshotId = "c9f1d7aa-60b2-4c1e-8f3d-5e2b9a714c06".parse().unwrap();
        assert_eq!(upload(&snapshot), "upload-c9f1d7aa-60b2-4c1e-8f3d-5e2b9a714c06");
        assert_eq!(
            download(&snapshot, "0e2b5a17-9a57-4d52-8a0b-f2d3c4b5a697"),
            "download-c9f1d7aa-60b2-4c1e-8f3d-5e2b9a714c06-0e2b5a17-9a57-4d52-8a0b-f2d3c4b5a697"
        );
        assert_eq!(upload_lease("upload-x"), "upload-lease.upload-x");
        assert_eq!(download_lease("download-x-y"), "download-lease.download-x-y");
        assert_eq!(backup_repository("1f4d0a77"), "br-1f4d0a77");
    }
}
