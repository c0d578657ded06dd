//! The claims and the Download of a restore, made from what the backup says about the claim.

use std::collections::BTreeMap;

use api::{ClaimCreator, CloneFromSnapshot, Download, DownloadSpec, Reason, Time, Timestamp, labels, names};
use disk::DiskId;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Problem;
use crate::delete::Target;

/// Annotation that lets a class with binding mode WaitForFirstConsumer make the volume without a pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const MIB: u64 = 1 << 20;

/// Name of the scratch claim.
pub fn scratch_name(clone: &CloneFromSnapshot) -> String {
    scratch_name_of(uid(clone))
}

/// Name of the scratch claim of the clone with this uid, which may be gone.
pub fn scratch_name_of(clone_uid: &str) -> String {
    format!("restore-{clone_uid}")
}

/// Name of the Download; `None` when the clone names no backup.
pub fn download_name(clone: &CloneFromSnapshot) -> Option<String> {
    Some(names::download(&source(clone).ok()?.disk_snapshot.snapshot, uid(clone)))
}

/// The backup it is restored from.
pub fn source(clone: &CloneFromSnapshot) -> Result<Target, Problem> {
    let invalid = |e: &dyn std::fmt::Display| {
        Problem::lasting(Reason::InvalidSpec, format!("read spec.snapshotID `{}`: {e}", clone.spec.snapshot_id))
    };
    let id: api::entity::EntityId = clone.spec.snapshot_id.parse().map_err(|e| invalid(&e))?;
    let disk_snapshot = id.disk_snapshot().map_err(|e| invalid(&e))?;
    let namespace = match id {
        api::entity::EntityId::Claim { namespace, .. } => Some(namespace),
        _ => None,
    };
    Ok(Target { disk_snapshot, namespace })
}

/// What every restore must say, whoever makes its claim.
pub fn understood(clone: &CloneFromSnapshot) -> Result<(), Problem> {
    if let Some(ClaimCreator::Other(word)) = &clone.spec.claim_creator {
        let cause = format!("spec.claimCreator is `{word}`; only Velero is known");
        return Err(Problem::lasting(Reason::InvalidSpec, cause));
    }
    if clone.spec.kind != api::CLAIM_KIND || !clone.spec.api_group.is_empty() {
        return Err(Problem::lasting(Reason::UnsupportedKind, format!("spec.kind is `{}`", clone.spec.kind)));
    }
    source(clone)?;
    if matches!(clone.spec.backup_repository.as_str(), "" | api::WITHOUT_BACKUP_REPOSITORY) {
        return Err(Problem::lasting(Reason::InvalidSpec, "spec.backupRepository names no repository"));
    }
    match clone.spec.claim_creator {
        Some(_) => Ok(()), // class, size and modes come from the claim that Velero makes
        None => wanted(clone).map(drop),
    }
}

/// The claim as the backup has it, checked for what a restore needs of it.
pub fn wanted(clone: &CloneFromSnapshot) -> Result<PersistentVolumeClaim, Problem> {
    let invalid = |cause: String| Problem::lasting(Reason::InvalidSpec, cause);
    let blob = clone.spec.metadata.as_ref().filter(|b| !b.is_empty());
    let blob = blob.ok_or_else(|| invalid("spec.metadata is missing: it says which claim to make".to_owned()))?;
    let claim = blob.claim().map_err(|e| invalid(format!("read spec.metadata: {}", Problem::chain(&e))))?;
    if claim.metadata.name.as_deref().unwrap_or_default().is_empty() {
        return Err(invalid("spec.metadata names no claim".to_owned()));
    }
    if class(&claim).is_empty() {
        return Err(invalid("the claim in spec.metadata has no storage class".to_owned()));
    }
    Ok(claim)
}

/// Name of the claim that the backup is of; `None` where the clone does not say.
pub fn name(clone: &CloneFromSnapshot) -> Option<String> {
    let claim = clone.spec.metadata.as_ref()?.claim().ok()?;
    claim.metadata.name.filter(|name| !name.is_empty())
}

/// What the volume is made like: the live claim where Velero made it, since resource modifiers apply after every restore
/// action; else the claim as the backup has it.
pub fn model(
    clone: &CloneFromSnapshot,
    target: Option<&PersistentVolumeClaim>,
) -> Result<PersistentVolumeClaim, Problem> {
    if clone.spec.claim_creator.is_none() {
        return wanted(clone);
    }
    let target = target.ok_or_else(|| Problem::passing(Reason::WaitingForClaim, "Velero's claim is not there"))?;
    if class(target).is_empty() {
        let name = target.metadata.name.as_deref().unwrap_or_default();
        let cause = format!("claim {name} has no storage class, and the cluster has no default one");
        return Err(Problem::lasting(Reason::StorageClassMissing, cause));
    }
    Ok(target.clone())
}

/// Refuses a claim that Velero made and that asks for less than the disk has: nobody may change it for its user, and a
/// smaller volume would hold half a file system. A claim that we make gets what the disk needs.
pub fn fits(clone: &CloneFromSnapshot, like: &PersistentVolumeClaim, disk_bytes: u64) -> Result<(), Problem> {
    let asked = request(like);
    let enough = asked.as_ref().and_then(|q| bytes(&q.0)).is_some_and(|asked| asked >= disk_bytes);
    if clone.spec.claim_creator.is_none() || enough {
        return Ok(());
    }
    let (name, asked) =
        (like.metadata.name.as_deref().unwrap_or_default(), asked.map_or("nothing".to_owned(), |q| q.0));
    let least = disk_bytes.div_ceil(MIB);
    let cause = format!("claim {name} asks for {asked}; the disk has {disk_bytes} bytes ({least}Mi)");
    Err(Problem::lasting(Reason::TargetTooSmall, cause))
}

/// The storage class a claim asks for; empty when it asks for none.
pub fn class(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()).unwrap_or_default()
}

/// The claim through which the volume is made. `like` gives class, modes and the least size; `node` is needed where the
/// class waits for a first consumer.
pub fn scratch(
    clone: &CloneFromSnapshot,
    like: &PersistentVolumeClaim,
    disk_bytes: u64,
    namespace: &str,
    node: Option<&str>,
) -> PersistentVolumeClaim {
    let wanted = like.spec.clone().unwrap_or_default();
    let mut marks = labels::ours();
    marks.insert(labels::SCRATCH_FOR.to_owned(), uid(clone).to_owned());
    let annotations = node.map(|n| BTreeMap::from([(SELECTED_NODE.to_owned(), n.to_owned())]));
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(scratch_name(clone)),
            namespace: Some(namespace.to_owned()),
            labels: Some(marks),
            annotations,
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: wanted.access_modes,
            volume_mode: wanted.volume_mode,
            storage_class_name: wanted.storage_class_name,
            resources: Some(sized(request(like), disk_bytes)),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// The real claim: as the backup has it, without what belonged to the old one, naming its volume.
pub fn real(
    clone: &CloneFromSnapshot,
    like: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> PersistentVolumeClaim {
    let wanted = like.spec.clone().unwrap_or_default();
    let capacity = volume.spec.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage")).and_then(|q| bytes(&q.0));
    // a claim that asks for more than its volume has is never bound
    let asked = request(like).filter(|r| bytes(&r.0).zip(capacity).is_none_or(|(asked, has)| asked <= has));
    let storage = asked.or_else(|| volume.spec.as_ref()?.capacity.as_ref()?.get("storage").cloned());
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: like.metadata.name.clone(),
            namespace: clone.metadata.namespace.clone(),
            labels: like.metadata.labels.clone(),
            annotations: Some(BTreeMap::from([(labels::CLONE_UID.to_owned(), uid(clone).to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: wanted.access_modes,
            volume_mode: wanted.volume_mode,
            storage_class_name: wanted.storage_class_name,
            volume_name: volume.metadata.name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: storage.map(|q| BTreeMap::from([("storage".to_owned(), q)])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// The Download, with its status: it is made in one POST.
pub fn download(clone: &CloneFromSnapshot, source: &Target, disk: &DiskId, now: Timestamp) -> Download {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let spec = DownloadSpec {
        snapshot_id: Some(format!("ivd:{}", source.disk_snapshot)),
        restore_timestamp: Some(Time(now)),
        protected_entity_id: Some(format!("ivd:{disk}")),
        backup_repository_name: Some(clone.spec.backup_repository.clone()),
        clone_from_snapshot_reference: Some(format!(
            "{}/{}",
            text(&clone.metadata.namespace),
            text(&clone.metadata.name)
        )),
        source_namespace: source.namespace.clone(),
        admitted: None,
    };
    let mut download = Download::new(&names::download(&source.disk_snapshot.snapshot, uid(clone)), spec);
    let mut marks = labels::ours();
    marks.insert(labels::SCRATCH_FOR.to_owned(), uid(clone).to_owned());
    download.metadata.labels = Some(marks);
    download.status = Some(crate::transfer::download::new(now));
    download
}

fn uid(clone: &CloneFromSnapshot) -> &str {
    clone.metadata.uid.as_deref().unwrap_or_default()
}

fn request(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage").cloned()
}

/// The request where it is enough for the disk, else the disk's size, rounded up to whole MiB.
fn sized(request: Option<Quantity>, disk_bytes: u64) -> VolumeResourceRequirements {
    let enough = request.filter(|r| bytes(&r.0).is_some_and(|asked| asked >= disk_bytes));
    let size = enough.unwrap_or_else(|| Quantity(format!("{}Mi", disk_bytes.div_ceil(MIB).max(1))));
    VolumeResourceRequirements {
        requests: Some(BTreeMap::from([("storage".to_owned(), size)])),
        ..VolumeResourceRequirements::default()
    }
}

/// A quantity in bytes, rounded down; `None` when it is none.
pub fn bytes(quantity: &str) -> Option<u64> {
    let end = quantity.find(|c: char| !matches!(c, '0'..='9' | '.')).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(end);
    let factor: u128 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return scientific(number, suffix),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = whole.parse().ok()?;
    let digits: String = fraction.chars().take(12).collect();
    let part = match digits.as_str() {
        "" => 0,
        digits => digits.parse::<u128>().ok()? * factor / 10u128.pow(u32::try_from(digits.len()).ok()?),
    };
    u64::try_from(whole.checked_mul(factor)?.checked_add(part)?).ok()
}

/// `128974848e3`, or `m` for thousandths.
fn scientific(number: &str, suffix: &str) -> Option<u64> {
    let whole: u64 = number.parse().ok()?;
    if suffix == "m" {
        return Some(whole / 1000);
    }
    let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    whole.checked_mul(10u64.checked_pow(exponent)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_never_smaller_than_the_disk() {
        let asked = |request: Option<&str>, disk| {
            let sized = sized(request.map(|r| Quantity(r.to_owned())), disk);
            sized.requests.and_then(|r| r.get("storage").map(|q| q.0.clone()))
        };
        assert_eq!(asked(Some("3Gi"), 3 << 30).as_deref(), Some("3Gi"));
        assert_eq!(asked(Some("3Gi"), (3 << 30) + 1).as_deref(), Some("3073Mi"), "the disk had grown");
        assert_eq!(asked(None, 17 << 20).as_deref(), Some("17Mi"));
        assert_eq!(asked(Some("nonsense"), 1).as_deref(), Some("1Mi"));
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        let cases = [
            ("3Gi", Some(3 << 30)),
            ("1.5Mi", Some(3 << 19)),
            ("5G", Some(5_000_000_000)),
            ("1048576", Some(1 << 20)),
            ("128974848e3", Some(128_974_848_000)),
            ("1500m", Some(1)),
            ("x", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(bytes(text), want, "{text}");
        }
    }
}
