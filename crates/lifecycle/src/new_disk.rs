//! Decides about a `Download` that names no volume: restores of backups of the original's versions up to 1.0.2 ask so. The driver makes
//! a disk for it and writes its id into the Download; from then on it is a Download like any other.
//!
//! Such a disk belongs to no claim and no volume yet, so somebody has to answer for it: an annotation says who ([`Owner`]). Our plugin
//! takes it over when it hands it to Velero, or says that it waits no longer; whatever nobody took goes again. A disk that Velero took is
//! followed until a volume has it ([`Owner::Used`]). The status of the Download is the driver's as long as it names no volume, and the
//! data-managers' from then on.
//!
//! How long something lasts is told by the driver's own clock ([`Seen::lasts`]): what a node wrote may be an hour off.

mod nodes;

use std::time::Duration;

use api::entity::DiskEntity;
use api::{Download, DownloadPhase, Reason, Timestamp, labels};
use disk::DiskId;

use crate::transfer::STOPPING;
use crate::{Problem, age, retry};

pub use nodes::Nodes;

/// How long after its last byte a disk may stay with nobody who takes it: Velero was killed meanwhile.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(3600);
/// How long a store or vCenter that does not answer is asked again: the last attempt begins then at the latest.
pub const MADE_WITHIN: Duration = Duration::from_secs(600);
/// Longest look at the backup in one attempt.
pub const LOOKING: Duration = Duration::from_secs(60);
/// Longest look for a datastore in one attempt, however many vCenters there are.
pub const PLACING: Duration = Duration::from_secs(60);
/// How long vCenter may refuse for passing reasons to make the disk, in one attempt.
pub const MAKING: Duration = Duration::from_secs(120);
/// How long statuses and ids may be on their way through the API server.
const TELLING: Duration = Duration::from_secs(60);
/// How long whoever asked for a disk has to wait for it: an attempt that began in the last moment ends well before.
pub const AWAITED_FOR: Duration = Duration::from_secs(
    MADE_WITHIN.as_secs() + LOOKING.as_secs() + PLACING.as_secs() + MAKING.as_secs() + TELLING.as_secs(),
);
/// How often a node that is to stop is looked at until somebody is told of it, and after; it sends no event.
const LETTING_GO: Duration = Duration::from_secs(1);
const STUCK: Duration = Duration::from_secs(60);
/// When it is looked for the first time whether a volume has a disk that Velero took, which makes one within a second or two; and the
/// longest pause between two such looks.
pub const FIRST_LOOK: Duration = Duration::from_secs(3);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Who answers for the disk of such a Download, as [`labels::NEW_DISK`] says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nobody says: it was asked for by hand, or by the original. Once it is written it is theirs.
    Unsaid,
    /// Our plugin waits for it.
    Awaited,
    /// Our plugin waits no longer.
    GivenUp,
    /// Velero has it, and is to make a volume of it.
    Taken,
    /// A volume of the cluster has it, or had.
    Used,
    /// It is being removed, and nobody may take it any more.
    Removing,
    /// It is removed.
    Removed,
}

impl Owner {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsaid => "made",
            Self::Awaited => "awaited",
            Self::GivenUp => "given-up",
            Self::Taken => "taken",
            Self::Used => "used",
            Self::Removing => "removing",
            Self::Removed => "removed",
        }
    }

    /// Who it is; `None` where the Download is no such one: it named its volume from the start.
    pub fn of(download: &Download) -> Option<Self> {
        let word = download.metadata.annotations.as_ref().and_then(|all| all.get(labels::NEW_DISK)).map(String::as_str);
        let all = [Self::Awaited, Self::GivenUp, Self::Taken, Self::Used, Self::Removing, Self::Removed];
        match word {
            Some(word) => Some(all.into_iter().find(|owner| owner.as_str() == word).unwrap_or(Self::Unsaid)),
            None => (!names_a_volume(download)).then_some(Self::Unsaid),
        }
    }
}

/// Whether it says which volume to write.
pub fn names_a_volume(download: &Download) -> bool {
    download.spec.protected_entity_id.as_deref().is_some_and(|id| !id.is_empty())
}

/// The disk it says.
pub fn disk_of(download: &Download) -> Option<DiskId> {
    Some(download.spec.protected_entity_id.as_deref()?.parse::<DiskEntity>().ok()?.disk)
}

/// Name of the disk in vCenter. It follows from the request, so that a repeated step finds what the first one made.
pub fn name(download: &Download) -> String {
    format!("velero-restore-{}", download.metadata.uid.as_deref().unwrap_or_default())
}

/// Whether a disk may be there for which nobody else answers: it goes with the Download.
pub fn is_owed(download: &Download) -> bool {
    let ended_well = download.phase() == Some(&DownloadPhase::Completed);
    match Owner::of(download) {
        None | Some(Owner::Taken | Owner::Used | Owner::Removed) => false,
        Some(Owner::Unsaid) => !ended_well,
        Some(Owner::Awaited | Owner::GivenUp | Owner::Removing) => true,
    }
}

/// Whether the Download is needed to know what becomes of its disk: it must not go by its age.
pub fn is_needed(download: &Download) -> bool {
    is_owed(download) || Owner::of(download) == Some(Owner::Taken)
}

/// What must stay as it is for something to last.
pub type State = (Option<Owner>, bool);

/// Who answers for the disk, and whether the Download has ended.
pub fn state(download: &Download) -> State {
    (Owner::of(download), download.phase().is_some_and(DownloadPhase::is_terminal))
}

/// What is seen besides the Download.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// How long the driver has seen it in its [`State`], by its own clock: from its start at the longest.
    pub lasts: Duration,
    /// The node that holds the lease. Looked at while the disk is to go.
    pub writer: Option<String>,
    /// Whether a volume of the cluster has the disk. Looked at when Velero has taken it, from [`FIRST_LOOK`] on.
    pub is_used: Option<bool>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing, until something changes.
    Rest,
    /// Nothing for so long.
    Wait(Duration),
    /// Look whether the backup is there and whole, make a disk of its size, and write its id down.
    Make,
    /// End it, so that nodes stop.
    End(Problem),
    /// Note that a volume has the disk.
    NoteUse,
    /// Note that the disk goes.
    Remove,
    /// Say that the node does not let go of the disk, and look again after that.
    Stuck(Problem, Duration),
    /// Delete the disk, and note that it is gone.
    Delete,
}

/// Decides.
pub fn plan(download: &Download, seen: &Seen, now: Timestamp) -> Plan {
    let Some(owner) = Owner::of(download).filter(|_| download.metadata.deletion_timestamp.is_none()) else {
        return Plan::Rest;
    };
    let ended = download.phase().is_some_and(DownloadPhase::is_terminal);
    match (owner, download.phase()) {
        (Owner::Used | Owner::Removed, _) => Plan::Rest,
        (Owner::Taken, _) => match seen.is_used {
            Some(true) => Plan::NoteUse,
            Some(false) => Plan::Wait(seen.lasts.clamp(FIRST_LOOK, LONGEST_PAUSE)),
            None => Plan::Wait(FIRST_LOOK.saturating_sub(seen.lasts)),
        },
        (Owner::Removing, _) => match &seen.writer {
            Some(node) if seen.lasts >= STOPPING => Plan::Stuck(not_stopping(download, node), STUCK),
            Some(_) => Plan::Wait(LETTING_GO),
            None => Plan::Delete,
        },
        (Owner::GivenUp, _) if !ended => {
            Plan::End(Problem::lasting(Reason::Canceled, "whoever asked for the disk waits no longer"))
        }
        (Owner::GivenUp, _) | (_, Some(DownloadPhase::Failed)) => Plan::Remove,
        (Owner::Awaited, Some(DownloadPhase::Completed)) => match TAKEN_WITHIN.checked_sub(seen.lasts) {
            Some(left) if !left.is_zero() => Plan::Wait(left),
            _ => Plan::Remove,
        },
        (Owner::Unsaid, Some(DownloadPhase::Completed)) => Plan::Rest,
        (Owner::Awaited | Owner::Unsaid, _) if names_a_volume(download) => Plan::Rest,
        (Owner::Awaited | Owner::Unsaid, None) => {
            let settles = age::settles_at(download.metadata.creation_timestamp.as_ref(), now);
            settles.map_or(Plan::Make, |at| Plan::Wait(retry::wake(at, now)))
        }
        // left by the original, whose node made a disk of its own; nobody waits for it any more
        (Owner::Awaited | Owner::Unsaid, Some(DownloadPhase::InProgress | DownloadPhase::Retry)) => Plan::End(
            Problem::lasting(Reason::InvalidSpec, "it was begun by another program, and names no volume to go on with")
                .with_fix(Some("Make a new one, or restore again.".to_owned())),
        ),
        (Owner::Awaited | Owner::Unsaid, Some(_)) => Plan::Make,
    }
}

fn not_stopping(download: &Download, node: &str) -> Problem {
    let (disk, seconds) = (name(download), STOPPING.as_secs());
    let cause = format!("remove disk {disk}: node {node} still holds it {seconds} seconds after it was to stop");
    Problem::passing(Reason::NotStopping, cause)
}

/// When a disk that could not be made is tried again: after `pause`, but not later than [`MADE_WITHIN`]. `None`: that is over, and
/// whoever waits is told.
pub fn next_attempt(download: &Download, pause: Duration, now: Timestamp) -> Option<Timestamp> {
    let made = download.metadata.creation_timestamp.as_ref().map_or(now, |made| made.0);
    let last = made.checked_add(MADE_WITHIN).ok().filter(|last| *last > now)?;
    Some(now.checked_add(pause).map_or(last, |due| due.min(last)))
}

/// What helps where there is no such backup of an old version to make a disk for: who asked by hand may have left out the disk to write.
pub fn which_disk(download: &Download) -> Option<String> {
    (Owner::of(download) == Some(Owner::Unsaid)).then(|| {
        "spec.protectedEntityID is not set: make a new one that names in it the disk to write (`ivd:<disk>`). Without it a disk is made, and \
         only for a backup in the original's layout."
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{DownloadSpec, DownloadStatus, Time};
    use k8s_openapi::jiff::SignedDuration;

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn download(owner: &str, target: Option<&str>, phase: Option<DownloadPhase>) -> Download {
        let spec = DownloadSpec { protected_entity_id: target.map(str::to_owned), ..DownloadSpec::default() };
        let mut download = Download::new("download-1", spec);
        download.metadata.uid = Some("u-1".to_owned());
        let earlier = Some(Time(noon() - SignedDuration::from_mins(30)));
        download.metadata.creation_timestamp.clone_from(&earlier);
        download.metadata.annotations =
            (!owner.is_empty()).then(|| [(labels::NEW_DISK.to_owned(), owner.to_owned())].into());
        download.status = Some(DownloadStatus { phase, completion_timestamp: earlier, ..DownloadStatus::default() });
        download
    }

    #[test]
    fn a_disk_that_nobody_takes_goes_and_one_that_somebody_has_stays() {
        use DownloadPhase::{Completed, Failed, InProgress, New, Retry};
        let disk = Some("ivd:d");
        let canceled = || Plan::End(Problem::lasting(Reason::Canceled, "whoever asked for the disk waits no longer"));
        let cases = [
            ("a restore of ours names its volume", "", disk, Some(New), Plan::Rest, false),
            ("of ours, and failed", "", disk, Some(Failed), Plan::Rest, false),
            ("asked for by hand", "", None, Some(New), Plan::Make, true),
            ("by hand, without a status", "", None, None, Plan::Make, true),
            ("by hand, a disk is there", "made", disk, Some(New), Plan::Rest, true),
            ("by hand, completed: it is theirs", "made", disk, Some(Completed), Plan::Rest, false),
            ("by hand, failed", "made", disk, Some(Failed), Plan::Remove, true),
            ("by hand, failed before there was a disk", "", None, Some(Failed), Plan::Remove, true),
            ("Velero waits", "awaited", None, Some(New), Plan::Make, true),
            ("Velero waits, a node writes", "awaited", disk, Some(InProgress), Plan::Rest, true),
            ("Velero waits, an attempt failed", "awaited", disk, Some(Retry), Plan::Rest, true),
            ("Velero waits, it failed", "awaited", disk, Some(Failed), Plan::Remove, true),
            ("written, and not taken yet", "awaited", disk, Some(Completed), Plan::Wait(TAKEN_WITHIN), true),
            ("Velero has it", "taken", disk, Some(Completed), Plan::Wait(FIRST_LOOK), false),
            ("a volume has it", "used", disk, Some(Completed), Plan::Rest, false),
            ("Velero gave up early", "given-up", None, Some(New), canceled(), true),
            ("Velero gave up in the middle", "given-up", disk, Some(InProgress), canceled(), true),
            ("Velero gave up, and it has ended", "given-up", disk, Some(Failed), Plan::Remove, true),
            ("Velero gave up as it was completed", "given-up", disk, Some(Completed), Plan::Remove, true),
            ("it goes", "removing", disk, Some(Failed), Plan::Delete, true),
            ("it is gone", "removed", disk, Some(Failed), Plan::Rest, false),
        ];
        for (situation, owner, target, phase, want, owed) in cases {
            let download = download(owner, target, phase);
            assert_eq!(plan(&download, &Seen::default(), noon()), want, "{situation}");
            assert_eq!(is_owed(&download), owed, "{situation}");
        }
        let begun = plan(&download("", None, Some(InProgress)), &Seen::default(), noon());
        assert!(matches!(begun, Plan::End(problem) if problem.reason == Reason::InvalidSpec), "the original left it");
        let mut young = download("", None, None);
        young.metadata.creation_timestamp = Some(Time(noon()));
        let settles = Duration::try_from(age::SETTLING).unwrap();
        assert_eq!(plan(&young, &Seen::default(), noon()), Plan::Wait(settles), "its status may follow");
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// A node whose clock is an hour slow writes times an hour old, one that is fast writes times to come.
    #[test]
    fn who_left_out_the_disk_to_write_is_told_so_and_velero_is_not() {
        let by_hand = which_disk(&download("", None, None));
        assert!(by_hand.is_some_and(|fix| fix.contains("spec.protectedEntityID")));
        assert_eq!(which_disk(&download("awaited", None, None)), None, "Velero names none");
        assert_eq!(which_disk(&download("", Some("ivd:d"), None)), None, "it is not left out");
    }

    #[test]
    fn a_disk_that_was_written_by_a_node_with_a_wrong_clock_is_awaited_for_an_hour_all_the_same() {
        let mut written = download("awaited", Some("ivd:d"), Some(DownloadPhase::Completed));
        for hours in [-48, -2, 0, 2, 48] {
            let told = Some(Time(noon() + SignedDuration::from_hours(hours)));
            written.status.as_mut().unwrap().completion_timestamp = told;
            let after = |lasts| plan(&written, &Seen { lasts, ..Seen::default() }, noon());
            assert_eq!(after(Duration::ZERO), Plan::Wait(TAKEN_WITHIN), "{hours} h");
            assert_eq!(after(TAKEN_WITHIN - SECOND), Plan::Wait(SECOND), "{hours} h");
            assert_eq!(after(TAKEN_WITHIN), Plan::Remove, "{hours} h: Velero was killed, nobody will take it");
        }
    }

    #[test]
    fn a_node_that_does_not_let_go_of_an_unwanted_disk_is_told_of_and_keeps_the_disk() {
        let unwanted = download("removing", Some("ivd:d"), Some(DownloadPhase::Failed));
        let held = |lasts| plan(&unwanted, &Seen { lasts, writer: Some("node-b".to_owned()), is_used: None }, noon());
        assert_eq!(held(Duration::ZERO), Plan::Wait(LETTING_GO));
        assert_eq!(held(STOPPING - SECOND), Plan::Wait(LETTING_GO));
        for lasts in [STOPPING, STOPPING * 100] {
            let Plan::Stuck(problem, again_in) = held(lasts) else { panic!("after {lasts:?}: {:?}", held(lasts)) };
            assert_eq!((problem.reason, again_in), (Reason::NotStopping, STUCK));
            assert!(problem.cause.contains("velero-restore-u-1: node node-b still holds it 90 seconds"), "{problem}");
        }
        let let_go = Seen { lasts: STOPPING * 100, ..Seen::default() };
        assert_eq!(plan(&unwanted, &let_go, noon()), Plan::Delete);
    }

    #[test]
    fn a_disk_that_velero_took_is_followed_until_a_volume_has_it_and_its_download_stays_so_long() {
        let taken = download("taken", Some("ivd:d"), Some(DownloadPhase::Completed));
        assert!(is_needed(&taken) && !is_owed(&taken), "who deletes the Download in between must not lose the disk");
        let looked = |lasts, is_used| plan(&taken, &Seen { lasts, is_used, writer: None }, noon());
        assert_eq!(looked(SECOND, None), Plan::Wait(SECOND * 2), "Velero is about to make it");
        assert_eq!(looked(SECOND * 40, Some(false)), Plan::Wait(SECOND * 40), "less and less often");
        assert_eq!(looked(SECOND * 86_400, Some(false)), Plan::Wait(LONGEST_PAUSE), "for ever, if need be");
        assert_eq!(looked(SECOND * 40, Some(true)), Plan::NoteUse);
        let used = download("used", Some("ivd:d"), Some(DownloadPhase::Completed));
        assert!(!is_needed(&used), "a volume that goes later takes its disk along, or leaves it on purpose");
    }

    #[test]
    fn velero_waits_for_a_disk_longer_than_it_can_take_to_make_one() {
        let mut asked = download("awaited", None, Some(DownloadPhase::New));
        asked.metadata.creation_timestamp = Some(Time(noon()));
        // attempts that fail at once, each after the pause of the one before
        let (mut now, mut last) = (noon(), noon());
        for errors in 1.. {
            let Some(due) = next_attempt(&asked, retry::controller_pause(errors), now) else { break };
            (now, last) = (due, due);
        }
        let begins = Duration::try_from(last.duration_since(noon())).unwrap();
        assert_eq!(begins, MADE_WITHIN, "the last attempt, just before somebody is told");
        assert!(begins + LOOKING + PLACING + MAKING < AWAITED_FOR, "its end comes in time");
    }
}
