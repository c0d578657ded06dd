//! Restores whose claim Velero makes: whose claim it is, and what becomes of a restore that loses it.

use super::*;
use crate::clone::ownership::{Target, check_again, of};
use api::ClaimCreator;

fn clone() -> CloneFromSnapshot {
    let mut clone = super::clone();
    clone.spec.claim_creator = Some(ClaimCreator::Velero);
    clone.spec.metadata = Some(Blob::of(&backed_up()));
    clone
}

#[test]
fn velero_waits_five_seconds_for_no_restore_of_ours() {
    let mut young = clone();
    (young.status, young.metadata.creation_timestamp) = (None, Some(Time(noon())));
    assert!(!matches!(plan(&young, &Seen::default(), noon()), Plan::WakeAt(_)), "our plugin writes no status");
    young.spec.claim_creator = None;
    assert_eq!(plan(&young, &Seen::default(), noon()), Plan::WakeAt(noon() + age::SETTLING), "by hand");
}

/// A claim as Velero makes it from what the restore action returned; `uid` is the selector's value.
fn velero_claim(uid: &str) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {"name": "data-0", "namespace": "restored", "uid": "real"},
        "spec": {
            "accessModes": ["ReadWriteOncePod"], "volumeMode": "Block", "storageClassName": "silver",
            "resources": {"requests": {"storage": "2Gi"}}, "selector": {"matchLabels": {labels::CLONE_SELECTOR: uid}},
        },
        "status": {"phase": "Pending"},
    }))
    .unwrap()
}

fn live() -> Option<PersistentVolumeClaim> {
    Some(velero_claim("u-1"))
}

fn bound_to(volume: &str) -> Option<PersistentVolumeClaim> {
    let mut claim = naming(live(), volume).unwrap();
    claim.status.get_or_insert_default().phase = Some("Bound".to_owned());
    Some(claim)
}

fn going() -> Option<PersistentVolumeClaim> {
    let mut claim = velero_claim("u-1");
    claim.metadata.deletion_timestamp = Some(ago(0));
    Some(claim)
}

/// V-03: with `--existing-resource-policy=update` Velero writes its labels and our annotation onto a claim that was
/// there before.
fn relabelled() -> Option<PersistentVolumeClaim> {
    let mut claim = velero_claim("u-0");
    claim.metadata.labels = Some([("velero.io/restore-name".to_owned(), "r".to_owned())].into());
    claim.metadata.annotations = Some([(labels::CLONE_UID.to_owned(), "u-1".to_owned())].into());
    Some(claim)
}

fn does(clone: &CloneFromSnapshot, seen: &Seen) -> String {
    match plan(clone, seen, noon()) {
        Plan::GiveUp(problem) => format!("GiveUp {}", problem.reason),
        Plan::Hand(step) => format!("{step:?}"),
        Plan::AwaitClaim(at) => format!("AwaitClaim {} min", at.duration_since(noon()).as_mins()),
        other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
    }
}

#[test]
fn the_claim_comes_first_and_is_bound_last() {
    let with = |seen: Seen| Seen { target: live(), ..seen };
    let bound = || with(Seen { scratch: scratch("Bound"), volume: volume(false, "scratch"), ..nothing() });
    let written = || Seen { download: download("Completed"), ..bound() };
    let alone = || Seen { volume: volume(true, "scratch"), scratch: None, ..written() };
    let pointed = || Seen { volume: volume(true, "real"), ..alone() };
    let cases = [
        ("Velero has not made the claim", nothing(), "AwaitClaim 58 min"),
        ("the claim is there", with(nothing()), "Provision"),
        ("the volume is being made", with(Seen { scratch: scratch("Pending"), ..nothing() }), "AwaitVolume"),
        ("the volume is there", bound(), "Download"),
        ("being written", Seen { download: download("InProgress"), ..bound() }, "Follow"),
        ("written", written(), "Keep"),
        ("kept", Seen { volume: volume(true, "scratch"), ..written() }, "DropScratch"),
        ("on its own", alone(), "Point"),
        ("pointed", pointed(), "AwaitBound"),
        ("the claim names the volume", Seen { target: naming(live(), "pv-1"), ..pointed() }, "AwaitBound"),
        ("bound", Seen { target: bound_to("pv-1"), ..pointed() }, "Settle"),
        ("settled", Seen { target: bound_to("pv-1"), target_volume: settled("u-1"), ..nothing() }, "Complete"),
    ];
    for (situation, seen, want) in cases {
        assert_eq!(does(&clone(), &seen), want, "{situation}");
    }
}

#[test]
fn v_03_a_claim_that_this_restore_did_not_create_is_refused_never_overwritten() {
    let named = || Seen { target: Some(velero_claim("u-0")), ..nothing() };
    let without_selector = {
        let mut claim = velero_claim("u-1");
        claim.spec.as_mut().unwrap().selector = None;
        Seen { target: Some(claim), ..nothing() }
    };
    let cases = [
        ("of another restore", named(), "GiveUp ClaimExists"),
        ("relabelled by Velero", Seen { target: relabelled(), ..nothing() }, "GiveUp ClaimExists"),
        ("of a user, without a selector", without_selector, "GiveUp ClaimExists"),
        ("… also when it appears late", Seen { volume: volume(true, "scratch"), ..named() }, "GiveUp ClaimExists"),
    ];
    for (situation, seen, want) in cases {
        assert_eq!(does(&clone(), &seen), want, "{situation}");
    }
}

#[test]
fn v_01_v_04_a_claim_that_got_another_volume_ends_the_restore_and_keeps_that_volume() {
    let pointed = || Seen { volume: volume(true, "real"), download: download("Completed"), ..nothing() };
    let cases = [
        ("before anything was made", Seen { target: bound_to("pv-old"), ..nothing() }),
        (
            "while it is written",
            Seen { target: naming(live(), "pv-old"), download: download("InProgress"), ..nothing() },
        ),
        ("after we pointed our volume at it", Seen { target: bound_to("pv-old"), ..pointed() }),
        (
            "a volume restored with another restore's mark",
            Seen { target: bound_to("pv-1"), target_volume: settled("u-0"), ..nothing() },
        ),
    ];
    for (situation, seen) in cases {
        assert_eq!(does(&clone(), &seen), "GiveUp ClaimExists", "{situation}");
    }
    let problem = Problem::lasting(Reason::ClaimExists, "taken");
    let mut noted = clone();
    noted.status = Some(status::giving_up(&CloneFromSnapshotStatus::default(), &problem, noon()));
    let left = Seen { target: bound_to("pv-old"), ..pointed() };
    assert_eq!(does(&noted, &left), "Clean", "our volume goes");
    assert_eq!(does(&noted, &Seen { target: bound_to("pv-old"), ..nothing() }), "End", "their claim stays");
}

#[test]
fn a_restore_whose_claim_is_deleted_ends_and_says_so() {
    let begun = |target| Seen { target, scratch: scratch("Bound"), download: download("InProgress"), ..nothing() };
    let cases = [
        ("gone before anything was made", nothing(), "AwaitClaim 58 min"),
        ("going before anything was made", Seen { target: going(), ..nothing() }, "GiveUp ClaimNotFound"),
        ("going while it is written", begun(going()), "GiveUp ClaimNotFound"),
        ("gone while it is written", begun(None), "GiveUp ClaimNotFound"),
        ("gone once it is written", Seen { volume: volume(true, "real"), ..nothing() }, "GiveUp ClaimNotFound"),
    ];
    for (situation, seen, want) in cases {
        assert_eq!(does(&clone(), &seen), want, "{situation}");
    }
}

#[test]
fn a_wait_for_velero_has_an_end() {
    let mut late = clone();
    late.metadata.creation_timestamp = Some(ago(61));
    assert_eq!(does(&late, &nothing()), "GiveUp WaitingForClaim");
    let mut cancelled = clone();
    cancelled.spec.clone_cancel = true;
    assert_eq!(does(&cancelled, &nothing()), "StopNow", "Velero's time is over");
    cancelled.status = Some(status::stopping(&CloneFromSnapshotStatus::default(), noon()));
    assert_eq!(does(&cancelled, &nothing()), "End");
    assert_eq!(does(&cancelled, &Seen { target: live(), ..nothing() }), "End", "Velero's claim is Velero's");
    let writing = Seen { target: live(), download: download("InProgress"), writing: true, ..nothing() };
    assert_eq!(does(&cancelled, &writing), "StopWriting", "late work is stopped");
}

#[test]
fn what_is_being_bound_is_not_pulled_away() {
    let mut noted = clone();
    noted.status = Some(status::stopping(&CloneFromSnapshotStatus::default(), noon()));
    let mut bound = volume(true, "real").unwrap();
    bound.status = Some(serde_json::from_value(json!({"phase": "Bound"})).unwrap());
    let seen = Seen { target: live(), volume: Some(bound), ..nothing() };
    assert_eq!(does(&noted, &seen), "AwaitBound");
    assert_eq!(does(&noted, &Seen { volume: volume(true, "real"), ..seen }), "Clean");
}

#[test]
fn the_claim_is_looked_at_once_more_right_before_the_volume_is_pointed_at_it() {
    let looked_at = velero_claim("u-1");
    let reason = |now: Option<PersistentVolumeClaim>| {
        check_again(&clone(), &looked_at, now.as_ref(), "pv-1").err().map(|problem| problem.reason)
    };
    let again = {
        let mut claim = velero_claim("u-1");
        claim.metadata.uid = Some("another".to_owned());
        Some(claim)
    };
    let cases = [
        ("as it was", live(), None),
        ("a driver that died had pointed it already", naming(live(), "pv-1"), None),
        ("gone", None, Some(Reason::ClaimNotFound)),
        ("going", going(), Some(Reason::ClaimNotFound)),
        ("another of that name", again, Some(Reason::ClaimNotFound)),
        ("bound elsewhere", bound_to("pv-old"), Some(Reason::ClaimExists)),
        ("named by another volume", naming(live(), "pv-old"), Some(Reason::ClaimExists)),
    ];
    for (situation, now, want) in cases {
        assert_eq!(reason(now), want, "{situation}");
    }
    assert_eq!(of(&clone(), &Seen { target: live(), ..nothing() }), Target::Waits);
}

#[test]
fn v_11_class_size_and_modes_come_from_the_live_claim() {
    let like = claims::model(&clone(), live().as_ref()).unwrap();
    let made = claims::scratch(&clone(), &like, 1 << 30, "velero", None);
    let spec = made.spec.unwrap();
    assert_eq!(spec.storage_class_name.as_deref(), Some("silver"), "the backup says gold");
    assert_eq!(spec.access_modes, Some(vec!["ReadWriteOncePod".to_owned()]));
    assert_eq!(spec.volume_mode.as_deref(), Some("Block"));
    assert_eq!(spec.resources.unwrap().requests.unwrap()["storage"].0, "2Gi");
    assert_eq!(spec.selector, None, "the scratch claim is to be provisioned");
    let mut classless = velero_claim("u-1");
    classless.spec.as_mut().unwrap().storage_class_name = None;
    assert_eq!(claims::model(&clone(), Some(&classless)).unwrap_err().reason, Reason::StorageClassMissing);
}

#[test]
fn a_claim_smaller_than_its_disk_is_refused_before_anything_is_made() {
    let asks = |size: &str| {
        let mut claim = velero_claim("u-1");
        let spec = claim.spec.as_mut().unwrap();
        spec.resources = serde_json::from_value(json!({"requests": {"storage": size}})).unwrap();
        claim
    };
    let disk = 3 << 30;
    assert_eq!(claims::fits(&clone(), &asks("3Gi"), disk), Ok(()));
    assert_eq!(claims::fits(&clone(), &asks("4Gi"), disk), Ok(()));
    for small in ["3G", "2Gi", "nonsense"] {
        let problem = claims::fits(&clone(), &asks(small), disk).unwrap_err();
        assert_eq!(problem.reason, Reason::TargetTooSmall);
        assert!(problem.cause.contains(small) && problem.cause.contains("3072Mi"), "{}", problem.cause);
    }
    assert_eq!(claims::fits(&super::clone(), &asks("2Gi"), disk), Ok(()), "a claim of ours gets what the disk needs");
}

#[test]
fn v_05_the_new_volume_gets_labels_and_reclaim_policy_of_the_old_one() {
    let mut clone = clone();
    let old = json!({"team": "web", "tier": "gold", "topology.kubernetes.io/zone": "z1", labels::SCRATCH_FOR: "u-0"});
    clone.metadata.annotations = Some(
        [(labels::RECLAIM_POLICY.to_owned(), "Retain".to_owned()), (labels::VOLUME_LABELS.to_owned(), old.to_string())]
            .into(),
    );
    let mut made = volume(false, "scratch").unwrap();
    made.metadata.labels = Some([("tier".to_owned(), "silver".to_owned())].into());
    assert_eq!(volumes::reclaim_policy(&clone, "Delete"), "Retain");
    let back = volumes::labels_put_back(&clone, &made);
    assert_eq!(back.into_iter().collect::<Vec<_>>(), [("team".to_owned(), "web".to_owned())]);
    clone.metadata.annotations = Some([(labels::RECLAIM_POLICY.to_owned(), "Recycle".to_owned())].into());
    assert_eq!(volumes::reclaim_policy(&clone, "Delete"), "Delete", "the class's own where nothing usable is said");
    assert!(volumes::labels_put_back(&super::clone(), &made).is_empty());
}

#[test]
fn a_claim_of_velero_is_looked_at_while_its_data_is_on_the_way() {
    let (half, hour) = (noon() + SignedDuration::from_secs(30), noon() + SignedDuration::from_hours(1));
    assert_eq!(look_by(&clone(), None, noon()), Some(half));
    assert_eq!(look_by(&clone(), Some(hour), noon()), Some(half));
    assert_eq!(look_by(&super::clone(), None, noon()), None);
    let after = |seconds| claim_pause(&clone(), ago(2).0 + SignedDuration::from_secs(seconds)).as_secs();
    assert_eq!([after(0), after(20), after(600)], [1, 5, 15]);
}
