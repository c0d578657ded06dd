//! What vCenter says of changes: followed to the last window, and never believed where it cannot be true.

use std::os::unix::fs::FileExt as _;

use disk::{ByteRange, ChangeId, DiskId, DiskSnapshot, Ranges};
use serde_json::json;
use vsphere::{ReasonKind, Vcenter};

use crate::double::{Double, MINUTE};

const QUERY: &str = "VslmQueryChangedDiskAreas";
/// What vCenter counts in.
const GRAIN: u64 = 64 << 10;
const SIZE: u64 = 2 << 20;

/// A tracked disk whose grains at these numbers were written between two snapshots: the change id of the first, and the
/// second.
async fn written(double: &Double, vcenter: &Vcenter, grains: &[u64]) -> (ChangeId, DiskSnapshot) {
    let disk = double.disk(vcenter).await;
    double.tell("POST", "/tracking", Some(json!({"disk": disk.as_str(), "on": true}))).await;
    let before = taken(vcenter, &disk, "before").await;
    let since = vcenter.snapshot_details(&before).await.unwrap().change_id.expect("the disk is tracked");
    let about = double.tell("GET", &format!("/disks/{disk}"), None).await;
    let file = std::fs::OpenOptions::new().write(true).open(about["path"].as_str().unwrap()).unwrap();
    for grain in grains {
        file.write_all_at(b"changed", grain * GRAIN + 100).unwrap();
    }
    (since, taken(vcenter, &disk, "after").await)
}

async fn taken(vcenter: &Vcenter, disk: &DiskId, token: &str) -> DiskSnapshot {
    let snapshot = vcenter.create_snapshot(disk, token, MINUTE).await.unwrap();
    DiskSnapshot { disk: disk.clone(), snapshot }
}

fn areas(grains: &[u64]) -> Ranges {
    grains.iter().map(|grain| ByteRange::new(grain * GRAIN, GRAIN)).collect()
}

#[tokio::test]
async fn every_change_is_found_however_many_windows_it_takes() {
    let double = Double::start().await;
    let vcenter = double.client();
    let grains = [0, 3, 4, 9, 17, 31];
    let (since, after) = written(&double, &vcenter, &grains).await;
    assert!(since.parts().is_some(), "a change id as servers write them: {since:?}");
    let disk = after.disk.as_str();
    for rule in [json!({}), json!({"areas": 1}), json!({"areas": 2}), json!({"lie": "crawl"}), json!({"delayMs": 50})] {
        let mut whole = json!({"method": QUERY, "disk": disk, "where": "answer"});
        whole.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        if rule != json!({}) {
            double.rule(whole).await;
        }
        assert_eq!(vcenter.changed_areas(&after, &since, SIZE).await.unwrap(), areas(&grains), "{rule}");
        double.tell("DELETE", "/faults", None).await;
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_true_is_refused_or_read_to_the_safe_side() {
    let double = Double::start().await;
    let vcenter = double.client();
    let grains = [1, 2, 20];
    let (since, after) = written(&double, &vcenter, &grains).await;
    let truth = areas(&grains);
    let whole = Ranges::from_iter([ByteRange::new(0, SIZE)]);
    let cases = [
        ("whole-disk", Some(&whole)),
        ("outside", None),
        ("empty-area", Some(&truth)),
        ("overlapping", Some(&truth)),
        ("unsorted", Some(&truth)),
        ("too-long", Some(&truth)),
        ("negative", None),
        ("gap", None),
        ("stuck", None),
        ("repeat", None),
    ];
    for (lie, want) in cases {
        let rule = json!({"method": QUERY, "disk": after.disk.as_str(), "where": "answer", "lie": lie});
        double.rule(rule).await;
        match (vcenter.changed_areas(&after, &since, SIZE).await, want) {
            (Ok(said), Some(want)) => assert_eq!(said, *want, "{lie}"),
            // nothing that changed is missing, and nothing lies beyond the disk
            (Ok(said), None) => {
                assert_eq!(said.intersection(&truth), truth, "{lie}: {said:?}");
                assert!(said.iter().all(|area| area.end() <= SIZE), "{lie}: {said:?}");
            }
            (Err(error), None) => assert!(!error.to_string().is_empty()),
            (Err(error), Some(_)) => panic!("{lie}: {error:?}"),
        }
        double.tell("DELETE", "/faults", None).await;
    }
}

#[tokio::test]
async fn a_change_id_of_another_time_is_not_answered_with_nothing() {
    let double = Double::start().await;
    let vcenter = double.client();
    let (since, after) = written(&double, &vcenter, &[5]).await;
    double.tell("POST", "/tracking", Some(json!({"disk": after.disk.as_str(), "on": true, "reset": true}))).await;
    let later = taken(&vcenter, &after.disk, "later").await;
    let error = vcenter.changed_areas(&later, &since, SIZE).await.unwrap_err();
    assert_eq!(error.reason_kind(), ReasonKind::ChangesUnknown, "{error:?}");
}
