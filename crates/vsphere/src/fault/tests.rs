//! Each row of the table of faults: what vCenter sends, what we were doing, what follows.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::Act::{
    CreateSnapshot, CreateVolume, DeleteSnapshot, DeleteVolume, ListSnapshots, QueryChangedAreas, QueryVolume,
    ReadSnapshotDetails, RetrieveDisk,
};
use super::Raised::{AtOnce, InTask};
use super::Recovery::{AlreadyDone, GiveUp, Reconcile, Retry};
use super::*;

const ALL_ACTS: [Act; 18] = [
    Act::Login,
    Act::ReadAbout,
    Act::ReadThumbprint,
    RetrieveDisk,
    ListSnapshots,
    ReadSnapshotDetails,
    QueryChangedAreas,
    CreateSnapshot,
    DeleteSnapshot,
    QueryVolume,
    CreateVolume,
    DeleteVolume,
    Act::FindMachine,
    Act::FindHosts,
    Act::NameHosts,
    Act::FindDatastores,
    Act::TrackMachine,
    Act::TrackDisk,
];
const READS: [Act; 5] = [RetrieveDisk, ListSnapshots, ReadSnapshotDetails, QueryChangedAreas, QueryVolume];
const XSI: &str = r#"xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance""#;

/// The fault as vCenter sends it, in the envelope or at the end of a task.
fn sent(name: &str, fields: &str, raised: Raised) -> Fault {
    match raised {
        AtOnce => {
            let detail = format!(r#"<{name}Fault xsi:type="{name}">{fields}</{name}Fault>"#);
            let fault = format!("<Fault {XSI}><faultstring>said so</faultstring><detail>{detail}</detail></Fault>");
            Fault::from_soap(&Element::parse(&fault).unwrap())
        }
        InTask => {
            let detail = format!(r#"<fault xsi:type="ns1:{name}">{fields}</fault>"#);
            let error = format!("<error {XSI}>{detail}<localizedMessage>said so</localizedMessage></error>");
            Fault::from_localized(&Element::parse(&error).unwrap(), InTask)
        }
    }
}

#[track_caller]
fn follows(name: &str, fields: &str, raised: &[Raised], acts: &[Act], want: Recovery) {
    for (raised, act) in raised.iter().flat_map(|r| acts.iter().map(move |a| (*r, *a))) {
        let fault = sent(name, fields, raised);
        assert_eq!(fault.type_name, name);
        assert_eq!(recovery(act, &fault), want, "{name} {raised:?} while we {act:?}");
    }
}

const BOTH: [Raised; 2] = [AtOnce, InTask];

#[test]
fn a_lost_session_repeats_reads_and_looks_before_it_repeats_writes() {
    follows("NotAuthenticated", "", &BOTH, &READS, Retry);
    follows("NotAuthenticated", "", &BOTH, &[DeleteSnapshot, DeleteVolume], Retry);
    follows("NotAuthenticated", "", &BOTH, &[CreateSnapshot, CreateVolume], Reconcile);
}

#[test]
fn what_only_a_person_can_change_is_not_retried() {
    for name in ["InvalidLogin", "NoPermission", "NoDiskSpace", "InsufficientStorageSpace"] {
        follows(name, "", &BOTH, &ALL_ACTS, GiveUp);
    }
    for name in ["MethodNotFound", "NotImplemented", "NotSupported", "CnsFault", "SomethingNew"] {
        follows(name, "", &BOTH, &ALL_ACTS, GiveUp);
    }
}

#[test]
fn a_busy_disk_is_waited_for() {
    let writes = [CreateSnapshot, DeleteSnapshot, CreateVolume, DeleteVolume];
    follows("InvalidState", "", &BOTH, &writes, Retry);
    follows("InvalidState", "", &BOTH, &READS, GiveUp);
    follows("TaskInProgress", "", &BOTH, &ALL_ACTS, Retry);
    follows("FileLocked", "", &BOTH, &ALL_ACTS, Retry);
}

#[test]
fn a_catalog_out_of_step_is_never_a_reason_to_repeat_blindly() {
    let writes = [CreateSnapshot, DeleteSnapshot, CreateVolume, DeleteVolume];
    follows("VslmSyncFault", "<id><id>1</id></id>", &BOTH, &writes, Reconcile);
    follows("VslmSyncFault", "", &BOTH, &READS, Retry);
}

#[test]
fn not_found_depends_on_what_was_wanted() {
    follows("NotFound", "", &BOTH, &[CreateSnapshot], Retry);
    follows("NotFound", "", &BOTH, &[DeleteSnapshot, DeleteVolume], AlreadyDone);
    follows("NotFound", "", &BOTH, &READS, GiveUp);
}

#[test]
fn a_refused_parameter_means_gone_only_at_the_end_of_a_delete() {
    follows("InvalidArgument", "", &[InTask], &[DeleteSnapshot], AlreadyDone);
    follows("InvalidArgument", "", &[AtOnce], &[DeleteSnapshot], GiveUp);
    let of_snapshot = "<invalidProperty>snapshotId</invalidProperty>";
    follows("InvalidArgument", of_snapshot, &BOTH, &[ReadSnapshotDetails], Retry);
    follows("InvalidArgument", "<invalidProperty>id</invalidProperty>", &BOTH, &[ReadSnapshotDetails], GiveUp);
    follows("InvalidArgument", of_snapshot, &BOTH, &[CreateSnapshot, RetrieveDisk], GiveUp);
}

#[test]
fn without_change_tracking_everything_is_read() {
    for key in ["noTrack", "noEpoch", "cannotGetChanges"] {
        let fields = format!("<faultMessage><key>vim.hostd.vmsvc.cbt.{key}</key><message>m</message></faultMessage>");
        follows("FileFault", &fields, &BOTH, &[QueryChangedAreas], GiveUp);
        assert_eq!(reason_kind(QueryChangedAreas, &sent("FileFault", &fields, AtOnce)), ReasonKind::ChangesUnknown);
    }
    for property in ["startOffset", "changeId", "deviceKey"] {
        let fault = sent("InvalidArgument", &format!("<invalidProperty>{property}</invalidProperty>"), AtOnce);
        assert_eq!(recovery(QueryChangedAreas, &fault), GiveUp);
        assert_eq!(reason_kind(QueryChangedAreas, &fault), ReasonKind::ChangesUnknown);
    }
}

#[test]
fn trouble_of_files_hosts_and_datastores_passes() {
    for name in [
        "FileFault",
        "SystemError",
        "InvalidDatastore",
        "HostCommunication",
        "HostNotConnected",
        "ManagedObjectNotFound",
    ] {
        follows(name, "", &BOTH, &READS, Retry);
    }
    for name in ["SystemError", "InvalidDatastore", "HostCommunication", "HostNotConnected"] {
        follows(name, "", &BOTH, &[CreateSnapshot, DeleteSnapshot, CreateVolume, DeleteVolume], Retry);
    }
}

#[test]
fn a_vcenter_that_forgot_our_task_leaves_the_outcome_open() {
    let writes = [CreateSnapshot, DeleteSnapshot, CreateVolume, DeleteVolume];
    follows("ManagedObjectNotFound", r#"<obj type="VslmTask">task-1</obj>"#, &BOTH, &writes, Reconcile);
}

#[test]
fn cns_says_what_exists_and_what_does_not() {
    for name in ["CnsVolumeNotFoundFault", "CnsNotRegisteredFault"] {
        follows(name, "", &BOTH, &[DeleteVolume, DeleteSnapshot], AlreadyDone);
        follows(name, "", &BOTH, &[QueryVolume], GiveUp);
    }
    for name in ["CnsAlreadyRegisteredFault", "CnsVolumeAlreadyExistsFault"] {
        follows(name, "", &BOTH, &[CreateVolume], Reconcile);
        follows(name, "", &BOTH, &[DeleteVolume], GiveUp);
    }
    follows("CnsSnapshotNotFoundFault", "", &BOTH, &[DeleteSnapshot], AlreadyDone);
    follows("CnsSnapshotNotFoundFault", "", &BOTH, &[RetrieveDisk], GiveUp);
    follows("CnsSnapshotCreatedFault", "", &BOTH, &[CreateSnapshot], AlreadyDone);
    follows("CnsSnapshotCreatedFault", "", &BOTH, &[QueryVolume], GiveUp);
}

#[test]
fn a_fault_is_known_by_its_elements_name_where_the_type_is_missing() {
    for (element, kind) in [("NotFoundFault", FaultKind::NotFound), ("VslmSyncFaultFault", FaultKind::VslmSync)] {
        let fault = format!("<Fault><faultstring>x</faultstring><detail><{element}/></detail></Fault>");
        assert_eq!(Fault::from_soap(&Element::parse(&fault).unwrap()).kind, kind);
    }
    let bare = Fault::from_soap(&Element::parse("<Fault><faultstring>x</faultstring></Fault>").unwrap());
    assert_eq!((bare.kind, bare.message.as_str()), (FaultKind::Other, "x"));
}

#[test]
fn the_privilege_that_is_missing_is_named_in_both_spellings() {
    let old = r#"<object type="Datastore">datastore-1</object><privilegeId>Datastore.FileManagement</privilegeId>"#;
    let new = r#"<missingPrivileges><entity type="Datastore">datastore-1</entity>
        <privilegeIds>Datastore.FileManagement</privilegeIds></missingPrivileges>"#;
    for fields in [old, new] {
        let fault = sent("NoPermission", fields, AtOnce);
        let text = fault.to_string();
        assert!(text.contains("`Datastore.FileManagement` on Datastore:datastore-1"), "{text}");
    }
    let text = sent("CnsFault", "<reason>no pool</reason>", InTask).to_string();
    assert_eq!(text, "vCenter refused (CnsFault: said so no pool)");
}
