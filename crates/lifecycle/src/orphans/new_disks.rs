//! Disks that Velero took for a backup of plugin 1.0.2 or older, and that no volume has: it was killed before it made one, or could not.
//!
//! The disk itself does not say so: one whose volume was deleted under the policy Retain looks the same, and somebody wants it. So only
//! the Download counts that the disk was made for. It lies in our own API server and its uid is in the disk's name, so it is no other
//! cluster's; and it says by [`Owner::Used`] that a volume had the disk once.

use api::{Download, Timestamp};
use disk::DiskId;

use super::Settings;
use crate::new_disk::{self, Owner};

/// Whether Velero took its disk, and no volume is known to have had it.
pub fn is_taken(download: &Download) -> bool {
    Owner::of(download) == Some(Owner::Taken) && new_disk::names_a_volume(download)
}

/// Those whose disks go, by the ages of the Downloads, which are at most some hours longer than those of the disks. `has_volume`: whether a
/// volume of the cluster has the disk; volumes must have been listed after the Downloads.
pub fn unused(
    downloads: Vec<Download>,
    has_volume: impl Fn(&DiskId) -> bool,
    settings: &Settings,
    now: Timestamp,
) -> Vec<Download> {
    let is_left = |download: &Download| {
        let made = download.metadata.creation_timestamp.as_ref();
        is_taken(download)
            && download.metadata.deletion_timestamp.is_none()
            && made.is_some_and(|made| now.duration_since(made.0) >= settings.age)
            // one that cannot be read is nobody's to remove
            && new_disk::disk_of(download).is_some_and(|disk| !has_volume(&disk))
    };
    downloads.into_iter().filter(is_left).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{DownloadPhase, DownloadSpec, DownloadStatus, Time, labels};
    use k8s_openapi::jiff::SignedDuration;

    fn now() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn download(owner: Option<&str>, disk: Option<&str>, hours: i64) -> Download {
        let spec = DownloadSpec { protected_entity_id: disk.map(str::to_owned), ..DownloadSpec::default() };
        let mut download = Download::new("download-1", spec);
        download.metadata.creation_timestamp = Some(Time(now() - SignedDuration::from_hours(hours)));
        download.metadata.annotations = owner.map(|owner| [(labels::NEW_DISK.to_owned(), owner.to_owned())].into());
        download.status = Some(DownloadStatus { phase: Some(DownloadPhase::Completed), ..DownloadStatus::default() });
        download
    }

    #[test]
    fn a_disk_of_a_velero_that_was_killed_goes_and_one_that_a_volume_has_or_had_stays() {
        let disk = Some("ivd:d-1");
        let cases = [
            ("Velero was killed before it made a volume", download(Some("taken"), disk, 25), "", true),
            ("it is about to", download(Some("taken"), disk, 23), "", false),
            ("a volume has it", download(Some("taken"), disk, 25), "d-1", false),
            ("another disk has a volume", download(Some("taken"), disk, 25), "d-2", true),
            ("its volume was deleted and the disk kept", download(Some("used"), disk, 25), "", false),
            ("nobody has taken it yet", download(Some("awaited"), disk, 25), "", false),
            ("it goes already", download(Some("removing"), disk, 25), "", false),
            ("somebody asked for it by hand", download(Some("made"), disk, 25), "", false),
            ("a restore into a claim", download(None, disk, 25), "", false),
            ("which disk it is cannot be read", download(Some("taken"), Some("d-1"), 25), "", false),
            ("it names none", download(Some("taken"), None, 25), "", false),
        ];
        for (situation, download, has_volume, goes) in cases {
            let found = unused(vec![download], |disk| disk.as_str() == has_volume, &Settings::default(), now());
            assert_eq!(!found.is_empty(), goes, "{situation}");
        }
    }
}
