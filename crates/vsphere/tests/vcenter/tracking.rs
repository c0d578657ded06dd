//! Switching change tracking: of machines by the id that nodes know, of disks that nobody uses; and the rule that makes the
//! order matter.

use serde_json::json;
use vsphere::{Machine, ReasonKind, Recovery, Vcenter};

use crate::double::{Double, MINUTE, WHILE, fault};

const RECONFIGURE: &str = "ReconfigVM_Task";
const SET: &str = "VslmSetVStorageObjectControlFlags";

/// The virtual machine of that name, found as a node's is.
async fn machine(double: &Double, vcenter: &Vcenter, name: &str) -> Machine {
    let machines = double.tell("GET", "/machines", None).await;
    let shown = machines.as_array().unwrap().iter().find(|machine| machine["name"] == name).unwrap().clone();
    let mut found = vcenter.machines_with_uuid(shown["uuid"].as_str().unwrap()).await.unwrap();
    assert_eq!((found.len(), shown["id"].as_str()), (1, Some(found[0].id.as_str())), "{shown}");
    found.remove(0)
}

#[tokio::test]
async fn a_tracked_disk_goes_only_where_changes_are_tracked() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    let node = machine(&double, &vcenter, "node-b").await;
    assert!((!node.tracking && !node.snapshots) && node.hardware.starts_with("vmx-"), "{node:?}");
    let attach = json!({"disk": disk, "vm": "node-b"});

    vcenter.track_disk(&disk, true, MINUTE).await.unwrap();
    vcenter.track_disk(&disk, true, MINUTE).await.unwrap(); // again is no mistake
    assert!(vcenter.retrieve_disk(&disk).await.unwrap().tracking);
    assert_eq!(double.ask("POST", "/attach", Some(attach.clone())).await.0, 409, "its pod does not start");
    vcenter.track_machine(&node, true, MINUTE).await.unwrap();
    let switched = machine(&double, &vcenter, "node-b").await;
    assert_eq!(switched, Machine { tracking: true, ..node.clone() });
    double.tell("POST", "/attach", Some(attach)).await;

    let error = vcenter.track_disk(&disk, false, WHILE).await.unwrap_err();
    assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::Busy, Recovery::GiveUp), "{error:?}");
    double.tell("POST", "/detach", Some(json!({"disk": disk}))).await;
    vcenter.track_disk(&disk, false, MINUTE).await.unwrap();
    assert!(!vcenter.retrieve_disk(&disk).await.unwrap().tracking);
    vcenter.track_machine(&switched, false, MINUTE).await.unwrap();
    assert_eq!(machine(&double, &vcenter, "node-b").await, node);
}

#[tokio::test]
async fn a_machine_that_is_not_there_is_none_and_not_another() {
    let double = Double::start().await;
    let vcenter = double.client();
    assert_eq!(vcenter.machines_with_uuid("42303f6c-0d4b-9b3c-3f2e-1a2b3c4d5e6f").await.unwrap(), []);
    let gone = Machine { id: "vm-0".to_owned(), ..machine(&double, &vcenter, "node-a").await };
    let error = vcenter.track_machine(&gone, true, WHILE).await.unwrap_err();
    assert!(error.describe().contains("switch change tracking of virtual machine node-a"), "{}", error.describe());
    assert!(!machine(&double, &vcenter, "node-a").await.tracking);
}

/// A cloud provider may know a node by either; the one of the BIOS comes first, as most do.
#[tokio::test]
async fn a_machine_is_found_by_the_uuid_of_its_bios_or_else_by_that_of_vcenter() {
    let double = Double::start().await;
    let vcenter = double.client();
    let machines = double.tell("GET", "/machines", None).await;
    for shown in machines.as_array().unwrap() {
        let (bios, instance) = (shown["uuid"].as_str().unwrap(), shown["instanceUuid"].as_str().unwrap());
        assert_ne!(bios, instance, "they would prove nothing");
        for uuid in [bios, instance] {
            let asked = double.calls("FindAllByUuid").await;
            let found = vcenter.machines_with_uuid(uuid).await.unwrap();
            let ids: Vec<_> = found.iter().map(|machine| machine.id.as_str()).collect();
            assert_eq!(ids, [shown["id"].as_str().unwrap()], "{shown}");
            let questions = double.calls("FindAllByUuid").await - asked;
            assert_eq!(questions, if uuid == bios { 1 } else { 2 }, "{shown}");
        }
    }
}

#[tokio::test]
async fn what_passes_is_outlasted_and_a_missing_privilege_is_named() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    let node = machine(&double, &vcenter, "node-a").await;
    let mut passing = vec![fault(RECONFIGURE, "call", "TaskInProgress", 2), fault(SET, "call", "VslmSyncFault", 2)];
    for method in [RECONFIGURE, SET] {
        passing.push(json!({"method": method, "lostReply": true, "count": 1}));
        passing.push(json!({"method": method, "httpStatus": 503, "count": 1}));
    }
    for rule in passing {
        double.rule(rule.clone()).await;
        vcenter.track_machine(&node, true, MINUTE).await.unwrap_or_else(|e| panic!("{rule}: {e:?}"));
        vcenter.track_disk(&disk, true, MINUTE).await.unwrap_or_else(|e| panic!("{rule}: {e:?}"));
        let tracked =
            (machine(&double, &vcenter, "node-a").await.tracking, vcenter.retrieve_disk(&disk).await.unwrap().tracking);
        assert_eq!(tracked, (true, true), "{rule}");
        double.tell("DELETE", "/faults", None).await;
        vcenter.track_disk(&disk, false, MINUTE).await.unwrap();
        vcenter.track_machine(&node, false, MINUTE).await.unwrap();
    }

    let privilege = "VirtualMachine.Config.ChangeTracking";
    let rule = json!({"method": RECONFIGURE, "fault": "NoPermission", "fields": {"privilegeId": privilege}});
    double.rule(rule).await;
    let before = double.calls(RECONFIGURE).await;
    let error = vcenter.track_machine(&node, true, MINUTE).await.unwrap_err();
    assert!(error.fix().is_some_and(|fix| fix.contains(privilege)), "{}", error.describe());
    assert_eq!(double.calls(RECONFIGURE).await, before + 1, "asking again does not help");
}
