//! Decides about a `Download` that names no volume: restores of backups of the original's versions up to 1.0.2 ask so. The driver makes
//! a disk for it and writes its id into the Download; from then on it is a Download like any other.
//!
//! Such a disk belongs to no claim and no volume yet, so somebody has to answer for it: an annotation says who ([`Owner`]). Our plugin
//! takes it over when it hands it to Velero, or says that it waits no longer; whatever nobody took goes again. The status of the
//! Download is the driver's as long as it names no volume, and the data-managers' from then on.

mod nodes;

use api::{Download, DownloadPhase, Reason, Timestamp, labels};
use k8s_openapi::jiff::SignedDuration;

use crate::{Problem, age};

pub use nodes::Nodes;

/// How long after its last byte a disk may stay with nobody who takes it: Velero was killed meanwhile.
pub const TAKEN_WITHIN: SignedDuration = SignedDuration::from_hours(1);
/// How long a store or vCenter that does not answer is asked again before the Download fails.
pub const MADE_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// Who answers for the disk of such a Download, as [`labels::NEW_DISK`] says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nobody says: it was asked for by hand, or by the original. Once it is written it is theirs.
    Unsaid,
    /// Our plugin waits for it.
    Awaited,
    /// Our plugin waits no longer.
    GivenUp,
    /// Velero has it.
    Taken,
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
            Self::Removing => "removing",
            Self::Removed => "removed",
        }
    }

    /// Who it is; `None` where the Download is no such one: it named its volume from the start.
    pub fn of(download: &Download) -> Option<Self> {
        let word = download.metadata.annotations.as_ref().and_then(|all| all.get(labels::NEW_DISK)).map(String::as_str);
        let all = [Self::Awaited, Self::GivenUp, Self::Taken, Self::Removing, Self::Removed];
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

/// Name of the disk in vCenter. It follows from the request, so that a repeated step finds what the first one made.
pub fn name(download: &Download) -> String {
    format!("velero-restore-{}", download.metadata.uid.as_deref().unwrap_or_default())
}

/// Whether a disk may be there for which nobody else answers: the Download must not go before it.
pub fn is_owed(download: &Download) -> bool {
    let ended_well = download.phase() == Some(&DownloadPhase::Completed);
    match Owner::of(download) {
        None | Some(Owner::Taken | Owner::Removed) => false,
        Some(Owner::Unsaid) => !ended_well,
        Some(Owner::Awaited | Owner::GivenUp | Owner::Removing) => true,
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing, until something changes.
    Rest,
    /// Nothing until then.
    WakeAt(Timestamp),
    /// Look whether the backup is there and whole, make a disk of its size, and write its id down.
    Make,
    /// End it, so that nodes stop.
    End(Problem),
    /// Note that the disk goes.
    Remove,
    /// Wait until the node has let go of the disk.
    AwaitNode,
    /// Delete the disk, and note that it is gone.
    Delete,
}

/// Decides. `writing`: a node holds the lease.
pub fn plan(download: &Download, writing: bool, now: Timestamp) -> Plan {
    let Some(owner) = Owner::of(download).filter(|_| download.metadata.deletion_timestamp.is_none()) else {
        return Plan::Rest;
    };
    let ended = download.phase().is_some_and(DownloadPhase::is_terminal);
    match (owner, download.phase()) {
        (Owner::Taken | Owner::Removed, _) => Plan::Rest,
        (Owner::Removing, _) if writing => Plan::AwaitNode,
        (Owner::Removing, _) => Plan::Delete,
        (Owner::GivenUp, _) if !ended => {
            Plan::End(Problem::lasting(Reason::Canceled, "whoever asked for the disk waits no longer"))
        }
        (Owner::GivenUp, _) | (_, Some(DownloadPhase::Failed)) => Plan::Remove,
        (Owner::Awaited, Some(DownloadPhase::Completed)) => {
            let completed = download.status.as_ref().and_then(|s| s.completion_timestamp.as_ref()).map_or(now, |t| t.0);
            match completed.checked_add(TAKEN_WITHIN).ok().filter(|at| *at > now) {
                Some(at) => Plan::WakeAt(at),
                None => Plan::Remove,
            }
        }
        (Owner::Unsaid, Some(DownloadPhase::Completed)) => Plan::Rest,
        (Owner::Awaited | Owner::Unsaid, _) if names_a_volume(download) => Plan::Rest,
        (Owner::Awaited | Owner::Unsaid, None) => {
            let settles = age::settles_at(download.metadata.creation_timestamp.as_ref(), now);
            settles.map_or(Plan::Make, Plan::WakeAt)
        }
        // left by the original, whose node made a disk of its own; nobody waits for it any more
        (Owner::Awaited | Owner::Unsaid, Some(DownloadPhase::InProgress | DownloadPhase::Retry)) => Plan::End(
            Problem::lasting(Reason::InvalidSpec, "it was begun by another program, and names no volume to go on with")
                .with_fix(Some("Make a new one, or restore again.".to_owned())),
        ),
        (Owner::Awaited | Owner::Unsaid, Some(_)) => Plan::Make,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{DownloadSpec, DownloadStatus, Time};

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
            (
                "written, and not taken yet",
                "awaited",
                disk,
                Some(Completed),
                Plan::WakeAt(noon() + SignedDuration::from_mins(30)),
                true,
            ),
            ("Velero has it", "taken", disk, Some(Completed), Plan::Rest, false),
            ("Velero gave up early", "given-up", None, Some(New), canceled(), true),
            ("Velero gave up in the middle", "given-up", disk, Some(InProgress), canceled(), true),
            ("Velero gave up, and it has ended", "given-up", disk, Some(Failed), Plan::Remove, true),
            ("Velero gave up as it was completed", "given-up", disk, Some(Completed), Plan::Remove, true),
            ("it goes", "removing", disk, Some(Failed), Plan::Delete, true),
            ("it is gone", "removed", disk, Some(Failed), Plan::Rest, false),
        ];
        for (situation, owner, target, phase, want, owed) in cases {
            let download = download(owner, target, phase);
            assert_eq!(plan(&download, false, noon()), want, "{situation}");
            assert_eq!(is_owed(&download), owed, "{situation}");
        }
        let late = noon() + TAKEN_WITHIN;
        let left = download("awaited", disk, Some(Completed));
        assert_eq!(plan(&left, false, late), Plan::Remove, "Velero was killed: nobody will take it");
        let written = download("removing", disk, Some(Failed));
        assert_eq!(plan(&written, true, noon()), Plan::AwaitNode, "a disk must not go while it is written");
        let begun = plan(&download("", None, Some(InProgress)), false, noon());
        assert!(matches!(begun, Plan::End(problem) if problem.reason == Reason::InvalidSpec), "the original left it");
        let mut young = download("", None, None);
        young.metadata.creation_timestamp = Some(Time(noon()));
        assert_eq!(plan(&young, false, noon()), Plan::WakeAt(noon() + age::SETTLING), "its status may follow");
    }
}
