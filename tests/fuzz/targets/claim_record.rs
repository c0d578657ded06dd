//! The record of a backup on its claim: an annotation that lay in a bucket.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fn read(text: &str) {
    let claim = json!({"kind": "PersistentVolumeClaim", "metadata": {
        "name": "data", "namespace": "shop", "annotations": {api::labels::SNAPSHOT_BLOB: text},
    }});
    if let Ok(Some(record)) = lifecycle::velero::blob::read(&claim)
        && let Some(metadata) = record.metadata
    {
        let _ = metadata.claim();
    }
}

fuzz_target!(|text: &str| {
    read(text);
    read(&STANDARD.encode(text));
});
