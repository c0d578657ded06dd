//! What a restored volume carries while it is handed over and after: marks of ours, and what the old volume had.

use std::collections::BTreeMap;

use api::conditions::DISK_KNOWN;
use api::{CloneFromSnapshot, Reason, Timestamp, labels};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::jiff::SignedDuration;

use super::{Seen, until};
use crate::patience::Patience;
use crate::{Again, Problem};

/// How long the CSI driver has to record the disk of a volume that it made in the in-tree driver's name.
pub const RECORDED_WITHIN: SignedDuration = SignedDuration::from_mins(5);
/// How long the records of the CSI driver are asked for again, from when they could not be read for the first time.
pub const ANSWERED: Patience = Patience { condition: DISK_KNOWN, within: SignedDuration::from_mins(15) };

/// Labels that say where a volume can be used: the new one's own count.
const PLACES: [&str; 2] = ["topology.kubernetes.io/", "failure-domain.beta.kubernetes.io/"];

/// Whether a volume is marked as written and being handed over.
pub fn is_marked(volume: &PersistentVolume) -> bool {
    volume.metadata.labels.as_ref().is_some_and(|l| l.contains_key(labels::SCRATCH_FOR))
}

/// Whether a volume names this very claim, uid and all.
pub fn points_at(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let points_at = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()?.uid.as_ref());
    points_at.is_some() && points_at == claim.metadata.uid.as_ref()
}

/// Whether the volume controller has bound the volume to the claim and is about to say so in the claim.
pub fn is_being_bound(seen: &Seen) -> bool {
    let (Some(volume), Some(claim)) = (&seen.volume, &seen.target) else { return false };
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    claim.metadata.deletion_timestamp.is_none() && points_at(volume, claim) && phase == Some("Bound")
}

/// The volume a claim names.
pub fn named_by(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether the volume of that name is the one this clone has made: the one that is marked now, or that was until it was
/// settled.
pub fn is_this_clones(clone: &CloneFromSnapshot, seen: &Seen, name: &str) -> bool {
    let is_named = |volume: &&PersistentVolume| volume.metadata.name.as_deref() == Some(name);
    if seen.volume.as_ref().is_some_and(|v| is_named(&v) && is_marked(v)) {
        return true;
    }
    let settled = seen.target_volume.as_ref().filter(is_named).and_then(|v| v.metadata.annotations.as_ref());
    settled.and_then(|a| a.get(labels::CLONE_UID)).is_some_and(|uid| Some(uid) == clone.metadata.uid.as_ref())
}

/// What becomes of a restore whose volume is there, and which disk it is could not be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnknownDisk {
    /// A class of the in-tree driver's time made it, and the CSI driver may record it until then.
    IsRecorded(Timestamp),
    /// Nobody answers who could tell, or we may not ask, and why: tried again until then, however old the volume is.
    MayPass(Problem, Timestamp),
    /// Nobody has told, or will.
    IsUnknown(Problem),
}

/// Which it is. What may pass has its [time](ANSWERED) from when the restore said it first: a volume may be as old as it likes. `due` is
/// when this process was to ask again, if it has asked before and was not told.
pub fn unknown_disk(
    clone: &CloneFromSnapshot,
    volume: &PersistentVolume,
    problem: Problem,
    due: Option<Timestamp>,
    now: Timestamp,
) -> UnknownDisk {
    let recorded = until(volume.metadata.creation_timestamp.as_ref(), RECORDED_WITHIN, now);
    match (problem.again, recorded) {
        (Again::Later, _) => may_pass(clone, volume, problem, due, now),
        (Again::Never, Some(at)) if problem.reason == Reason::MigrationUnknown => UnknownDisk::IsRecorded(at),
        (Again::Never, _) => UnknownDisk::IsUnknown(problem),
    }
}

fn may_pass(
    clone: &CloneFromSnapshot,
    volume: &PersistentVolume,
    problem: Problem,
    due: Option<Timestamp>,
    now: Timestamp,
) -> UnknownDisk {
    let said = clone.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let left = ANSWERED.until(said, due, now);
    let tries = if left.is_some() { "tried again for" } else { "tried for" };
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let cause = format!(
        "find the disk of volume {name}: {} ({tries} {} minutes)",
        problem.cause.trim_end_matches('.'),
        ANSWERED.within.as_mins()
    );
    match left {
        Some(at) => UnknownDisk::MayPass(Problem { cause, ..problem }, at),
        None => UnknownDisk::IsUnknown(
            Problem { cause, again: Again::Never, ..problem }.with_fix(Some(ONCE_IT_CAN_BE_READ.to_owned())),
        ),
    }
}

/// What helps a restore that has ended meanwhile: what waits for a right goes on by itself, and this one does not.
const ONCE_IT_CAN_BE_READ: &str = "See that the backup-driver can list cnsvspherevolumemigrations.cns.vmware.com, as the chart's roles let \
                                   it, then restore again: the backup is as it was.";

/// The reclaim policy the volume ends with: the old volume's where the restore says it (Velero puts back neither it nor
/// the labels of our volumes, V-05), else `own`, which the storage class gave it.
pub fn reclaim_policy<'p>(clone: &'p CloneFromSnapshot, own: &'p str) -> &'p str {
    let annotations = clone.metadata.annotations.as_ref();
    let old = annotations.and_then(|a| a.get(labels::RECLAIM_POLICY)).map(String::as_str);
    old.filter(|policy| matches!(*policy, "Delete" | "Retain")).unwrap_or(own)
}

/// The labels of the old volume that the new one gets: all it does not have itself, but none of ours and none that says
/// where a volume is.
pub fn labels_put_back(clone: &CloneFromSnapshot, volume: &PersistentVolume) -> BTreeMap<String, String> {
    let text = clone.metadata.annotations.as_ref().and_then(|a| a.get(labels::VOLUME_LABELS));
    let old: BTreeMap<String, String> = text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
    let own = volume.metadata.labels.as_ref();
    let wanted = |key: &String| {
        !PLACES.iter().any(|place| key.starts_with(place))
            && key != labels::SCRATCH_FOR
            && own.is_none_or(|own| !own.contains_key(key))
    };
    old.into_iter().filter(|(key, _)| wanted(key)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::clone::status;
    use api::conditions;
    use api::{CloneFromSnapshotSpec, CloneFromSnapshotStatus, Download, Time};

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn volume(minutes_old: i64) -> PersistentVolume {
        let mut volume = PersistentVolume::default();
        volume.metadata.name = Some("pv-1".to_owned());
        volume.metadata.creation_timestamp = Some(Time(noon() - SignedDuration::from_mins(minutes_old)));
        volume
    }

    /// A restore that has said that many minutes ago that the disk is not known.
    fn said(minutes_ago: Option<i64>) -> CloneFromSnapshot {
        let mut clone = CloneFromSnapshot::new("c-1", CloneFromSnapshotSpec::default());
        let away = Problem::passing(Reason::ClusterUnreachable, "away");
        clone.status = minutes_ago.map(|minutes| {
            let before = CloneFromSnapshotStatus::default();
            status::disk_unknown(&before, &away, noon() - SignedDuration::from_mins(minutes))
        });
        clone
    }

    /// An API server that was away while the driver started must not cost a restore whose volume is an hour old.
    #[test]
    fn an_api_server_that_is_away_for_a_moment_ends_no_restore_of_a_migrated_volume_however_old_that_is() {
        let away = Problem::passing(Reason::ClusterUnreachable, "list cnsvspherevolumemigrations: away");
        let forbidden = Problem::passing(Reason::ClusterForbidden, "list cnsvspherevolumemigrations: forbidden");
        for (minutes_old, problem) in [(0, &away), (60, &away), (60, &forbidden)] {
            let found = unknown_disk(&said(None), &volume(minutes_old), problem.clone(), None, noon());
            let UnknownDisk::MayPass(told, at) = found else { panic!("{minutes_old} minutes: {problem}: {found:?}") };
            assert_eq!((told.reason, told.again, at), (problem.reason, Again::Later, noon() + ANSWERED.within));
            assert!(told.cause.contains("pv-1") && told.cause.contains(&problem.cause), "{}", told.cause);
        }
    }

    #[test]
    fn a_restore_does_not_wait_for_ever_for_records_that_nobody_lets_it_read() {
        let forbidden = || Problem::passing(Reason::ClusterForbidden, "list cnsvspherevolumemigrations: forbidden");
        for (minutes, passes) in [(0, true), (14, true), (15, false), (600, false)] {
            let told = match unknown_disk(&said(Some(minutes)), &volume(700), forbidden(), Some(noon()), noon()) {
                UnknownDisk::MayPass(told, at) if passes => {
                    assert_eq!(at, noon() + ANSWERED.within - SignedDuration::from_mins(minutes));
                    told
                }
                UnknownDisk::IsUnknown(told) if !passes => {
                    assert_eq!(told.again, Again::Never);
                    assert!(told.message().ends_with("restore again: the backup is as it was."), "{}", told.message());
                    told
                }
                other => panic!("{minutes} minutes: {other:?}"),
            };
            assert_eq!(told.reason, Reason::ClusterForbidden, "{minutes} minutes");
            assert!(told.cause.contains("15 minutes") && told.cause.contains(": forbidden"), "{}", told.cause);
        }
    }

    /// The driver was down, or hung, and an API server that is busy for a moment must not be taken for one that was for 15 minutes.
    #[test]
    fn minutes_in_which_nobody_asked_for_the_records_end_no_restore() {
        let away = Problem::passing(Reason::ClusterUnreachable, "list cnsvspherevolumemigrations: away");
        let cases = [
            ("a driver that has just started, in time", 14, None, Some(1)),
            ("a driver that has just started, and the time is over", 20, None, Some(15)),
            ("it was to ask again in a minute, and looks for another reason", 20, Some(1), None),
            ("it asks when it was to", 15, Some(0), None),
            ("it asks a little late, as others asked before it", 16, Some(-4), None),
            ("it has not asked for long", 20, Some(-5), Some(15)),
            ("it has not asked for long, in time", 10, Some(-5), Some(5)),
        ];
        for (situation, said_ago, due, left) in cases {
            let clone = said(Some(said_ago));
            let due = due.map(|minutes| noon() + SignedDuration::from_mins(minutes));
            let found = match unknown_disk(&clone, &volume(700), away.clone(), due, noon()) {
                UnknownDisk::MayPass(problem, at) => Some((problem, at)),
                UnknownDisk::IsUnknown(_) => None,
                other => panic!("{situation}: {other:?}"),
            };
            assert_eq!(found.as_ref().map(|(_, at)| at.duration_since(noon()).as_mins()), left, "{situation}");
            let Some((problem, at)) = found else { continue };
            let told = status::disk_unknown(&clone.status.unwrap(), &problem, noon());
            let since = conditions::get(&told.conditions, DISK_KNOWN).unwrap().last_transition_time.0;
            assert_eq!(since + ANSWERED.within, at, "{situation}: the next look goes by it");
        }
    }

    #[test]
    fn what_is_said_of_an_unknown_disk_keeps_its_first_time_and_goes_once_it_is_known() {
        let waits = said(Some(3)).status.unwrap();
        let other = Problem::passing(Reason::ClusterForbidden, "forbidden");
        let later = status::disk_unknown(&waits, &other, noon());
        let told = conditions::get(&later.conditions, DISK_KNOWN).unwrap();
        assert_eq!(told.last_transition_time.0, noon() - SignedDuration::from_mins(3));
        assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", Reason::ClusterForbidden.as_str()));
        let ready = conditions::get(&later.conditions, conditions::READY).unwrap();
        assert_eq!(ready.reason, Reason::ClusterForbidden.as_str(), "the first word that is looked at");
        let download = Download::new("d", api::DownloadSpec::default());
        let followed = status::followed(&later, &download, noon());
        for known in [status::goes_on(&later), followed, status::completed(&later, None, noon())] {
            assert_eq!(conditions::get(&known.conditions, DISK_KNOWN), None);
        }
    }

    #[test]
    fn the_csi_driver_has_five_minutes_to_record_a_volume_and_none_for_one_that_is_not_its_own() {
        let unknown = Problem::lasting(Reason::MigrationUnknown, "no record");
        let foreign = Problem::lasting(Reason::ForeignDriver, "another driver's");
        let until = |minutes| UnknownDisk::IsRecorded(noon() + SignedDuration::from_mins(minutes));
        let cases = [
            (0, &unknown, until(5)),
            (4, &unknown, until(1)),
            (5, &unknown, UnknownDisk::IsUnknown(unknown.clone())),
            (0, &foreign, UnknownDisk::IsUnknown(foreign.clone())),
        ];
        for (minutes_old, problem, want) in cases {
            let found = unknown_disk(&said(None), &volume(minutes_old), problem.clone(), None, noon());
            assert_eq!(found, want, "{minutes_old} minutes: {problem}");
        }
    }
}
