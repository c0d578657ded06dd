//! CNS volumes, whose errors come on two levels.

use serde_json::json;
use vsphere::{Deleted, FaultKind, ReasonKind, Recovery};

use crate::double::{Double, MINUTE, WHILE, fault, volume};

const CREATE: &str = "CnsCreateVolume";
const DELETE: &str = "CnsDeleteVolume";

#[tokio::test]
async fn a_volume_is_created_found_again_and_deleted() {
    let double = Double::start().await;
    let vcenter = double.client();
    let name = "pvc-<5e0c> & co";
    let made = vcenter.create_volume(&volume(name, (3 << 20) + 1), MINUTE).await.unwrap();
    assert!(!made.found);
    let again = vcenter.create_volume(&volume(name, (3 << 20) + 1), MINUTE).await.unwrap();
    assert_eq!((again.found, &again.id), (true, &made.id), "asked for again");

    let known = vcenter.query_volume(&made.id).await.unwrap().unwrap();
    assert_eq!((known.id, known.name.as_str(), known.capacity_bytes), (made.id.clone(), name, 4 << 20));
    let disk = vcenter.retrieve_disk(&made.id).await.unwrap();
    assert_eq!((disk.capacity_bytes, disk.attached), (4 << 20, false));
    assert!(disk.datastore.starts_with("datastore-") && disk.file_path.starts_with('['), "{disk:?}");

    assert_eq!(vcenter.delete_volume(&made.id, MINUTE).await.unwrap(), Deleted::Now);
    assert_eq!(vcenter.delete_volume(&made.id, MINUTE).await.unwrap(), Deleted::AlreadyGone);
    assert_eq!(vcenter.query_volume(&made.id).await.unwrap(), None);
}

#[tokio::test]
async fn no_fault_leads_to_two_volumes_or_none() {
    let double = Double::start().await;
    let vcenter = double.client();
    let mut rules = vec![
        json!({"method": CREATE, "lostReply": true, "count": 1}),
        json!({"method": CREATE, "httpStatus": 503, "count": 1}),
        json!({"method": "RetrievePropertiesEx", "fault": "ManagedObjectNotFound", "count": 1}),
        json!({"method": CREATE, "where": "result", "fault": "CnsAlreadyRegisteredFault", "happens": true, "count": 1}),
        fault(CREATE, "call", "VslmSyncFault", 1),
    ];
    for place in ["call", "task", "result"] {
        rules.push(fault(CREATE, place, "InvalidState", 1));
        rules.push(fault(CREATE, place, "TaskInProgress", 1));
    }
    for (number, rule) in rules.into_iter().enumerate() {
        double.rule(rule.clone()).await;
        let name = format!("pvc-{number}");
        let made = vcenter.create_volume(&volume(&name, 1 << 20), MINUTE).await;
        let made = made.unwrap_or_else(|e| panic!("{rule}: {e:?}"));
        double.tell("DELETE", "/faults", None).await;
        let disks = double.tell("GET", "/disks", None).await;
        assert_eq!(disks.as_array().unwrap().len(), 1, "{rule}: {disks}");
        assert_eq!(vcenter.delete_volume(&made.id, MINUTE).await.unwrap(), Deleted::Now);
    }
}

#[tokio::test]
async fn a_task_that_succeeds_with_a_failed_volume_is_a_failure() {
    let double = Double::start().await;
    let vcenter = double.client();
    double.rule(json!({"method": CREATE, "where": "result", "fault": "NoDiskSpace", "message": "it is full"})).await;
    let error = vcenter.create_volume(&volume("pvc-1", 1 << 20), MINUTE).await.unwrap_err();
    assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::NoSpace, Recovery::GiveUp));
    assert!(error.describe().contains("it is full"), "{}", error.describe());
    double.tell("DELETE", "/faults", None).await;

    let made = vcenter.create_volume(&volume("pvc-1", 1 << 20), MINUTE).await.unwrap();
    double.rule(fault(DELETE, "result", "CnsFault", 1)).await;
    let error = vcenter.delete_volume(&made.id, MINUTE).await.unwrap_err();
    assert!(matches!(error.cause(), vsphere::Cause::Fault(f) if f.kind == FaultKind::Other), "{error:?}");
    double.rule(fault(DELETE, "result", "CnsVolumeNotFoundFault", 0)).await;
    let error = vcenter.delete_volume(&made.id, WHILE).await.unwrap_err();
    assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::Failed, Recovery::Retry), "{error:?}");
    double.tell("DELETE", "/faults", None).await;
    double.rule(fault(DELETE, "result", "CnsVolumeNotFoundFault", 1)).await;
    assert_eq!(vcenter.delete_volume(&made.id, MINUTE).await.unwrap(), Deleted::Now, "it was there after all");
    assert_eq!(double.tell("GET", "/disks", None).await, json!([]));
}

#[tokio::test]
async fn a_volume_in_use_is_not_deleted_and_said_to_be_busy() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    double.tell("POST", "/attach", Some(json!({"disk": disk, "vm": "node-a"}))).await;
    assert!(vcenter.retrieve_disk(&disk).await.unwrap().attached);
    let error = vcenter.delete_volume(&disk, WHILE).await.unwrap_err();
    assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::Busy, Recovery::Retry), "{error:?}");
    double.tell("POST", "/detach", Some(json!({"disk": disk}))).await;
    assert_eq!(vcenter.delete_volume(&disk, MINUTE).await.unwrap(), Deleted::Now);
}
