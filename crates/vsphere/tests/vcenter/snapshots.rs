//! Exactly one snapshot per token, and none left that was to be deleted, whatever happens to calls and replies.

use std::time::Duration;

use disk::{ByteRange, ChangeId, DiskSnapshot};
use serde_json::json;
use vsphere::{Deleted, ReasonKind, Recovery};

use crate::double::{Double, MINUTE, WHILE, fault};

const CREATE: &str = "VslmCreateSnapshot_Task";
const DELETE: &str = "VslmDeleteSnapshot_Task";

#[tokio::test]
async fn a_snapshot_is_taken_listed_and_deleted() {
    let double = Double::start().await;
    let vcenter = double.client().for_operation("upload <1>");
    let disk = double.disk(&vcenter).await;
    let token = "velero/<backup> & \"volume\"\nline";
    let snapshot = vcenter.create_snapshot(&disk, token, MINUTE).await.unwrap();
    let listed = vcenter.list_snapshots(&disk).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].id, listed[0].description.as_str()), (&snapshot, token));
    assert_eq!(vcenter.create_snapshot(&disk, token, MINUTE).await.unwrap(), snapshot, "asked for again");

    let snapshot = DiskSnapshot { disk: disk.clone(), snapshot };
    assert_eq!(vcenter.snapshot_details(&snapshot).await.unwrap().change_id, None, "the disk is not tracked");
    assert_eq!(vcenter.delete_snapshot(&snapshot, MINUTE).await.unwrap(), Deleted::Now);
    assert_eq!(vcenter.delete_snapshot(&snapshot, MINUTE).await.unwrap(), Deleted::AlreadyGone);
    assert!(vcenter.list_snapshots(&disk).await.unwrap().is_empty());
}

#[tokio::test]
async fn no_fault_of_vcenter_leads_to_two_snapshots_or_none() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    let mut rules = vec![
        json!({"method": CREATE, "lostReply": true, "count": 1}),
        json!({"method": CREATE, "httpStatus": 503, "count": 1}),
        json!({"method": CREATE, "httpStatus": 502, "count": 1}),
        json!({"method": "VslmQueryInfo", "lostReply": true, "count": 2}),
        json!({"method": "VslmQueryInfo", "fault": "ManagedObjectNotFound", "count": 1}),
        json!({"method": "VslmQueryInfo", "httpStatus": 503, "count": 2}),
        fault("VslmQueryInfo", "call", "NotAuthenticated", 1),
        fault("VslmQueryInfo", "call", "NotAuthenticated", 3),
        json!({"method": CREATE, "where": "task", "fault": "InvalidState", "happens": true, "count": 1}),
    ];
    for kind in ["InvalidState", "TaskInProgress", "VslmSyncFault", "NotFound", "SystemError", "InvalidDatastore"] {
        rules.extend(["call", "task"].map(|place| fault(CREATE, place, kind, 1)));
    }
    for (number, rule) in rules.into_iter().enumerate() {
        let token = format!("token {number}");
        double.rule(rule.clone()).await;
        let taken = vcenter.create_snapshot(&disk, &token, MINUTE).await.unwrap_or_else(|e| panic!("{rule}: {e:?}"));
        assert_eq!(double.snapshots(&disk).await, [token], "{rule}");
        let hits = double.tell("GET", "/faults", None).await[0]["hits"].as_u64().unwrap();
        assert!(hits > 0, "{rule} was never hit");
        double.tell("DELETE", "/faults", None).await;
        let taken = DiskSnapshot { disk: disk.clone(), snapshot: taken };
        assert_eq!(vcenter.delete_snapshot(&taken, MINUTE).await.unwrap(), Deleted::Now);
    }
}

#[tokio::test]
async fn two_processes_with_one_token_end_with_one_snapshot() {
    let double = Double::start().await;
    let (one, other) = (double.client(), double.client());
    let disk = double.disk(&one).await;
    double.rule(json!({"method": CREATE, "where": "task", "delayMs": 300})).await;
    let (a, b) =
        tokio::join!(one.create_snapshot(&disk, "token", MINUTE), other.create_snapshot(&disk, "token", MINUTE));
    assert_eq!(a.unwrap(), b.unwrap(), "both got the oldest");
    assert_eq!(double.calls(CREATE).await, 2, "both had begun");
    assert_eq!(double.snapshots(&disk).await, ["token"]);
}

#[tokio::test]
async fn a_vcenter_that_restarts_in_the_middle_costs_no_second_snapshot() {
    let mut double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    double.rule(json!({"method": "VslmQueryInfo", "delayMs": 60_000})).await; // the client never sees the end of its task
    let take = tokio::spawn({
        let (vcenter, disk) = (vcenter.clone(), disk.clone());
        async move { vcenter.create_snapshot(&disk, "token", MINUTE).await }
    });
    while double.calls("VslmQueryInfo").await == 0 || double.snapshots(&disk).await.is_empty() {
        assert!(!take.is_finished());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    double.restart().await;
    let taken = take.await.unwrap().unwrap();
    assert_eq!(double.snapshots(&disk).await, ["token"]);
    assert_eq!(vcenter.list_snapshots(&disk).await.unwrap()[0].id, taken);
}

#[tokio::test]
async fn a_disk_that_is_gone_is_not_waited_for() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    double.tell("DELETE", &format!("/disks/{disk}"), None).await;
    for error in [
        vcenter.create_snapshot(&disk, "token", MINUTE).await.unwrap_err(),
        vcenter.retrieve_disk(&disk).await.unwrap_err(),
        vcenter.list_snapshots(&disk).await.unwrap_err(),
    ] {
        assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::NotFound, Recovery::GiveUp), "{error:?}");
    }
    let snapshot = DiskSnapshot { disk, snapshot: "1".parse().unwrap() };
    assert_eq!(vcenter.delete_snapshot(&snapshot, MINUTE).await.unwrap(), Deleted::AlreadyGone);
}

#[tokio::test]
async fn a_busy_disk_is_tried_until_the_time_is_over_and_then_said_to_be_busy() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    double.rule(fault(CREATE, "task", "InvalidState", 0)).await;
    let error = vcenter.create_snapshot(&disk, "token", WHILE).await.unwrap_err();
    assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::Busy, Recovery::Retry));
    assert!(double.calls(CREATE).await >= 3, "it was tried again");
    assert!(error.describe().starts_with(&format!("take a snapshot of disk {disk}: did not succeed within")));
}

#[tokio::test]
async fn a_missing_privilege_is_named_with_its_object_and_not_retried() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    let fields =
        json!({"object": {"type": "Datastore", "value": "datastore-39"}, "privilegeId": "Datastore.FileManagement"});
    double.rule(json!({"method": CREATE, "fault": "NoPermission", "fields": fields})).await;
    let error = vcenter.create_snapshot(&disk, "token", MINUTE).await.unwrap_err();
    let want = ReasonKind::NoPermission {
        object: "Datastore:datastore-39".to_owned(),
        privilege: "Datastore.FileManagement".to_owned(),
    };
    assert_eq!((error.reason_kind(), error.recovery()), (want, Recovery::GiveUp));
    assert!(error.describe().contains("grant the account the privilege `Datastore.FileManagement` on Datastore:"));
    assert_eq!(double.calls(CREATE).await, 1);
}

#[tokio::test]
async fn delete_does_not_take_a_fault_for_a_proof_that_the_snapshot_is_gone() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    for (number, (kind, place)) in
        [("InvalidArgument", "task"), ("NotFound", "task"), ("NotFound", "call")].into_iter().enumerate()
    {
        let taken = vcenter.create_snapshot(&disk, &format!("token {number}"), MINUTE).await.unwrap();
        let snapshot = DiskSnapshot { disk: disk.clone(), snapshot: taken };
        double.rule(fault(DELETE, place, kind, 2)).await;
        assert_eq!(vcenter.delete_snapshot(&snapshot, MINUTE).await.unwrap(), Deleted::Now, "{kind} {place}");
        assert!(double.snapshots(&disk).await.is_empty(), "{kind} {place}: the snapshot is still there");

        let taken = vcenter.create_snapshot(&disk, "stays", MINUTE).await.unwrap();
        let snapshot = DiskSnapshot { disk: disk.clone(), snapshot: taken };
        double.rule(fault(DELETE, place, kind, 0)).await;
        let error = vcenter.delete_snapshot(&snapshot, WHILE).await.unwrap_err();
        assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::Failed, Recovery::Retry), "{error:?}");
        assert!(error.describe().contains("it is still listed"), "{}", error.describe());
        assert_eq!(double.snapshots(&disk).await, ["stays"], "the error says so");
        double.tell("DELETE", "/faults", None).await;
        vcenter.delete_snapshot(&snapshot, MINUTE).await.unwrap();
    }
}

#[tokio::test]
async fn a_delete_gets_through_busy_disks_and_lost_replies() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    let mut rules = vec![
        json!({"method": DELETE, "lostReply": true, "count": 1}),
        json!({"method": DELETE, "httpStatus": 503, "count": 2}),
        json!({"method": "VslmQueryInfo", "fault": "ManagedObjectNotFound", "count": 1}),
    ];
    for kind in ["InvalidState", "TaskInProgress", "FileLocked", "VslmSyncFault", "SystemError"] {
        rules.extend(["call", "task"].map(|place| fault(DELETE, place, kind, 2)));
    }
    for (number, rule) in rules.into_iter().enumerate() {
        let taken = vcenter.create_snapshot(&disk, &number.to_string(), MINUTE).await.unwrap();
        double.rule(rule.clone()).await;
        let snapshot = DiskSnapshot { disk: disk.clone(), snapshot: taken };
        vcenter.delete_snapshot(&snapshot, MINUTE).await.unwrap_or_else(|e| panic!("{rule}: {e:?}"));
        assert!(double.snapshots(&disk).await.is_empty(), "{rule}");
        double.tell("DELETE", "/faults", None).await;
    }
}

#[tokio::test]
async fn a_snapshot_that_the_catalog_does_not_know_yet_is_worth_another_look() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    let snapshot = vcenter.create_snapshot(&disk, "token", MINUTE).await.unwrap();
    let snapshot = DiskSnapshot { disk, snapshot };
    let fields = json!({"invalidProperty": "snapshotId"});
    double
        .rule(
            json!({"method": "VslmRetrieveSnapshotDetails", "fault": "InvalidArgument", "fields": fields, "count": 1}),
        )
        .await;
    assert_eq!(vcenter.snapshot_details(&snapshot).await.unwrap_err().recovery(), Recovery::Retry);
    vcenter.snapshot_details(&snapshot).await.unwrap();
}

#[tokio::test]
async fn without_an_answer_about_changes_everything_must_be_read() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    let snapshot = vcenter.create_snapshot(&disk, "token", MINUTE).await.unwrap();
    let snapshot = DiskSnapshot { disk, snapshot };
    let fields = json!({"faultMessage": [{"key": "vim.hostd.vmsvc.cbt.noEpoch"}]});
    double
        .rule(json!({"method": "VslmQueryChangedDiskAreas", "fault": "FileFault", "fields": fields, "count": 1}))
        .await;
    let error = vcenter.changed_areas(&snapshot, &ChangeId::new("*"), 2 << 20).await.unwrap_err();
    assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::ChangesUnknown, Recovery::GiveUp), "{error:?}");
    let none = vcenter.changed_areas(&snapshot, &ChangeId::new("*"), 0).await.unwrap();
    assert!(!none.touches(&ByteRange::new(0, 2 << 20)));
}

#[tokio::test]
async fn no_more_than_four_snapshots_are_taken_at_once() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    double.rule(json!({"method": CREATE, "where": "task", "delayMs": 300})).await;
    let began = std::time::Instant::now();
    let tokens: Vec<String> = (0..9).map(|n| format!("token {n}")).collect();
    let taken = tokens.iter().map(|token| vcenter.create_snapshot(&disk, token, MINUTE));
    futures::future::join_all(taken).await.into_iter().for_each(|taken| drop(taken.unwrap()));
    assert!(began.elapsed() >= Duration::from_millis(900), "9 tasks of 300 ms ran in {:?}", began.elapsed());
    assert_eq!(double.snapshots(&disk).await.len(), 9);
}
