//! Restores that the original has left: Downloads that write the disk of a claim, for a CloneFromSnapshot.
//!
//! The original binds the claim first and writes its disk after that, and runs a restore that has failed once more, for ever (W-02). When
//! we take over, somebody may live on that disk; no phase tells, and neither does a lease, which the original never gives back (W-07).
//! Our own restores write disks that nobody has yet, and are marked. One that is not marked is no node's work: the driver ends it.
//!
//! A Download that names no clone was made by hand, and is written as it says.

use api::{Download, DownloadPhase, Reason, labels};

use crate::Problem;
use crate::new_disk::Owner;

/// Whether it is such a one, ended or not.
pub fn is_of_the_original(download: &Download) -> bool {
    clone_of(download).is_some() && !is_marked(download)
}

/// Why it ends; `None` of any other Download, and where it has ended or goes.
pub fn end(download: &Download) -> Option<Problem> {
    let clone = clone_of(download).filter(|_| !is_marked(download))?;
    if download.metadata.deletion_timestamp.is_some() || download.phase().is_some_and(DownloadPhase::is_terminal) {
        return None;
    }
    let disk = download.spec.protected_entity_id.as_deref().unwrap_or_default();
    let what = match download.phase() {
        None | Some(DownloadPhase::New) => "nothing was written to it",
        Some(_) => "nothing more is written to it, and what it holds may be a part of the backup only",
    };
    let cause =
        format!("restore onto disk {disk} for CloneFromSnapshot {clone}: somebody may use that disk by now; {what}");
    Some(Problem::lasting(Reason::BegunByOriginal, cause))
}

/// The clone that it says it is for. The original writes a bare `/` where there is none.
fn clone_of(download: &Download) -> Option<&str> {
    let reference = download.spec.clone_from_snapshot_reference.as_deref()?;
    (!reference.trim_matches('/').is_empty()).then_some(reference)
}

/// Whether the driver made it for a clone, or made the disk, or is to make one.
fn is_marked(download: &Download) -> bool {
    let for_a_clone = download.metadata.labels.as_ref().is_some_and(|all| all.contains_key(labels::SCRATCH_FOR));
    for_a_clone || Owner::of(download).is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::transfer::{Holder, Node, Plan, State, Transfer, plan};
    use api::{DownloadSpec, DownloadStatus, Time, Timestamp};

    const CLONE: Option<&str> = Some("shop/9a0e6d2c");
    const DISK: Option<&str> = Some("ivd:6f2f7f4f");

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn download(clone: Option<&str>, disk: Option<&str>, phase: &str) -> Download {
        let spec = DownloadSpec {
            protected_entity_id: disk.map(str::to_owned),
            clone_from_snapshot_reference: clone.map(str::to_owned),
            ..DownloadSpec::default()
        };
        let mut download = Download::new("download-1", spec);
        let phase = (!phase.is_empty()).then(|| DownloadPhase::from(phase));
        download.status = Some(DownloadStatus { phase, ..DownloadStatus::default() });
        download
    }

    fn labelled(mut download: Download) -> Download {
        download.metadata.labels = Some([(labels::SCRATCH_FOR.to_owned(), "u-1".to_owned())].into());
        download
    }

    fn with_a_disk_of_ours(mut download: Download) -> Download {
        download.metadata.annotations = Some([(labels::NEW_DISK.to_owned(), "made".to_owned())].into());
        download
    }

    fn deleted(mut download: Download) -> Download {
        download.metadata.deletion_timestamp = Some(Time(noon()));
        download
    }

    /// What a node with room does about it, when nobody holds the lease or the node's own name stands in it.
    fn of_a_node(download: &Download, at_work: bool, holder: Holder) -> Plan {
        plan(&Transfer::from(download), &Node { free_slots: 1, at_work, holder }, noon())
    }

    #[test]
    fn a_disk_that_the_original_was_about_to_write_is_left_alone_and_the_restore_ended() {
        let cases = [
            ("not begun", download(CLONE, DISK, "New"), true),
            ("without a phase", download(CLONE, DISK, ""), true),
            ("its node died, or writes still", download(CLONE, DISK, "InProgress"), true),
            ("an attempt failed", download(CLONE, DISK, "Retry"), true),
            ("of a phase that nobody knows", download(CLONE, DISK, "Paused"), true),
            ("with a label of the original's", unmarked(download(CLONE, DISK, "New")), true),
            ("for something that is no clone", download(Some("9a0e6d2c"), DISK, "New"), true),
            ("it goes", deleted(download(CLONE, DISK, "New")), false),
            ("it has ended well", download(CLONE, DISK, "Completed"), false),
            ("it has failed", download(CLONE, DISK, "Failed"), false),
        ];
        for (situation, download, ends) in cases {
            assert!(is_of_the_original(&download), "{situation}");
            assert_eq!(end(&download).is_some(), ends, "{situation}");
            for holder in [Holder::Nobody, Holder::Us] {
                assert_eq!(of_a_node(&download, false, holder.clone()), Plan::Rest, "{situation}");
                assert_eq!(of_a_node(&download, true, holder), Plan::Stop, "{situation}");
            }
        }
        for (phase, words) in [("New", "nothing was written"), ("Retry", "a part of the backup only")] {
            let told = end(&download(CLONE, DISK, phase)).unwrap();
            assert_eq!((told.reason, told.again), (Reason::BegunByOriginal, crate::Again::Never));
            for word in ["shop/9a0e6d2c", "ivd:6f2f7f4f", words, "Restore again"] {
                assert!(told.message().contains(word), "{phase} does not say `{word}`: {}", told.message());
            }
        }
    }

    fn unmarked(mut download: Download) -> Download {
        download.metadata.labels = Some(labels::ours());
        download
    }

    #[test]
    fn what_we_made_or_somebody_by_hand_is_written_as_ever() {
        let cases = [
            ("of a clone of ours", labelled(download(CLONE, DISK, "New"))),
            ("by hand", download(None, DISK, "New")),
            ("by hand, with an empty reference", download(Some(""), DISK, "New")),
            ("onto a disk that the driver made for it", with_a_disk_of_ours(download(Some("/"), DISK, "New"))),
            ("the same, for a clone", with_a_disk_of_ours(download(CLONE, DISK, "New"))),
        ];
        for (situation, download) in cases {
            assert!(!is_of_the_original(&download) && end(&download).is_none(), "{situation}");
            assert_eq!(Transfer::from(&download).state, State::Waiting { from: Timestamp::UNIX_EPOCH }, "{situation}");
            assert!(matches!(of_a_node(&download, false, Holder::Nobody), Plan::Claim(_)), "{situation}");
        }
        for no_disk in [None, Some("")] {
            let asked = download(CLONE, no_disk, "New");
            assert!(!is_of_the_original(&asked), "the driver makes a disk that nobody has");
        }
    }
}
