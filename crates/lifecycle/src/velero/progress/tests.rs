#![allow(clippy::unwrap_used, reason = "tests")]

use api::conditions::{STORED, Status};
use api::{CloneFromSnapshotSpec, CloneFromSnapshotStatus, SnapshotSpec, SnapshotStatus};

use super::*;

fn noon() -> Timestamp {
    "2026-01-02T12:00:00Z".parse().unwrap()
}

fn asked() -> Asked {
    Asked { settings: Settings::default(), timeout: SignedDuration::from_hours(4), now: noon() }
}

fn began() -> Timestamp {
    noon() - SignedDuration::from_mins(10)
}

fn snapshot(phase: &str, ready: Option<(Reason, &str)>) -> Snapshot {
    let spec = SnapshotSpec { backup_repository: "br-1".to_owned(), ..SnapshotSpec::default() };
    let mut snapshot = Snapshot::new("snap-1", spec);
    snapshot.metadata.creation_timestamp = Some(Time(began()));
    let mut status = SnapshotStatus {
        phase: Some(phase.into()).filter(|_| !phase.is_empty()),
        progress: Progress { total_bytes: 100, bytes_done: 40, bytes_per_second: 85 << 20, ..Progress::default() },
        ..SnapshotStatus::default()
    };
    if !matches!(phase, "" | "New" | "SnapshotFailed") {
        status.snapshot_id = Some("pvc:shop/data-0:x".to_owned());
    }
    if let Some((reason, message)) = ready {
        conditions::set(&mut status.conditions, READY, Status::False, reason, message, noon());
    }
    snapshot.status = Some(status);
    snapshot
}

fn answer(snapshot: &Snapshot, asked: &Asked) -> Answer {
    of_snapshot("shop.snap-1", Some(snapshot), asked)
}

#[test]
fn velero_hears_completed_only_when_the_data_is_in_the_repository() {
    let running = ["New", "Snapshotted", "Uploading", "UploadFailed", "Canceling", "CleanupAfterUploadFailed", "Later"];
    for phase in running {
        let got = answer(&snapshot(phase, Some((Reason::Queued, ""))), &asked());
        assert!(!got.completed && got.error.is_empty(), "{phase}: {got:?}");
    }
    let done = answer(&snapshot("Uploaded", Some((Reason::Uploaded, ""))), &asked());
    assert!(done.completed && done.error.is_empty(), "{done:?}");
    for phase in ["SnapshotFailed", "Canceled", "UploadFailedAfterRetry"] {
        let got = answer(&snapshot(phase, Some((Reason::BucketMissing, "open the repository"))), &asked());
        assert!(got.completed && !got.stop, "{phase}");
        let words = format!("BucketMissing: open the repository. {}", Reason::BucketMissing.fix());
        assert_eq!(got.error, words, "the word, the cause, the fix");
    }
}

#[test]
fn a_user_sees_what_happens_and_how_fast() {
    let cases = [
        ("Uploading", Reason::Uploading, "node-a", "a node is copying the disk into the repository, 85 MiB/s"),
        ("Snapshotted", Reason::Queued, "", "waiting for its turn"),
        (
            "UploadFailed",
            Reason::StoreUnreachable,
            "put a pack: refused",
            "the object store does not answer: put a pack: refused",
        ),
        (
            "Uploading",
            Reason::VddkHung,
            "no answer",
            "VMware's disk library stopped answering and was ended: no answer",
        ),
    ];
    for (phase, reason, message, want) in cases {
        assert_eq!(answer(&snapshot(phase, Some((reason, message))), &asked()).description, want);
    }
    let got = answer(&snapshot("Uploading", Some((Reason::Uploading, ""))), &asked());
    assert_eq!((got.done, got.total, got.started, got.updated), (40, 100, Some(began()), Some(noon())));
}

#[test]
fn before_the_driver_has_begun_nothing_is_said_to_have_started() {
    let mut fresh = snapshot("New", None);
    fresh.status.as_mut().unwrap().progress = Progress::default();
    for snapshot in [fresh.clone(), Snapshot { status: None, ..fresh }] {
        let got = answer(&snapshot, &asked());
        assert_eq!((got.started, got.updated, got.completed), (None, None, false));
        assert_eq!(got.description, "waiting for the driver");
    }
}

#[test]
fn the_originals_behaviour_is_a_setting() {
    let snapshotted = snapshot("Snapshotted", Some((Reason::Queued, "")));
    let mut early = asked();
    early.settings.complete_after_snapshot = true;
    assert!(answer(&snapshotted, &early).completed);
    assert!(!answer(&snapshot("New", None), &early).completed, "not before the disk snapshot exists");
    assert!(!answer(&snapshot("UploadFailedAfterRetry", None), &early).error.is_empty());
    let mut local = snapshotted;
    local.spec.backup_repository = String::new();
    assert!(answer(&local, &asked()).completed, "in local mode nothing follows");
    local.spec.snapshot_cancel = true;
    for asked in [asked(), early] {
        assert!(!answer(&local, &asked).completed, "its disk snapshot, which is the backup, is about to go");
    }
}

#[test]
fn w24_an_object_that_is_gone_ends_the_operation_with_words() {
    for got in [of_snapshot("shop.snap-1", None, &asked()), of_clone("shop.c-1", None, &asked())] {
        assert!(got.completed && got.error.contains("shop.") && got.error.contains("deleted"), "{got:?}");
    }
}

#[test]
fn v10_late_work_is_stopped_and_says_what_it_waited_for() {
    let with = |timeout_minutes| Asked { timeout: SignedDuration::from_mins(timeout_minutes), ..asked() };
    let slow = snapshot("Uploading", Some((Reason::StoreUnreachable, "put a pack")));
    assert!(!answer(&slow, &with(11)).stop);
    let late = answer(&slow, &with(10));
    assert!(late.completed && late.stop);
    assert!(late.error.contains("10 min") && late.error.contains("put a pack"), "{}", late.error);
    assert!(late.error.ends_with(Reason::StoreUnreachable.fix()), "{}", late.error);
    assert!(late.error.starts_with("StoreUnreachable: "), "{}", late.error);
    let soon = answer(&slow, &Asked { timeout: SignedDuration::from_secs(12), ..asked() });
    assert!(soon.error.contains("wait 12 s: "), "{}", soon.error);
    let silent = answer(&snapshot("New", None), &with(10));
    assert!(silent.error.contains("backup-driver"), "{}", silent.error);
    let done = answer(&snapshot("Uploaded", None), &with(10));
    assert!(done.completed && !done.stop && done.error.is_empty(), "what is done is not late");
}

#[test]
fn a_backup_that_is_stored_is_not_called_late_because_its_disk_snapshot_is_stuck() {
    let stuck = |stored: Status| {
        let mut snapshot = snapshot("CleanupAfterUploadFailed", Some((Reason::VCenterUnreachable, "delete it")));
        let said = &mut snapshot.status.as_mut().unwrap().conditions;
        conditions::set(said, STORED, stored, Reason::Uploaded, "", noon());
        snapshot
    };
    let late = Asked { timeout: SignedDuration::from_mins(10), ..asked() };
    let in_time = answer(&stuck(Status::True), &asked());
    assert!(!in_time.completed && !in_time.stop, "while there is time, Velero waits for it: {in_time:?}");
    let stored = answer(&stuck(Status::True), &late);
    assert!(stored.completed && !stored.stop && stored.error.is_empty(), "{stored:?}");
    let given_up = answer(&stuck(Status::False), &late);
    assert!(given_up.completed && given_up.stop && !given_up.error.is_empty(), "{given_up:?}");
}

#[test]
fn a_restore_is_followed_to_the_bound_claim() {
    let clone = |phase: &str, reason: Reason, message: &str| {
        let mut clone = CloneFromSnapshot::new("c-1", CloneFromSnapshotSpec::default());
        clone.metadata.creation_timestamp = Some(Time(began()));
        let mut status = CloneFromSnapshotStatus { phase: Some(phase.into()), ..CloneFromSnapshotStatus::default() };
        status.progress = Some(Progress { total_bytes: 10, bytes_done: 12, ..Progress::default() });
        conditions::set(&mut status.conditions, READY, Status::False, reason, message, noon());
        clone.status = Some(status);
        of_clone("shop.c-1", Some(&clone), &asked())
    };
    let waiting = clone("InProgress", Reason::WaitingForClaim, "claim shop/data-0");
    assert_eq!(waiting.description, "waiting for the claim that Velero is to create: claim shop/data-0");
    assert_eq!((waiting.done, waiting.total), (10, 10), "never more than all");
    let done = clone("Completed", Reason::Completed, "");
    assert!(done.completed && done.error.is_empty());
    let failed = clone("Failed", Reason::TargetTooSmall, "asks for 1Gi, the disk had 3Gi");
    assert!(
        failed.error.starts_with("TargetTooSmall: asks for 1Gi")
            && failed.error.ends_with(Reason::TargetTooSmall.fix())
    );
    assert!(clone("Canceled", Reason::Canceled, "asked to stop").completed);
    assert!(!clone("Canceling", Reason::Canceling, "").completed);
}
