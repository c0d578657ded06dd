//! The record of a backup on its claim: base64 of the JSON of the Snapshot, in an annotation in the tarball alone.
//! Restores and deletions of any version read it, ours and the original's.

use api::{CLAIM_KIND, Reason, ResourceHandle, Snapshot, labels, metadata};
use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::Value;

use super::item;
use crate::Problem;

/// Read with or without padding.
const READER: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the record says. Only the first four are promised by all writers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// `pvc:…` or `ivd:…`; empty when the writer was unlucky (W-06).
    pub snapshot_id: String,
    /// The claim in protobuf; `None` when the writer was unlucky (W-06).
    pub metadata: Option<metadata::Blob>,
    /// API group of what was backed up.
    pub api_group: String,
    /// Kind of what was backed up.
    pub kind: String,
    /// BackupRepository that the backup went to; empty is local mode, `None` is not said.
    pub repository: Option<String>,
    /// The backup it was made in, as the Snapshot's label has it.
    pub backup_name: Option<String>,
}

/// Reads the record of a claim; `None` when it has none.
///
/// # Errors
/// `InvalidSpec` when there is one that cannot be read.
pub fn read(item: &Value) -> Result<Option<Record>, Problem> {
    let Some(text) = item::annotation(item, labels::SNAPSHOT_BLOB) else { return Ok(None) };
    let bad = |why: String| {
        let cause = format!("read annotation {} of {}: {why}", labels::SNAPSHOT_BLOB, item::said(item));
        Problem::lasting(Reason::InvalidSpec, cause)
            .with_fix(Some("The backup's record of this claim is damaged; use another backup.".to_owned()))
    };
    let lines: String = text.split_ascii_whitespace().collect();
    let json = READER.decode(lines).map_err(|e| bad(format!("it is not base64: {e}")))?;
    let tree: Value = serde_json::from_slice(&json).map_err(|e| bad(format!("it is not JSON: {e}")))?;
    if !tree.is_object() {
        return Err(bad("it is not an object".to_owned()));
    }
    let text = |pointer: &str| tree.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Ok(Some(Record {
        snapshot_id: text("/status/snapshotID").unwrap_or_default(),
        metadata: tree
            .pointer("/status/metadata")
            .and_then(|v| serde_json::from_value::<metadata::Blob>(v.clone()).ok())
            .filter(|blob| !blob.is_empty()),
        api_group: text("/spec/resourceHandle/apiGroup").unwrap_or_default(),
        kind: text("/spec/resourceHandle/kind").unwrap_or_default(),
        repository: text("/spec/backupRepository"),
        backup_name: item::label(&tree, labels::BACKUP_NAME).map(str::to_owned),
    }))
}

/// Writes the record of a Snapshot whose disk snapshot exists. Complete by itself (W-06): the claim is taken from
/// `claim` where the driver could not read it any more.
///
/// # Errors
/// `Internal` when the Snapshot names no disk snapshot: without that a record restores nothing.
pub fn write(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Result<String, Problem> {
    let mut complete = snapshot.clone();
    let status = complete.status.get_or_insert_default();
    if status.snapshot_id.as_deref().unwrap_or_default().is_empty() {
        let name = complete.metadata.name.unwrap_or_default();
        let cause = format!("record Snapshot {name} on its claim: it names no disk snapshot yet");
        return Err(Problem::lasting(Reason::Internal, cause));
    }
    if status.metadata.as_ref().is_none_or(metadata::Blob::is_empty) {
        status.metadata = Some(metadata::Blob::of(claim));
    }
    let handle = &mut complete.spec.resource_handle;
    let name = std::mem::take(&mut handle.name);
    *handle = ResourceHandle { kind: CLAIM_KIND.to_owned(), name, api_group: Some(String::new()) };
    let json = serde_json::to_vec(&complete).expect("our kinds are always JSON");
    Ok(STANDARD.encode(json))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::SnapshotStatus;
    use serde_json::json;

    fn annotated(text: &str) -> Value {
        json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data-0", "namespace": "shop", "annotations": {labels::SNAPSHOT_BLOB: text}}})
    }

    fn encoded(snapshot: &Value) -> String {
        STANDARD.encode(snapshot.to_string())
    }

    #[test]
    fn a_record_of_the_original_is_read_without_its_kind_and_with_all_its_clutter() {
        let written = json!({
            "metadata": {"name": "snap-1", "uid": "u", "resourceVersion": "7", "managedFields": [{"manager": "plugin"}],
                "labels": {"velero.io/backup-name": "nightly"}, "creationTimestamp": null},
            "spec": {"resourceHandle": {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "data-0"}, "backupRepository": "br-1"},
            "status": {"phase": "Snapshotted", "progress": {}, "svcSnapshotName": "", "snapshotID": "pvc:shop/data-0:x", "metadata": "CgZkYXRhLTA="}
        });
        let record = read(&annotated(&encoded(&written))).unwrap().unwrap();
        assert_eq!((record.snapshot_id.as_str(), record.kind.as_str()), ("pvc:shop/data-0:x", CLAIM_KIND));
        assert_eq!((record.backup_name.as_deref(), record.repository.as_deref()), (Some("nightly"), Some("br-1")));
        assert!(record.metadata.is_some());
        let padded = encoded(&json!({"status": {"snapshotID": "i"}}));
        for text in [padded.trim_end_matches('=').to_owned(), format!("{}\n{}", &padded[..8], &padded[8..])] {
            assert_eq!(read(&annotated(&text)).unwrap().unwrap().snapshot_id, "i", "{text}");
        }
    }

    #[test]
    fn w06_what_an_unlucky_writer_left_out_reads_as_absent() {
        let record = read(&annotated(&encoded(&json!({"status": {"metadata": ""}})))).unwrap().unwrap();
        assert_eq!((record.snapshot_id.as_str(), record.metadata, record.repository), ("", None, None));
        assert_eq!(read(&json!({"metadata": {}})).unwrap(), None);
        for bad in ["%", "AAAA", "MQ=="] {
            let problem = read(&annotated(bad)).unwrap_err();
            assert!(problem.message().contains("claim shop/data-0"), "{bad}: {}", problem.message());
        }
    }

    #[test]
    fn w06_a_record_is_never_written_incomplete() {
        let claim: PersistentVolumeClaim =
            serde_json::from_value(json!({"metadata": {"name": "data-0", "namespace": "shop"}})).unwrap();
        let mut snapshot = Snapshot::new("snap-1", api::SnapshotSpec::default());
        snapshot.spec.resource_handle = ResourceHandle { api_group: None, ..ResourceHandle::claim("data-0") };
        assert!(write(&snapshot, &claim).is_err(), "no disk snapshot yet");
        snapshot.status =
            Some(SnapshotStatus { snapshot_id: Some("pvc:shop/data-0:x".to_owned()), ..SnapshotStatus::default() });
        let record = read(&annotated(&write(&snapshot, &claim).unwrap())).unwrap().unwrap();
        assert_eq!(record.metadata.unwrap().claim().unwrap().metadata.name.as_deref(), Some("data-0"));
        assert_eq!((record.api_group.as_str(), record.kind.as_str()), ("", CLAIM_KIND));
    }
}
