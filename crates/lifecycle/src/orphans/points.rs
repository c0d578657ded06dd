//! Restore points without an owner: a backup of Velero has made them and is gone, and nobody else speaks of them.
//!
//! Only those of this cluster, and only those that name a backup: what somebody backed up by hand has no owner to lose. A backup
//! that Velero has brought back from its storage location has another uid, so its name is enough to own.

use std::collections::HashSet;

use api::entity::EntityId;
use api::velero::{Backup, BackupStorageLocation};
use api::{CloneFromSnapshot, DeleteSnapshot, Download, Snapshot, Timestamp, Upload, labels, names};
use disk::DiskSnapshot;

use super::Settings;

/// A restore point, as its repository tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its id in the repository.
    pub id: String,
    /// The cluster it was made by.
    pub cluster: String,
    /// The moment of its data.
    pub time: Timestamp,
    /// `/<namespace>/<claim>`.
    pub path: String,
    /// The backup it was made for.
    pub backup: Option<BackupOf>,
    /// The disk snapshot it was read from.
    pub disk_snapshot: Option<DiskSnapshot>,
}

/// What a restore point says of the backup it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOf {
    /// Its name as a label holds it: [`labels::backup_name`].
    pub name: String,
    /// Its uid; the first restore points of ours did not say it.
    pub uid: Option<String>,
}

/// Everybody who may speak of a restore point. Must have been listed after the points: what is not listed yet counts as gone.
#[derive(Debug, Default)]
pub struct Owners {
    /// Names and uids of Velero's backups.
    backups: HashSet<String>,
    /// Where storage locations are that exist and of which a backup is known: bucket, and folder in it.
    places: HashSet<(String, String)>,
    /// Disk snapshots that objects of ours name.
    held: HashSet<DiskSnapshot>,
    /// Names of Uploads.
    uploads: HashSet<String>,
    /// Whether an object names something that cannot be understood: then it may name anything.
    held_unknown: bool,
}

impl Owners {
    /// Velero's backups.
    #[must_use]
    pub fn with_backups(mut self, backups: &[Backup]) -> Self {
        self.backups.extend(backups.iter().flat_map(|b| [labels::backup_name(b.name()), b.uid().to_owned()]));
        self.backups.remove("");
        self
    }

    /// Velero's storage locations, and which of them its backups are in. One that was deleted takes its Backups along and leaves
    /// the data, to be attached again: its restore points are not left over.
    #[must_use]
    pub fn with_locations(mut self, locations: &[BackupStorageLocation], backups: &[Backup]) -> Self {
        let used: HashSet<&str> = backups.iter().filter_map(|b| b.spec.storage_location.as_deref()).collect();
        let known = locations.iter().filter(|l| l.metadata.name.as_deref().is_some_and(|name| used.contains(name)));
        self.places.extend(known.map(|l| {
            let storage = &l.spec.object_storage;
            (storage.bucket.clone(), storage.prefix.as_deref().unwrap_or_default().trim_matches('/').to_owned())
        }));
        self
    }

    /// Requests of ours.
    #[must_use]
    pub fn with_requests(
        mut self,
        snapshots: &[Snapshot],
        clones: &[CloneFromSnapshot],
        deletes: &[DeleteSnapshot],
    ) -> Self {
        snapshots.iter().filter_map(|s| s.status.as_ref()?.snapshot_id.as_deref()).for_each(|id| self.hold(id));
        clones.iter().for_each(|clone| self.hold(&clone.spec.snapshot_id));
        deletes.iter().for_each(|delete| self.hold(&delete.spec.snapshot_id));
        self
    }

    /// Transfers of ours.
    #[must_use]
    pub fn with_transfers(mut self, uploads: &[Upload], downloads: &[Download]) -> Self {
        self.uploads.extend(uploads.iter().filter_map(|upload| upload.metadata.name.clone()));
        downloads.iter().filter_map(|download| download.spec.snapshot_id.as_deref()).for_each(|id| self.hold(id));
        self
    }

    fn hold(&mut self, id: &str) {
        match id.parse::<EntityId>().and_then(|id| id.disk_snapshot()) {
            Ok(snapshot) => drop(self.held.insert(snapshot)),
            Err(_) => self.held_unknown |= !id.is_empty(),
        }
    }

    /// Whether there is a storage location at that place, and a backup in it. One without looks like one that Velero has not
    /// looked at yet, as after a new installation, or like one that was deleted and is to be attached again.
    pub fn know_backups_in(&self, bucket: &str, folder: &str) -> bool {
        self.places.contains(&(bucket.to_owned(), folder.trim_matches('/').to_owned()))
    }

    fn own(&self, point: &Point) -> bool {
        let backup = point.backup.as_ref();
        let is_there = |word: &String| self.backups.contains(word);
        let by_backup = backup.is_none_or(|of| is_there(&of.name) || of.uid.as_ref().is_some_and(is_there));
        // one that does not say what it was read from cannot be told apart from one that is held
        let by_object = point
            .disk_snapshot
            .as_ref()
            .is_none_or(|of| self.held.contains(of) || self.uploads.contains(&names::upload(&of.snapshot)));
        by_backup || by_object || self.held_unknown
    }
}

/// Those that nobody owns any more, of this cluster and old enough.
pub fn unowned(points: Vec<Point>, owners: &Owners, cluster: &str, settings: &Settings, now: Timestamp) -> Vec<Point> {
    let is_left = |point: &Point| {
        point.cluster == cluster && now.duration_since(point.time) >= settings.age && !owners.own(point)
    };
    points.into_iter().filter(is_left).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::entity::PvcSnapshotId;
    use api::{DeleteSnapshotSpec, UploadSpec};
    use k8s_openapi::jiff::SignedDuration;

    fn now() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn point() -> Point {
        Point {
            id: "p".to_owned(),
            cluster: "here".to_owned(),
            time: now() - SignedDuration::from_hours(30),
            path: "/shop/data".to_owned(),
            backup: Some(BackupOf { name: "nightly".to_owned(), uid: Some("u1".to_owned()) }),
            disk_snapshot: Some("disk:snap-1".parse().unwrap()),
        }
    }

    fn backup(name: &str, uid: &str) -> Backup {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name, "uid": uid}})).unwrap()
    }

    #[test]
    fn only_what_nobody_speaks_of_counts_as_left_over() {
        let young = Point { time: now() - SignedDuration::from_hours(23), ..point() };
        let ahead = Point { time: now() + SignedDuration::from_hours(1), ..point() };
        let elsewhere = Point { cluster: "there".to_owned(), ..point() };
        let by_hand = Point { backup: None, ..point() };
        let unnamed = Point { disk_snapshot: None, ..point() };
        let deletes = |snapshot_id: String| {
            DeleteSnapshot::new("d", DeleteSnapshotSpec { snapshot_id, ..DeleteSnapshotSpec::default() })
        };
        let id = |disk_snapshot: &str| {
            let (namespace, claim) = ("shop".to_owned(), "data".to_owned());
            PvcSnapshotId { namespace, claim, disk_snapshot: disk_snapshot.parse().unwrap() }.to_string()
        };
        let (named, other) = (deletes(id("disk:snap-1")), deletes(id("disk:snap-2")));
        let garbage = deletes("what is this".to_owned());
        let upload = Upload::new("upload-snap-1", UploadSpec::default());
        let none = Owners::default;
        let long = |end: &str| format!("{}{end}", "a".repeat(70));
        let cut = BackupOf { name: labels::backup_name(&long("")), uid: None };
        let of_long = Point { backup: Some(cut), ..point() };
        let cases = [
            ("its backup was deleted", point(), none(), true),
            ("another backup is there", point(), none().with_backups(&[backup("weekly", "u2")]), true),
            ("its backup is there", point(), none().with_backups(&[backup("nightly", "u1")]), false),
            ("its backup was brought back by Velero", point(), none().with_backups(&[backup("nightly", "u9")]), false),
            ("its backup has another name here", point(), none().with_backups(&[backup("copy", "u1")]), false),
            (
                "its backup has a name longer than a label",
                of_long,
                none().with_backups(&[backup(&long("b"), "u2")]),
                false,
            ),
            ("it is being deleted", point(), none().with_requests(&[], &[], &[named]), false),
            ("another one is being deleted", point(), none().with_requests(&[], &[], &[other]), true),
            ("what is being deleted cannot be told", point(), none().with_requests(&[], &[], &[garbage]), false),
            ("its Upload is there", point(), none().with_transfers(&[upload], &[]), false),
            ("it is young", young, none(), false),
            ("its time is yet to come", ahead, none(), false),
            ("another cluster's", elsewhere, none(), false),
            ("made by hand", by_hand, none(), false),
            ("it does not say of which disk snapshot it is", unnamed, none(), false),
        ];
        for (situation, point, owners, left) in cases {
            let found = unowned(vec![point], &owners, "here", &Settings::default(), now());
            assert_eq!(!found.is_empty(), left, "{situation}");
        }
    }

    #[test]
    fn a_location_that_was_deleted_or_not_looked_at_yet_loses_nothing() {
        let location = |name: &str, bucket: &str, prefix: &str| -> BackupStorageLocation {
            let storage = serde_json::json!({"bucket": bucket, "prefix": prefix});
            let object = serde_json::json!({"metadata": {"name": name}, "spec": {"objectStorage": storage}});
            serde_json::from_value(object).unwrap()
        };
        let mut nightly = backup("nightly", "u1");
        nightly.spec.storage_location = Some("used".to_owned());
        let of_deleted = Backup {
            spec: api::velero::BackupSpec { storage_location: Some("deleted".to_owned()), ..nightly.spec.clone() },
            ..backup("old", "u2")
        };
        let locations = [location("used", "b", "/clusters/a/"), location("new", "b", "new")];
        let owners = Owners::default().with_locations(&locations, &[nightly, of_deleted]);
        assert!(owners.know_backups_in("b", "clusters/a"));
        assert!(!owners.know_backups_in("b", "new"), "Velero knows no backup of it yet");
        assert!(!owners.know_backups_in("b", "old"), "there is no such location");
        assert!(!owners.know_backups_in("c", "clusters/a"), "another bucket");
    }
}
