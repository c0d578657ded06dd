//! The claim blob against a published object of the original, bit for bit.
#![allow(clippy::unwrap_used)] // a test may fail where it stands

use api::metadata::{Blob, Error, decode, encode, rewrite};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use proptest::prelude::*;
use serde_json::json;

/// `shop/data-0` as the original stored it: 298 bytes.
fn vector() -> Vec<u8> {
    let sample = include_str!("../testdata/snapshot.yaml");
    let snapshot: serde_json::Value = serde_yaml_ng::from_str(sample).unwrap();
    STANDARD.decode(snapshot["status"]["metadata"].as_str().unwrap()).unwrap()
}

/// The same claim as the API server shows it.
fn claim() -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "data-0", "namespace": "shop", "uid": "0b7c1a52-9f0e-4d57-8a33-1c2d3e4f5a6b",
            "resourceVersion": "4711", "creationTimestamp": "2024-03-05T09:00:00Z",
            "labels": {"app": "web"},
            "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
            "finalizers": ["kubernetes.io/pvc-protection"],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "3Gi"}},
            "volumeName": "pvc-0b7c1a52-9f0e-4d57-8a33-1c2d3e4f5a6b", "storageClassName": "gold",
            "volumeMode": "Filesystem",
        },
        "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "3Gi"}},
    }))
    .unwrap()
}

/// A claim with every field we know.
fn full_claim() -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "data-0", "generateName": "data-", "namespace": "shop", "selfLink": "/x", "uid": "u",
            "resourceVersion": "1", "generation": 3, "creationTimestamp": "2024-03-05T09:00:00Z",
            "deletionTimestamp": "2024-03-06T09:00:00Z", "deletionGracePeriodSeconds": 30,
            "labels": {"b": "2", "a": "", "c": "ü"}, "annotations": {"x": "y"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "o",
                                 "controller": true, "blockOwnerDeletion": false}],
            "finalizers": ["one", "two"],
            "managedFields": [{"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                               "time": "2024-03-05T09:00:01Z", "subresource": "status",
                               "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}}}],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "resources": {"requests": {"storage": "3Gi"}, "limits": {"storage": "4Gi"}},
            "volumeName": "pv", "storageClassName": "", "volumeMode": "Block",
            "selector": {"matchLabels": {"tier": "db"},
                         "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
            "dataSource": {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "old"},
            "dataSourceRef": {"apiGroup": "g", "kind": "K", "name": "n", "namespace": "other"},
            "volumeAttributesClassName": "fast",
        },
        "status": {
            "phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "3Gi"},
            "conditions": [{"type": "Resizing", "status": "True", "lastProbeTime": "2024-03-05T09:00:02Z",
                            "lastTransitionTime": "2024-03-05T09:00:03Z", "reason": "r", "message": "m"}],
            "allocatedResources": {"storage": "5Gi"},
            "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
            "currentVolumeAttributesClassName": "slow",
            "modifyVolumeStatus": {"status": "Pending", "targetVolumeAttributesClassName": "fast"},
        },
    }))
    .unwrap()
}

fn length_delimited(field: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn a_claim_is_written_bit_for_bit_as_the_original_writes_it() {
    assert_eq!(vector().len(), 298);
    assert_eq!(encode(&claim()), vector());
}

#[test]
fn a_claim_of_the_original_is_read_completely() {
    assert_eq!(decode(&vector()).unwrap(), claim());
    assert_eq!(encode(&decode(&vector()).unwrap()), vector());
}

#[test]
fn no_field_of_a_claim_is_lost() {
    let claim = full_claim();
    assert_eq!(decode(&encode(&claim)).unwrap(), claim);
    assert_eq!(Blob::of(&claim).claim().unwrap(), claim);
}

#[test]
fn a_restore_into_another_namespace_changes_the_namespace_alone() {
    let moved = rewrite(&encode(&full_claim()), |c| c.metadata.namespace = Some("shop-restored".to_owned())).unwrap();
    let mut wanted = full_claim();
    wanted.metadata.namespace = Some("shop-restored".to_owned());
    assert_eq!(moved, encode(&wanted));
    assert_eq!(rewrite(&vector(), |_| ()).unwrap(), vector());
}

#[test]
fn a_field_newer_than_we_are_survives_a_rewrite() {
    // unknown fields in the claim, in its metadata (also the historic cluster name), spec and one label entry
    let label = [length_delimited(1, b"app"), length_delimited(2, b"web"), length_delimited(9, b"new")].concat();
    let meta = [
        length_delimited(1, b"data-0"),
        length_delimited(11, &label),
        length_delimited(15, b""),
        length_delimited(40, b"newer"),
    ]
    .concat();
    let spec = [length_delimited(3, b"pv"), vec![0xa0, 0x06, 0x2a]].concat(); // field 100, varint 42
    let old =
        [length_delimited(1, &meta), length_delimited(2, &spec), length_delimited(3, b""), length_delimited(77, b"x")]
            .concat();
    let new = rewrite(&old, |c| c.spec.as_mut().unwrap().storage_class_name = Some("silver".to_owned())).unwrap();
    for unknown in [
        length_delimited(9, b"new"),
        length_delimited(15, b""),
        length_delimited(40, b"newer"),
        vec![0xa0, 0x06, 0x2a],
        length_delimited(77, b"x"),
    ] {
        assert!(new.windows(unknown.len()).any(|w| w == unknown), "{unknown:?} is gone");
    }
    let claim = decode(&new).unwrap();
    assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), Some("silver"));
    assert_eq!(claim.metadata.labels.unwrap()["app"], "web");
}

#[test]
fn a_damaged_blob_is_refused_and_never_a_panic() {
    let whole = vector();
    for length in 0..whole.len() {
        let _ = decode(&whole[..length]); // most are errors; some cuts leave a smaller claim
        let _ = rewrite(&whole[..length], |_| ());
    }
    assert!(matches!(decode(b""), Err(Error::NotAClaim)));
    assert!(matches!(decode(&[0xff; 40]), Err(Error::Protobuf(_))));
    let text: Blob = serde_json::from_value(json!("%%%")).unwrap();
    assert!(matches!(text.claim(), Err(Error::Base64(_))));
}

proptest! {
    #[test]
    fn no_bytes_make_us_crash(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..298_usize, flip in 1..=255_u8) {
        let _ = rewrite(&bytes, |_| ());
        let mut damaged = vector();
        damaged[at] ^= flip;
        let _ = rewrite(&damaged, |_| ());
    }
}
