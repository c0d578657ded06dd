//! What is deleted with a backup: for each claim of its tarball the restore point that the claim's record names.

use api::velero::Backup;
use api::{DeleteSnapshot, DeleteSnapshotSpec, labels};
use serde_json::Value;

use super::backup::is_label_of;
use super::{Note, blob, item};
use crate::Problem;

/// What to do about a claim of a backup that is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing of ours goes with it.
    Nothing(Note),
    /// Something of ours may go with it, but nobody can tell what.
    Refuse(Problem),
    /// Make a [DeleteSnapshot](Delete::request).
    Delete(Delete),
}

/// What is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// The restore point: `pvc:…`, or `ivd:…` of old backups.
    pub snapshot_id: String,
    /// Namespace that the claim was backed up from: its repository.
    pub source_namespace: String,
    /// The BackupRepository that the backup was made with, where the record says it.
    pub recorded_repository: Option<String>,
    /// Nothing was uploaded: only the disk snapshot is deleted, and no repository is needed. Where the record does not
    /// say, the setting of today decides.
    pub local: bool,
}

/// Decides. Deleting never hangs on the live claim or its namespace: they may be long gone.
pub fn decide(backup: &Backup, item: &Value, local_mode: bool) -> Decision {
    let said = item::said(item);
    let nothing = |why: &str| Decision::Nothing(Note::info(format!("{said}: {why}")));
    if !item::is_claim(item) {
        return nothing("no claim");
    }
    let record = match blob::read(item) {
        Ok(Some(record)) => record,
        Ok(None) => return nothing("the backup holds no data of ours for it"),
        Err(problem) => return Decision::Refuse(problem),
    };
    if record.snapshot_id.is_empty() {
        return nothing("the backup's record names no disk snapshot"); // W-06, and then nothing was recorded anywhere
    }
    if let Some(why) = foreign(backup, item, &record) {
        return Decision::Nothing(Note::warning(format!("{said}: {why}; nothing is deleted")));
    }
    Decision::Delete(Delete {
        snapshot_id: record.snapshot_id,
        source_namespace: item::namespace(item).to_owned(),
        local: record.repository.as_ref().map_or(local_mode, String::is_empty),
        recorded_repository: record.repository.filter(|repository| !repository.is_empty()),
    })
}

/// Why a record is of another backup: the original leaves records on claims that Velero restores, and later backups
/// carry them along (W-12). Their data is not ours to delete.
fn foreign(backup: &Backup, item: &Value, record: &blob::Record) -> Option<String> {
    if let Some(name) = record.backup_name.as_deref().filter(|name| !is_label_of(name, backup.name())) {
        return Some(format!("its record is of backup {name}, and was carried along by a restored claim"));
    }
    let id: api::entity::EntityId = record.snapshot_id.parse().ok()?;
    match id {
        api::entity::EntityId::Claim { namespace, claim, .. }
            if namespace != item::namespace(item) || claim != item::name(item) =>
        {
            Some(format!("its record is of claim {namespace}/{claim}, from before a restore under another name"))
        }
        _ => None,
    }
}

impl Delete {
    /// The DeleteSnapshot to make in the Velero namespace. `repository` is ignored when nothing was uploaded.
    pub fn request(&self, backup: &Backup, velero_namespace: &str, repository: &str, name: &str) -> DeleteSnapshot {
        let repository = if self.local { "" } else { repository };
        let spec =
            DeleteSnapshotSpec { snapshot_id: self.snapshot_id.clone(), backup_repository: repository.to_owned() };
        let mut delete = DeleteSnapshot::new(name, spec);
        delete.metadata.namespace = Some(velero_namespace.to_owned());
        let mut marks = labels::ours();
        marks.insert(labels::BACKUP_NAME.to_owned(), labels::backup_name(backup.name()));
        if !backup.uid().is_empty() {
            marks.insert(labels::BACKUP_UID.to_owned(), backup.uid().to_owned());
        }
        delete.metadata.labels = Some(marks);
        delete
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    const ID: &str = "pvc:shop/data-0:aXZkOmRpc2s6c25hcA";

    fn backup(name: &str) -> Backup {
        serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
    }

    fn claim(id: &str, backup: Option<&str>, repository: Option<&str>) -> Value {
        let labels = backup.map(|name| json!({"velero.io/backup-name": name}));
        let snapshot = json!({"metadata": {"labels": labels}, "spec": {"backupRepository": repository}, "status": {"snapshotID": id}});
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data-0", "namespace": "shop",
            "annotations": {labels::SNAPSHOT_BLOB: STANDARD.encode(snapshot.to_string())}}})
    }

    #[test]
    fn what_goes_with_a_backup_that_is_deleted() {
        let old = "ivd:disk:snap";
        let plain = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data-0"}});
        let mut damaged = plain.clone();
        damaged["metadata"]["annotations"] = json!({labels::SNAPSHOT_BLOB: "%"});
        let cases = [
            ("ours", claim(ID, Some("nightly"), Some("br-1")), "delete"),
            ("of a writer that leaves no label", claim(ID, None, None), "delete"),
            ("of a version up to 1.0.2", claim(old, Some("nightly"), Some("br-1")), "delete"),
            ("made in local mode, whatever the mode is today (W-48)", claim(ID, Some("nightly"), Some("")), "local"),
            ("W-12: of an older backup", claim(ID, Some("last-week"), Some("br-1")), "nothing"),
            ("W-12: of another claim", claim("pvc:old/data-0:aXZkOmRpc2s6c25hcA", None, None), "nothing"),
            ("no data of ours", plain, "nothing"),
            ("W-06: nothing was recorded", claim("", Some("nightly"), Some("br-1")), "nothing"),
            ("another kind", json!({"apiVersion": "v1", "kind": "Pod"}), "nothing"),
            ("damaged", damaged, "refuse"),
        ];
        for (situation, item, want) in cases {
            let got = match decide(&backup("nightly"), &item, false) {
                Decision::Delete(delete) => {
                    if delete.local {
                        "local"
                    } else {
                        "delete"
                    }
                }
                Decision::Nothing(_) => "nothing",
                Decision::Refuse(_) => "refuse",
            };
            assert_eq!(got, want, "{situation}");
        }
        let Decision::Delete(delete) = decide(&backup("nightly"), &claim(ID, None, None), true) else { panic!("ours") };
        assert!(delete.local, "a record that does not say follows the setting");
    }

    #[test]
    fn the_request_outlives_claim_and_namespace() {
        let Decision::Delete(delete) = decide(&backup("nightly"), &claim(ID, Some("nightly"), Some("br-1")), false)
        else {
            panic!("ours")
        };
        assert_eq!(delete.source_namespace, "shop");
        let request = delete.request(&backup("nightly"), "velero", "br-9", "delete-1");
        assert_eq!(request.metadata.namespace.as_deref(), Some("velero"));
        assert_eq!(
            request.metadata.labels.as_ref().and_then(|l| l.get("velero.io/exclude-from-backup")).map(String::as_str),
            Some("true")
        );
        assert_eq!((request.spec.snapshot_id.as_str(), request.spec.backup_repository.as_str()), (ID, "br-9"));
        let local = Delete { local: true, ..delete };
        assert_eq!(local.request(&backup("nightly"), "velero", "br-9", "delete-1").spec.backup_repository, "");
    }
}
