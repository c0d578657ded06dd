//! Which disk a Snapshot is about, or why it cannot be backed up.

use api::{Reason, Snapshot, labels};
use disk::DiskId;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{Backing, Migrated};
use crate::Problem;

/// What is backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What the claim's volume says of its disk.
    pub backing: Backing,
    /// Namespace of the claim.
    pub namespace: String,
    /// The claim.
    pub claim: String,
}

/// The disk behind the claim, from what was read. Any access and volume mode will do: the disk is read as a whole.
pub fn source(
    snapshot: &Snapshot,
    claim: Option<&PersistentVolumeClaim>,
    volume: Option<&PersistentVolume>,
) -> Result<Source, Problem> {
    let handle = &snapshot.spec.resource_handle;
    if !handle.is_claim() {
        let cause = match (handle.kind.as_str(), handle.api_group.as_deref().unwrap_or_default()) {
            ("", _) => "resourceHandle names no kind".to_owned(),
            (kind, "") => format!("`{}` is of kind `{kind}`", handle.name),
            (kind, group) => format!("`{}` is of kind `{kind}` of apiGroup `{group}`", handle.name),
        };
        return Err(Problem::lasting(Reason::UnsupportedKind, cause));
    }
    let (namespace, name) = (snapshot.metadata.namespace.clone().unwrap_or_default(), handle.name.clone());
    let Some(claim) = claim else {
        return Err(Problem::lasting(Reason::ClaimNotFound, format!("claim {namespace}/{name} does not exist")));
    };
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    if phase != "Bound" {
        return Err(Problem::lasting(Reason::ClaimNotBound, format!("claim {namespace}/{name} is {phase}")));
    }
    let Some(volume) = volume else {
        let cause = format!("claim {namespace}/{name} is bound to a volume that does not exist");
        return Err(Problem::lasting(Reason::ClaimNotBound, cause));
    };
    Ok(Source { backing: backing(volume)?, namespace, claim: name })
}

/// What a volume says of its disk, where that is for the vSphere CSI driver to serve.
///
/// # Errors
/// `ForeignDriver`: it is no disk, or somebody else's.
pub fn backing(volume: &PersistentVolume) -> Result<Backing, Problem> {
    let spec = volume.spec.as_ref();
    let Some(in_tree) = spec.and_then(|s| s.vsphere_volume.as_ref()) else { return disk_of(volume).map(Backing::Disk) };
    let name = volume.metadata.name.clone().unwrap_or_default();
    let migrated_to = volume.metadata.annotations.as_ref().and_then(|a| a.get(labels::MIGRATED_TO));
    if migrated_to.map(String::as_str) != Some(labels::CSI_DRIVER) {
        let (mark, driver) = (labels::MIGRATED_TO, labels::CSI_DRIVER);
        let cause = format!(
            "volume {name} is of the old in-tree driver and not migrated: it has no annotation {mark}={driver}"
        );
        return Err(Problem::lasting(Reason::ForeignDriver, cause));
    }
    Ok(Backing::Migrated(Migrated { volume: name, path: in_tree.volume_path.clone() }))
}

/// The disk behind a volume that the vSphere CSI driver has made.
///
/// # Errors
/// `ForeignDriver` for any other.
pub fn disk_of(volume: &PersistentVolume) -> Result<DiskId, Problem> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let foreign = |what: String| Problem::lasting(Reason::ForeignDriver, format!("volume {name} is {what}"));
    let Some(csi) = volume.spec.as_ref().and_then(|s| s.csi.as_ref()) else {
        return Err(foreign("not of a CSI driver".to_owned()));
    };
    if csi.driver != labels::CSI_DRIVER {
        return Err(foreign(format!("of CSI driver `{}`", csi.driver)));
    }
    if csi.volume_handle.starts_with("file:") {
        return Err(foreign("a file share, not a disk".to_owned()));
    }
    csi.volume_handle
        .parse()
        .map_err(|_| foreign(format!("named `{}` by its driver, which is not the id of a disk", csi.volume_handle)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{ResourceHandle, SnapshotSpec};

    fn snapshot(kind: &str) -> Snapshot {
        let handle = ResourceHandle { kind: kind.to_owned(), ..ResourceHandle::claim("data-0") };
        let mut snapshot = Snapshot::new("s", SnapshotSpec { resource_handle: handle, ..SnapshotSpec::default() });
        snapshot.metadata.namespace = Some("shop".to_owned());
        snapshot
    }

    fn claim(phase: &str) -> PersistentVolumeClaim {
        serde_json::from_value(serde_json::json!({"spec": {"volumeMode": "Block", "accessModes": ["ReadWriteOncePod"], "volumeName": "pv-1"}, "status": {"phase": phase}})).unwrap()
    }

    fn volume(driver: &str, handle: &str) -> PersistentVolume {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "pv-1"}, "spec": {"csi": {"driver": driver, "volumeHandle": handle}}})).unwrap()
    }

    #[test]
    fn a_claim_that_cannot_be_backed_up_says_why() {
        let ours = volume(labels::CSI_DRIVER, "2b6d");
        let nothing: PersistentVolume = serde_json::from_value(serde_json::json!({"spec": {}})).unwrap();
        let in_tree = |migrated_to: &str| -> PersistentVolume {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "pv-1", "annotations": {labels::MIGRATED_TO: migrated_to}},
                "spec": {"vsphereVolume": {"volumePath": "[ds] a.vmdk"}}
            }))
            .unwrap()
        };
        let cases = [
            (
                "another kind",
                snapshot("Secret"),
                Some(claim("Bound")),
                Some(ours.clone()),
                Err(Reason::UnsupportedKind),
            ),
            ("no claim", snapshot(api::CLAIM_KIND), None, None, Err(Reason::ClaimNotFound)),
            ("unbound", snapshot(api::CLAIM_KIND), Some(claim("Pending")), None, Err(Reason::ClaimNotBound)),
            ("lost its volume", snapshot(api::CLAIM_KIND), Some(claim("Bound")), None, Err(Reason::ClaimNotBound)),
            (
                "another driver",
                snapshot(api::CLAIM_KIND),
                Some(claim("Bound")),
                Some(volume("ebs.csi.aws.com", "vol-1")),
                Err(Reason::ForeignDriver),
            ),
            (
                "a file share",
                snapshot(api::CLAIM_KIND),
                Some(claim("Bound")),
                Some(volume(labels::CSI_DRIVER, "file:1")),
                Err(Reason::ForeignDriver),
            ),
            ("no driver", snapshot(api::CLAIM_KIND), Some(claim("Bound")), Some(nothing), Err(Reason::ForeignDriver)),
            (
                "in-tree, another driver's by now",
                snapshot(api::CLAIM_KIND),
                Some(claim("Bound")),
                Some(in_tree("csi.example")),
                Err(Reason::ForeignDriver),
            ),
            (
                "in-tree, migrated",
                snapshot(api::CLAIM_KIND),
                Some(claim("Bound")),
                Some(in_tree(labels::CSI_DRIVER)),
                Ok("[ds] a.vmdk"),
            ),
            ("a block claim for one pod", snapshot(api::CLAIM_KIND), Some(claim("Bound")), Some(ours), Ok("2b6d")),
        ];
        for (situation, snapshot, claim, volume, want) in cases {
            let got = source(&snapshot, claim.as_ref(), volume.as_ref());
            let got = got.as_ref().map_err(|p| p.reason).map(|s| match &s.backing {
                Backing::Disk(disk) => disk.as_str(),
                Backing::Migrated(migrated) => migrated.path.as_str(),
            });
            assert_eq!(got, want, "{situation}");
        }
    }
}
