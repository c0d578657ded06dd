//! What becomes of an item in a restore.

use std::collections::BTreeMap;

use api::velero::Restore;
use api::{ClaimCreator, CloneFromSnapshot, CloneFromSnapshotSpec, Reason, labels, metadata};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;

use super::blocked::Blocked;
use super::{Note, blob, item};
use crate::Problem;

mod class;
mod pods;

/// Kinds that are made anew wherever they are needed, and never restored.
const MADE_ANEW: [&str; 3] =
    ["images.imagecontroller.vmware.com", "nsxlbmonitors.vmware.com", "nsxloadbalancermonitors.vmware.com"];

/// What the restore action asks for, beside claims and the blocked resources.
pub const ALSO_APPLIES_TO: [&str; 4] = ["pods", MADE_ANEW[0], MADE_ANEW[1], MADE_ANEW[2]];

/// Groups of our own seven kinds.
const OUR_GROUPS: [&str; 2] = [api::BackupDriverV1alpha1::GROUP, api::DatamoverV1alpha1::GROUP];

/// What is known when a claim is to be decided.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The restore.
    pub restore: &'a Restore,
    /// The item as Velero and other actions have changed it by now.
    pub item: &'a Value,
    /// The item as it lies in the backup. Identity and marks are read here (trap P-13).
    pub item_from_backup: &'a Value,
    /// The list of blocked resources.
    pub blocked: &'a Blocked,
    /// The claim of that name in the [target namespace](Restore::target_namespace), if there is one.
    pub existing: Option<&'a PersistentVolumeClaim>,
    /// Every ConfigMap of the Velero namespace with labels `velero.io/plugin-config` and
    /// `velero.io/change-storage-class=RestoreItemAction`.
    pub mappings: &'a [ConfigMap],
    /// Every storage class.
    pub classes: &'a [StorageClass],
}

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Velero creates it without data of ours, changed as [`left`] says.
    Leave(Note),
    /// Velero does not create it.
    SkipRestore(Note),
    /// It is not restored, and the restore ends *PartiallyFailed*.
    Refuse(Problem),
    /// Velero creates it as [`taken`] says, and we bring its data.
    Take(Box<Take>),
}

/// How a claim is brought back.
#[derive(Debug, Clone, PartialEq)]
pub struct Take {
    /// Namespace of the restored claim, and of the CloneFromSnapshot.
    pub namespace: String,
    /// Namespace that it was backed up from: its repository.
    pub source_namespace: String,
    /// Class to write into the item; `None` leaves what is there.
    pub storage_class: Option<String>,
    /// What the old volume had and the new one is to have: annotations of the CloneFromSnapshot (V-05).
    pub of_the_volume: BTreeMap<String, String>,
    /// The CloneFromSnapshot's spec, but for the name of the repository.
    pub spec: CloneFromSnapshotSpec,
}

/// What can be decided before anything is read from the API server; `None` when that does not suffice.
pub fn before_reading(restore: &Restore, item_from_backup: &Value, blocked: &Blocked) -> Option<Decision> {
    let said = item::said(item_from_backup);
    let (group, kind) = (item::group(item_from_backup), item::kind(item_from_backup));
    let leave = |why: &str| Some(Decision::Leave(Note::info(format!("{said}: {why}"))));
    if OUR_GROUPS.contains(&group) {
        let why = format!("{said} is a request to vSphere backup, not a thing to restore"); // V-06
        return Some(Decision::SkipRestore(Note::info(why)));
    }
    if group.is_empty() && kind == "Pod" {
        return leave("a pod");
    }
    if is_made_anew(item_from_backup) {
        return Some(Decision::SkipRestore(Note::info(format!("{said} is made anew by the cluster"))));
    }
    if let Some(problem) = blocked.refuses(item_from_backup) {
        return Some(Decision::Refuse(problem));
    }
    if !item::is_claim(item_from_backup) {
        return leave("no claim");
    }
    if restore.spec.restore_pvs == Some(false) {
        return leave("the restore was made with --restore-volumes=false");
    }
    if item::annotation(item_from_backup, labels::SNAPSHOT_BLOB).is_none() {
        return leave("the backup holds no data of ours for it");
    }
    None
}

/// Decides about a claim, a pod, or another item that the action asked for.
pub fn decide(facts: &Facts<'_>) -> Decision {
    if let Some(early) = before_reading(facts.restore, facts.item_from_backup, facts.blocked) {
        return early;
    }
    match take(facts) {
        Ok(decision) => decision,
        Err(problem) => Decision::Refuse(problem),
    }
}

fn take(facts: &Facts<'_>) -> Result<Decision, Problem> {
    let said = item::said(facts.item_from_backup);
    let Some(record) = blob::read(facts.item_from_backup)? else {
        return Ok(Decision::Leave(Note::info(format!("{said}: the backup holds no data of ours for it"))));
    };
    let source_namespace = item::namespace(facts.item_from_backup).to_owned();
    let namespace = facts.restore.target_namespace(&source_namespace).to_owned();
    if let Some(existing) = facts.existing {
        return Ok(Decision::Leave(left_alone(&namespace, existing)));
    }
    check(&said, &record)?;
    let class = class::choose(facts)?;
    let metadata = rewritten(facts, &record, &namespace, class.effective.as_deref())?;
    let spec = CloneFromSnapshotSpec {
        snapshot_id: record.snapshot_id,
        metadata: Some(metadata),
        api_group: String::new(),
        kind: api::CLAIM_KIND.to_owned(),
        backup_repository: String::new(),
        clone_cancel: false,
        claim_creator: Some(ClaimCreator::Velero),
    };
    let of_the_volume = of_the_volume(facts.item_from_backup);
    Ok(Decision::Take(Box::new(Take {
        namespace,
        source_namespace,
        storage_class: class.to_write,
        of_the_volume,
        spec,
    })))
}

/// What the backup says about the claim's old volume.
fn of_the_volume(item_from_backup: &Value) -> BTreeMap<String, String> {
    let said = [labels::RECLAIM_POLICY, labels::VOLUME_LABELS].into_iter();
    let said = said.filter_map(|key| Some((key.to_owned(), item::annotation(item_from_backup, key)?.to_owned())));
    said.collect()
}

/// An existing claim is nobody's to overwrite, whatever `--existing-resource-policy` says (V-03).
fn left_alone(namespace: &str, existing: &PersistentVolumeClaim) -> Note {
    let name = existing.metadata.name.as_deref().unwrap_or_default();
    let ending = match existing.metadata.deletion_timestamp {
        Some(_) => "it is just being deleted: restore again once it is gone",
        None => "delete it first, or restore into another namespace",
    };
    Note::warning(format!(
        "claim {namespace}/{name} is already there; its data is left as it is. To restore it {ending}"
    ))
}

/// Whether the record leads to data.
fn check(said: &str, record: &blob::Record) -> Result<(), Problem> {
    if record.snapshot_id.is_empty() {
        let cause = format!("restore {said}: the backup's record names no disk snapshot");
        let fix = "The original plugin wrote it too early; use another backup.".to_owned();
        return Err(Problem::lasting(Reason::RestorePointMissing, cause).with_fix(Some(fix)));
    }
    if record.repository.as_deref() == Some("") {
        let cause = format!("restore {said}: the backup was made in local mode, nothing was uploaded");
        let fix = "Its data is in a disk snapshot of the old volume alone; revert to that in vSphere.".to_owned();
        return Err(Problem::lasting(Reason::RestorePointMissing, cause).with_fix(Some(fix)));
    }
    record.snapshot_id.parse::<api::entity::EntityId>().and_then(|id| id.disk_snapshot()).map_err(|e| {
        let cause = format!("restore {said}: read `{}` in the backup's record: {e}", record.snapshot_id);
        Problem::lasting(Reason::InvalidSpec, cause)
    })?;
    Ok(())
}

/// The claim in protobuf with the namespace and class that it gets; fields that we do not know stay.
fn rewritten(
    facts: &Facts<'_>,
    record: &blob::Record,
    namespace: &str,
    class: Option<&str>,
) -> Result<metadata::Blob, Problem> {
    let said = item::said(facts.item_from_backup);
    let change = |claim: &mut PersistentVolumeClaim| {
        claim.metadata.namespace = Some(namespace.to_owned());
        if let Some(class) = class {
            claim.spec.get_or_insert_default().storage_class_name = Some(class.to_owned());
        }
    };
    let written = match &record.metadata {
        Some(blob) => blob.bytes(),
        None => Ok(metadata::encode(&item::claim(facts.item_from_backup)?)),
    };
    let changed = written.and_then(|bytes| metadata::rewrite(&bytes, change));
    let changed = changed.map_err(|e| {
        let cause = format!("restore {said}: {}", Problem::chain(&e));
        Problem::lasting(Reason::InvalidSpec, cause)
    })?;
    Ok(metadata::Blob::from_bytes(&changed))
}

impl Take {
    /// The CloneFromSnapshot to make.
    pub fn clone_from_snapshot(&self, restore: &Restore, repository: &str, name: &str) -> CloneFromSnapshot {
        let spec = CloneFromSnapshotSpec { backup_repository: repository.to_owned(), ..self.spec.clone() };
        let mut clone = CloneFromSnapshot::new(name, spec);
        clone.metadata.namespace = Some(self.namespace.clone());
        let mut marks = labels::ours();
        marks.insert(labels::RESTORE_NAME.to_owned(), labels::backup_name(restore.name()));
        clone.metadata.labels = Some(marks);
        clone.metadata.annotations = Some(self.of_the_volume.clone()).filter(|a| !a.is_empty());
        clone
    }
}

/// The claim as Velero is to create it: bindable by nobody until its data is there (design D5a), with nothing that ties
/// it to the old volume, the old node or an old owner (W-41).
pub fn taken(item: &Value, take: &Take, clone_uid: &str) -> Value {
    let mut changed = tidied(item);
    item::remove_annotations(&mut changed, &OLD_TIES);
    item::annotate(&mut changed, labels::CLONE_UID, clone_uid);
    item::object(&mut changed["metadata"]).retain(|key, _| key != "ownerReferences");
    let spec = item::object(&mut changed["spec"]);
    spec.retain(|key, _| !matches!(key.as_str(), "volumeName" | "dataSource" | "dataSourceRef"));
    let matched = BTreeMap::from([(labels::CLONE_SELECTOR, clone_uid)]);
    spec.insert("selector".to_owned(), serde_json::json!({ "matchLabels": matched }));
    if let Some(class) = &take.storage_class {
        spec.insert("storageClassName".to_owned(), Value::String(class.clone()));
        item::remove_annotations(&mut changed, &[class::BETA_CLASS]);
    }
    changed
}

/// What binds a claim to its old volume and node; Velero removes most of it itself.
const OLD_TIES: [&str; 5] = [
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
];

/// An item that is left to Velero, without what must not come back; `None` when it stays as it is.
pub fn left(item: &Value) -> Option<Value> {
    if item::is_claim(item) {
        let changed = tidied(item);
        return (changed != *item).then_some(changed);
    }
    if item::group(item).is_empty() && item::kind(item) == "Pod" {
        return pods::without_its_machine(item);
    }
    None
}

/// A claim without marks of ours and without what only the CSI driver may write.
fn tidied(item: &Value) -> Value {
    let mut changed = item.clone();
    item::remove_our_marks(&mut changed);
    item::remove_annotations(&mut changed, &labels::VOLUME_HEALTH);
    changed
}

fn is_made_anew(item: &Value) -> bool {
    let (kind, group) = (item::kind(item).to_lowercase(), item::group(item));
    MADE_ANEW.iter().any(|name| {
        name.split_once('.')
            .is_some_and(|(plural, its_group)| its_group == group && plural.strip_suffix('s') == Some(&kind))
    })
}

/// Decides about a volume: one whose data is ours would come back empty-handed and bind our claim to the old disk, which
/// need not exist here (V-01).
pub fn decide_volume(restore: &Restore, item_from_backup: &Value) -> Decision {
    let said = item::said(item_from_backup);
    let marked = item::annotation(item_from_backup, labels::VOLUME_DATA) == Some(labels::IN_REPOSITORY);
    match (marked, restore.spec.restore_pvs) {
        (true, Some(false)) => {
            Decision::Leave(Note::info(format!("{said}: the restore was made with --restore-volumes=false")))
        }
        (true, _) => Decision::SkipRestore(Note::info(format!("{said}: its data comes back in a new volume"))),
        (false, _) => Decision::Leave(Note::info(format!("{said}: its data is not ours"))),
    }
}

/// Decides about one of our own kinds: they travel with a backup and are never restored (V-06).
pub fn decide_own_kind(item_from_backup: &Value) -> Decision {
    let said = item::said(item_from_backup);
    Decision::SkipRestore(Note::info(format!("{said} is a request to vSphere backup, not a thing to restore")))
}

#[cfg(test)]
mod tests;
