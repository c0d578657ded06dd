//! Restore points without an owner: a backup of Velero has made them and is gone, and nobody else speaks of them.
//!
//! Only those of this cluster, and only those that name a backup: what somebody backed up by hand has no owner to lose. A backup
//! that Velero has brought back from its storage location has another uid, so its name is enough to own.

use std::collections::HashSet;

use api::velero::Backup;
use api::{CloneFromSnapshot, DeleteSnapshot, Download, Snapshot, Timestamp, Upload, labels};
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
    /// Ids that objects of ours hold, as they hold them.
    held: Vec<String>,
}

impl Owners {
    /// Velero's backups.
    #[must_use]
    pub fn with_backups(mut self, backups: &[Backup]) -> Self {
        self.backups.extend(backups.iter().flat_map(|b| [labels::backup_name(b.name()), b.uid().to_owned()]));
        self.backups.remove("");
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
        self.held.extend(snapshots.iter().filter_map(|s| s.status.as_ref()?.snapshot_id.clone()));
        self.held.extend(clones.iter().map(|clone| clone.spec.snapshot_id.clone()));
        self.held.extend(deletes.iter().map(|delete| delete.spec.snapshot_id.clone()));
        self
    }

    /// Transfers of ours.
    #[must_use]
    pub fn with_transfers(mut self, uploads: &[Upload], downloads: &[Download]) -> Self {
        self.held.extend(uploads.iter().filter_map(|upload| upload.metadata.name.clone()));
        self.held.extend(downloads.iter().filter_map(|download| download.spec.snapshot_id.clone()));
        self
    }

    /// Whether any backup is known. A cluster without one looks like one whose Velero has not looked at its storage location
    /// yet, as after a new installation.
    pub fn knows_backups(&self) -> bool {
        !self.backups.is_empty()
    }

    fn own(&self, point: &Point) -> bool {
        let backup = point.backup.as_ref();
        let is_there = |word: &String| self.backups.contains(word);
        let by_backup = backup.is_none_or(|of| is_there(&of.name) || of.uid.as_ref().is_some_and(is_there));
        // one that does not say what it was read from cannot be told apart from one that is held
        let by_object = point.disk_snapshot.as_ref().is_none_or(|of| {
            let snapshot = of.snapshot.as_str();
            self.held.iter().any(|id| id.contains(snapshot))
        });
        by_backup || by_object
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
        let deletes = DeleteSnapshot::new(
            "d",
            DeleteSnapshotSpec { snapshot_id: "pvc:shop/data:aXZk:snap-1".to_owned(), ..DeleteSnapshotSpec::default() },
        );
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
            ("it is being deleted", point(), none().with_requests(&[], &[], &[deletes]), false),
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
    fn a_cluster_whose_velero_knows_no_backup_yet_says_so() {
        assert!(!Owners::default().with_backups(&[]).knows_backups());
        assert!(Owners::default().with_backups(&[backup("nightly", "u1")]).knows_backups());
    }
}
