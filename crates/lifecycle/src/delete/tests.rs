//! A deletion at every moment of a backup's life, as a table.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::status::{Looked, Removed};
use super::*;
use crate::transfer::upload as says;
use api::{DeleteSnapshotSpec, DeleteSnapshotStatus, Time, UploadSpec, UploadStatus};

const ID: &str = "pvc:shop/data-0:aXZkOmRpc2s6c25hcA";

fn noon() -> Timestamp {
    "2026-01-02T12:00:00Z".parse().unwrap()
}

fn delete(id: &str, minutes_ago: i64) -> DeleteSnapshot {
    let spec = DeleteSnapshotSpec { snapshot_id: id.to_owned(), backup_repository: "br-1".to_owned() };
    let mut delete = DeleteSnapshot::new("delete-1", spec);
    delete.metadata.creation_timestamp = Some(Time(noon() - SignedDuration::from_mins(minutes_ago)));
    delete
}

fn of_repository(name: &str) -> DeleteSnapshot {
    let mut delete = delete(ID, 1);
    delete.spec.backup_repository = name.to_owned();
    delete
}

fn nothing() -> Seen {
    Seen::default()
}

fn with(status: UploadStatus, cancel: bool) -> Seen {
    let mut upload = Upload::new("upload-snap", UploadSpec { upload_cancel: cancel, ..UploadSpec::default() });
    upload.status = Some(status);
    Seen { upload: Some(upload), ..nothing() }
}

fn upload(phase: &str, cancel: bool) -> Seen {
    with(UploadStatus { phase: Some(phase.into()), ..UploadStatus::default() }, cancel)
}

fn written(seen: Seen) -> Seen {
    Seen { writing: true, ..seen }
}

fn vanishing(mut seen: Seen) -> Seen {
    if let Some(upload) = seen.upload.as_mut() {
        upload.metadata.deletion_timestamp = Some(Time(noon()));
    }
    seen
}

fn due_in(minutes: i64) -> Seen {
    due(nothing(), minutes)
}

fn due(seen: Seen, minutes: i64) -> Seen {
    Seen { due: Some(noon() + SignedDuration::from_mins(minutes)), ..seen }
}

/// What is done, in a word; for a wait, its reason.
fn does(delete: &DeleteSnapshot, seen: &Seen) -> String {
    match plan(delete, seen, noon()) {
        Plan::Fail(problem) => format!("Fail {}", problem.reason),
        Plan::AwaitUpload(waits) => format!("Await {}", waits.reason),
        Plan::WakeAt(at) => format!("WakeAt +{} s", at.duration_since(noon()).as_secs()),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_backup_can_be_deleted_at_every_moment_of_its_life() {
    let cases = [
        ("uploaded", delete(ID, 1), upload("Completed", false), "Erase"),
        ("uploaded so long ago that the Upload is gone", delete(ID, 1), nothing(), "Erase"),
        ("of a version up to 1.0.2", delete("ivd:disk:snap", 1), nothing(), "Erase"),
        ("local mode", of_repository(""), nothing(), "Erase"),
        ("stored, the disk snapshot stays", delete(ID, 1), upload("CleanupFailed", false), "Erase"),
        ("stored, cancelled too late, the disk snapshot stays", delete(ID, 1), upload("CleanupFailed", true), "Erase"),
        ("gave up uploading", delete(ID, 1), upload("UploadFailedAfterRetry", false), "Erase"),
        ("cancelled before", delete(ID, 1), upload("Canceled", true), "Erase"),
        ("cancelled before, long ago", delete(ID, 61), upload("Canceled", true), "Erase"),
        ("waiting for a node", delete(ID, 1), upload("New", false), "CancelUpload"),
        ("the Upload has no phase yet", delete(ID, 1), with(UploadStatus::default(), false), "CancelUpload"),
        ("copying", delete(ID, 1), written(upload("InProgress", false)), "CancelUpload"),
        ("between two attempts", delete(ID, 1), upload("UploadError", false), "CancelUpload"),
        (
            "copying, and we could not look",
            delete(ID, 90),
            due(written(upload("InProgress", false)), 4),
            "WakeAt +240 s",
        ),
        ("… and the pause is over", delete(ID, 90), due(written(upload("InProgress", false)), 0), "CancelUpload"),
        ("asked to stop, and we could not erase", delete(ID, 1), due(upload("InProgress", true), 4), "Await Canceling"),
        ("asked to stop, nobody acts yet", delete(ID, 1), upload("New", true), "Await Canceling"),
        ("stopping", delete(ID, 1), written(upload("Canceling", true)), "Await Canceling"),
        ("no node stops it", delete(ID, 11), upload("New", true), "Await NotStopping"),
        ("still not, an hour later", delete(ID, 61), upload("InProgress", true), "Await NotStopping"),
        ("somebody deletes the Upload", delete(ID, 1), vanishing(upload("InProgress", true)), "Erase"),
        ("… while a node copies", delete(ID, 1), written(vanishing(upload("InProgress", true))), "Await Canceling"),
        ("the Upload is gone, its node is not", delete(ID, 1), written(nothing()), "Await Canceling"),
        ("… and never lets go", delete(ID, 11), written(nothing()), "Await NotStopping"),
        ("the last attempt failed", delete(ID, 90), due_in(4), "WakeAt +240 s"),
        ("… and the pause is over", delete(ID, 90), due_in(0), "Erase"),
        ("applied by hand a moment ago", delete(ID, 0), nothing(), "WakeAt +5 s"),
        ("an id that is none", delete("nonsense", 1), nothing(), "Fail InvalidSpec"),
        ("of the location `default`", of_repository(api::WITHOUT_BACKUP_REPOSITORY), nothing(), "Erase"),
    ];
    for (situation, delete, seen, want) in cases {
        assert_eq!(does(&delete, &seen), want, "{situation}");
    }
}

#[test]
fn a_finished_deletion_stays_finished_and_goes_after_a_day() {
    let with = |status| DeleteSnapshot { status: Some(status), ..delete(ID, 1) };
    let before = DeleteSnapshotStatus::default();
    let hours = SignedDuration::from_hours(1);
    let in_flight = upload("InProgress", false);
    let invalid = Problem::lasting(Reason::InvalidSpec, "read spec.snapshotID");
    for ended in [
        |b: &_, now| status::completed(b, &Removed::default(), now),
        |b: &_, now| status::failed(b, &Problem::lasting(Reason::InvalidSpec, "x"), now),
    ] {
        assert_eq!(does(&with(ended(&before, noon() - hours)), &in_flight), format!("WakeAt +{} s", 23 * 3600));
        assert_eq!(plan(&with(ended(&before, noon() - hours * 24)), &in_flight, noon()), Plan::Remove);
    }
    for phase in [DeletePhase::Failed, DeletePhase::Completed] {
        let of_the_original = with(DeleteSnapshotStatus { phase: Some(phase), ..before.clone() });
        assert_eq!(plan(&of_the_original, &in_flight, noon()), Plan::SayWhen, "the original says no time of a bad end");
    }
    let failed = status::failed(&before, &invalid, noon());
    assert!(failed.completion_timestamp.is_some(), "every end carries its time");
    let mut going = delete(ID, 1);
    going.metadata.deletion_timestamp = Some(Time(noon()));
    assert_eq!(plan(&going, &in_flight, noon()), Plan::Rest, "whoever deletes the request takes it back");
}

#[test]
fn a_deletion_says_why_its_upload_does_not_stop() {
    let away = Problem::passing(Reason::StoreUnreachable, "remove the restore point: no answer");
    let stuck = says::cancel_waits(&says::cancelling(&says::new(noon()), noon()), &away, noon());
    let Plan::AwaitUpload(waits) = plan(&delete(ID, 1), &with(stuck, true), noon()) else { unreachable!("it waits") };
    assert_eq!(waits.reason, Reason::StoreUnreachable);
    assert!(waits.message.contains("upload-snap") && waits.message.contains("no answer"), "{}", waits.message);
}

#[test]
fn a_deletion_is_never_given_up_and_tells_each_reason_once() {
    let ready = |status: &DeleteSnapshotStatus| conditions::get(&status.conditions, READY).unwrap().clone();
    let attempt = |status: &DeleteSnapshotStatus, reason, cause: &str| {
        status::not_yet(status, &Problem::passing(reason, cause), noon())
    };
    let first = status::erasing(&DeleteSnapshotStatus::default(), noon());
    assert_eq!(ready(&first).reason, "Deleting");
    let away = attempt(&first, Reason::StoreUnreachable, "connect: refused");
    let still = attempt(&status::erasing(&away, noon()), Reason::StoreUnreachable, "connect: timed out");
    assert_eq!(ready(&still), ready(&away), "the same reason in other words makes no second event");
    assert!(still.message.as_ref().unwrap().contains("timed out"), "the message is of the last attempt");
    let keyless = attempt(&still, Reason::RepositoryPasswordMissing, "find the key");
    assert_eq!(ready(&keyless).reason, "RepositoryPasswordMissing");
    for status in [first, away, still, keyless.clone()] {
        assert_eq!((status.phase.as_ref(), &status.completion_timestamp), (Some(&DeletePhase::New), &None));
    }
    let looked = Looked::InBucket { repository: "br-1".to_owned(), namespace: Some(("shop".to_owned(), true)) };
    let removed = |disk_snapshot, point, originals_refused| Removed {
        disk_snapshot,
        point,
        originals_refused,
        looked: looked.clone(),
    };
    let (done, nothing) = ("DeleteSnapshot Successfully processed", "nothing of a backup with that id is there");
    let refused = "our keys do not reach the original's folder";
    for (removed, told, hides) in [
        (removed(true, true, false), done, false),
        (removed(false, true, true), done, false),
        (removed(true, false, true), done, true),
        (removed(false, false, true), nothing, true),
        (removed(false, false, false), nothing, false),
    ] {
        let done = status::completed(&keyless, &removed, noon());
        assert_eq!(done.message.as_deref(), Some("DeleteSnapshot Successfully processed."));
        let said = ready(&done).message;
        assert!(said.starts_with(told) && said.contains(refused) == hides, "{removed:?}: {said}");
    }
}

/// `Completed` is all that is true of an id that names nothing, and the restore point that somebody meant stays.
#[test]
fn a_deletion_that_found_nothing_says_where_it_looked() {
    let bucket = |repository: &str, namespace: Option<(&str, bool)>| Looked::InBucket {
        repository: repository.to_owned(),
        namespace: namespace.map(|(name, is_there)| (name.to_owned(), is_there)),
    };
    let found_nothing = "nothing of a backup with that id is there: looked";
    let cases = [
        (
            Looked::InVsphere,
            false,
            "no such disk snapshot is there; spec.backupRepository is empty, so no bucket was looked at".to_owned(),
        ),
        (
            bucket("br-1", Some(("shopp", false))),
            false,
            format!(
                "{found_nothing} in the repository of namespace shopp (there is none) and in the original's layout, \
                 BackupRepository br-1"
            ),
        ),
        (
            bucket("br-1", Some(("shop", true))),
            true,
            format!(
                "{found_nothing} in the repository of namespace shop, BackupRepository br-1; no restore point was found"
            ),
        ),
        (
            bucket(WITHOUT_BACKUP_REPOSITORY, None),
            false,
            format!("{found_nothing} in the original's layout, BackupStorageLocation default"),
        ),
    ];
    for (looked, originals_refused, want) in cases {
        let removed = Removed { originals_refused, looked, ..Removed::default() };
        let done = status::completed(&DeleteSnapshotStatus::default(), &removed, noon());
        let told = conditions::get(&done.conditions, READY).unwrap();
        assert!(told.message.starts_with(&want), "{removed:?}: {}", told.message);
        assert_eq!((done.phase, told.status.as_str()), (Some(DeletePhase::Completed), "True"), "{removed:?}");
    }
}

/// Two ids put together: the identity is the disk snapshot, and the backup of a claim that nobody has named would go.
#[test]
fn the_backup_of_another_claim_than_the_id_names_is_not_deleted() {
    let cases = [
        ("it is the claim's", ID, "/shop/data-0", None),
        ("it is another claim's", ID, "/shop/data", Some("shop/data,")),
        ("an Upload by hand named no claim", ID, "/shop/disk", None),
        ("… and no namespace", ID, "//disk", None),
        ("copied from another namespace", ID, "/bar/data", None),
        ("of no claim", ID, "/shop/var/lib/disk.raw", None),
        ("the id names no claim", "ivd:disk:snap", "/shop/data", None),
    ];
    for (situation, id, path, want) in cases {
        let refused = of_another_claim(&delete(id, 1), "the restore point", path);
        assert_eq!(refused.is_some(), want.is_some(), "{situation}");
        if let (Some(problem), Some(words)) = (refused, want) {
            assert_eq!(problem.reason, Reason::InvalidSpec, "{situation}");
            let told = problem.message();
            assert!(told.contains(words) && told.contains("shop/data-0"), "{situation}: {told}");
            assert!(told.contains("`pvc:shop/data:aXZkOmRpc2s6c25hcA`"), "{situation}: {told}");
        }
    }
}

#[test]
fn a_deletion_by_hand_says_completed_only_where_it_knows_where_to_look() {
    const NONE: &str = WITHOUT_BACKUP_REPOSITORY;
    let spaces = ["bar".to_owned(), "shop".to_owned()];
    let (none, shop, both) = (&spaces[..0], &spaces[1..], &spaces[..]);
    let described = |allowed: &[String], noted: &str| {
        let mut described = BackupRepository::new("br-1");
        described.allowed_namespaces = allowed.to_vec();
        described.metadata.annotations = Some([(labels::ALSO_FOR.to_owned(), noted.to_owned())].into());
        described
    };
    let cases = [
        ("the id says it", ID, "br-1", both, Ok(Some("shop"))),
        ("the id says it, of the location `default`", ID, NONE, none, Ok(Some("shop"))),
        ("the repository says it", "ivd:disk:snap", "br-1", shop, Ok(Some("shop"))),
        ("the repository has two", "ivd:disk:snap", "br-1", both, Err(Reason::InvalidSpec)),
        ("the repository has all", "ivd:disk:snap", "br-1", none, Err(Reason::InvalidSpec)),
        ("of a version up to 1.0.2", "ivd:disk:snap", NONE, none, Ok(None)),
    ];
    for (situation, id, repository, allowed, want) in cases {
        let mut asked = delete(id, 1);
        asked.spec.backup_repository = repository.to_owned();
        let found = namespace(&asked, &target(&asked).unwrap(), &described(allowed, ""));
        let told = found.as_ref().map(Option::as_deref).map_err(|problem| problem.reason);
        assert_eq!(told, want, "{situation}");
    }
    let mut old = delete("ivd:disk:snap", 1);
    let found = |old: &DeleteSnapshot| namespace(old, &target(old).unwrap(), &described(shop, "bar"));
    let refused = found(&old).map_err(|problem| problem.reason);
    assert_eq!(refused, Err(Reason::InvalidSpec), "backups of another namespace are there, too");
    old.metadata.annotations = Some([(labels::SNAPSHOTTER.to_owned(), "delete-1".to_owned())].into());
    assert_eq!(found(&old), Ok(None), "Velero's own are of the original, whatever the repository is for");
}

#[test]
fn a_node_that_does_not_let_go_is_looked_at_once_a_minute_and_not_for_ever_in_haste() {
    let gone = || written(vanishing(upload("InProgress", true)));
    let cases = [
        ("an event comes", 1, written(upload("Canceling", true)), WAITING),
        ("the Upload is gone, its node is not", 1, written(nothing()), LETTING_GO),
        ("the Upload goes", 10, gone(), LETTING_GO),
        ("a node that never lets go", 11, written(nothing()), WAITING),
        ("the same, somebody deleted its Upload", 11, gone(), WAITING),
    ];
    for (situation, minutes_ago, seen, want) in cases {
        assert_eq!(look_again(&delete(ID, minutes_ago), &seen, noon()), want, "{situation}");
    }
}

#[test]
fn only_a_backup_that_was_seen_is_called_deleted_where_nobody_says_in_which_repository_it_is() {
    let by_hand = delete("ivd:disk:snap", 1);
    let mut copied = by_hand.clone();
    copied.metadata.labels = Some(labels::ours());
    let mut of_velero = by_hand.clone();
    of_velero.metadata.annotations = Some([(labels::SNAPSHOTTER.to_owned(), "delete-1".to_owned())].into());
    let mut copied_whole = of_velero.clone();
    copied_whole.metadata.name = Some("delete-2".to_owned());
    let mut begun = by_hand.clone();
    let problem = Problem::passing(Reason::VCenterUnreachable, "delete the disk snapshot");
    begun.status = Some(status::not_yet(
        &status::found(&DeleteSnapshotStatus::default(), "there", Some(1), noon()),
        &problem,
        noon(),
    ));
    begun.metadata.generation = Some(1);
    let mut corrected = begun.clone();
    corrected.metadata.generation = Some(2);
    let mut tried = by_hand.clone();
    tried.status = Some(status::not_yet(&DeleteSnapshotStatus::default(), &problem, noon()));
    let cases = [
        ("somebody may mean a restore point", &by_hand, None, true),
        ("the repository of its namespace is looked in", &by_hand, Some("shop"), false),
        ("it was copied from one of ours", &copied, None, true),
        ("Velero deletes a backup of 1.0.2 again, which is gone", &of_velero, None, false),
        ("it was copied from one of Velero's, annotations and all", &copied_whole, None, true),
        ("it was found, and somebody corrected the id", &corrected, None, true),
        ("an attempt that found it may have removed it", &begun, None, false),
        ("an attempt that could not look has found nothing", &tried, None, true),
    ];
    for (situation, asked, from, want) in cases {
        assert_eq!(is_to_be_found(asked, from), want, "{situation}");
    }
    let problem = not_found(&target(&by_hand).unwrap());
    assert_eq!((problem.reason, problem.again), (Reason::InvalidSpec, crate::Again::Never));
    assert!(problem.message().contains("status.snapshotID"), "{}", problem.message());
}

/// Keys for our folder alone: such an id is of plugin 1.0.2 or older more often than not.
#[test]
fn an_old_backup_that_our_keys_do_not_reach_is_not_called_deleted_and_a_restore_point_goes_all_the_same() {
    let target = target(&delete("ivd:disk:snap", 1)).unwrap();
    let refused = || Err(Problem::passing(Reason::StoreAccessDenied, "look for the backup"));
    let shop = |has_point| Some(("shop", has_point));
    let keyless = || Err(Problem::passing(Reason::RepositoryPasswordWrong, "open the repository"));
    let cases = [
        ("it is there", None, Ok(true), Ok(Some("the original's layout"))),
        ("it is there, and a repository was named", shop(Ok(false)), Ok(true), Ok(Some("the original's layout"))),
        ("it is not there", None, Ok(false), Err(Reason::InvalidSpec)),
        ("it is not there, and may be in the repository", shop(Ok(false)), Ok(false), Ok(None)),
        ("nobody may look", None, refused(), Err(Reason::StoreAccessDenied)),
        ("… and it is not in the repository", shop(Ok(false)), refused(), Err(Reason::StoreAccessDenied)),
        ("… and it is in the repository", shop(Ok(true)), refused(), Ok(Some("namespace shop"))),
        ("… and that does not open", shop(keyless()), refused(), Err(Reason::RepositoryPasswordWrong)),
    ];
    for (situation, ours, theirs, want) in cases {
        let found = found_first(&target, theirs, ours).map_err(|problem| problem.reason);
        match (&found, want) {
            (Ok(Some(place)), Ok(Some(words))) => assert!(place.contains(words), "{situation}: {place}"),
            (Ok(None), Ok(None)) => {}
            (Err(reason), Err(want)) => assert_eq!(*reason, want, "{situation}"),
            _ => panic!("{situation}: {found:?} instead of {want:?}"),
        }
    }
}
