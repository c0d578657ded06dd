//! Which disk a Snapshot is about, or why it cannot be backed up.

use api::{Reason, Snapshot, labels};
use disk::DiskId;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::Problem;

/// What is backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The disk behind the claim.
    pub disk: DiskId,
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
    Ok(Source { disk: disk_of(volume)?, namespace, claim: name })
}

/// The disk behind a volume of the vSphere CSI driver.
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
        let in_tree: PersistentVolume = serde_json::from_value(serde_json::json!({"spec": {}})).unwrap();
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
            ("in-tree", snapshot(api::CLAIM_KIND), Some(claim("Bound")), Some(in_tree), Err(Reason::ForeignDriver)),
            ("a block claim for one pod", snapshot(api::CLAIM_KIND), Some(claim("Bound")), Some(ours), Ok("2b6d")),
        ];
        for (situation, snapshot, claim, volume, want) in cases {
            let got = source(&snapshot, claim.as_ref(), volume.as_ref());
            let got = got.as_ref().map(|s| s.disk.as_str()).map_err(|p| p.reason);
            assert_eq!(got, want, "{situation}");
        }
    }
}
