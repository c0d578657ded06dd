//! Restore points: what a snapshot file of restic says about one disk at one moment.
//!
//! The snapshot file is the commit. This module turns it into text and back; it reads and writes no store.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use disk::DiskSnapshot;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::disk_image::DiskFacts;
use crate::hash::{from_hex, hex};

/// Written as `username` into every snapshot file and lock of ours; tells them from other programs'.
pub(crate) const USERNAME: &str = "vsphere-backup";

/// Tag with the disk's id.
pub(crate) const TAG_DISK: &str = "fcd";
/// Tag with the id of the disk's snapshot.
pub(crate) const TAG_DISK_SNAPSHOT: &str = "fcd-snapshot";

/// The name of a restore point: restic's snapshot id. Other programs may rewrite a snapshot file and so change it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RestorePointId(pub(crate) [u8; 32]);

impl fmt::Display for RestorePointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for RestorePointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// The text is not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of a restore point: 64 hex digits")]
pub struct ParseRestorePointIdError(String);

impl FromStr for RestorePointId {
    type Err = ParseRestorePointIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        from_hex(text).map(Self).ok_or_else(|| ParseRestorePointIdError(text.to_owned()))
    }
}

impl Serialize for RestorePointId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One disk at one moment, as its snapshot file tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorePoint {
    /// Its name in this repository.
    pub id: RestorePointId,
    /// The moment: when the disk snapshot was taken.
    pub time: Timestamp,
    /// Cluster id, or the machine's name for the command line.
    pub host: String,
    /// `/<namespace>/<claim>`, or what was backed up for the command line.
    pub path: String,
    /// `key=value` tags; a tag without `=` has an empty value.
    pub tags: BTreeMap<String, String>,
    /// The program and version that wrote it; empty where nothing was noted.
    pub program: String,
    #[serde(skip)]
    pub(crate) tree: [u8; 32],
}

impl RestorePoint {
    /// Which disk snapshot this is, where vSphere made one. This, not [`RestorePoint::id`], says whether two are the same.
    pub fn identity(&self) -> Option<DiskSnapshot> {
        let tag = |name| self.tags.get(name);
        Some(DiskSnapshot { disk: tag(TAG_DISK)?.parse().ok()?, snapshot: tag(TAG_DISK_SNAPSHOT)?.parse().ok()? })
    }
}

/// What a restore point shall be called, before its content is there.
#[derive(Debug, Clone)]
pub struct NewRestorePoint {
    /// Cluster id (uid of namespace `kube-system`), or the machine's name.
    pub host: String,
    /// `/<namespace>/<claim>`, or the absolute path or address of what is backed up.
    pub path: String,
    /// When the disk snapshot was taken.
    pub time: Timestamp,
    /// What is known about the disk; goes into `/disk.json`.
    pub disk: DiskFacts,
    /// Tags beside `fcd` and `fcd-snapshot`, which come from `disk`: `claim`, `cluster`, `backup`, `backup-uid`.
    pub tags: Vec<(String, String)>,
}

impl NewRestorePoint {
    /// Without further tags.
    pub fn new(host: impl Into<String>, path: impl Into<String>, time: Timestamp, disk: DiskFacts) -> Self {
        Self { host: host.into(), path: path.into(), time, disk, tags: Vec::new() }
    }

    fn all_tags(&self) -> Vec<String> {
        let identity =
            self.disk.snapshot.iter().flat_map(|snapshot| {
                [(TAG_DISK, snapshot.disk.as_str()), (TAG_DISK_SNAPSHOT, snapshot.snapshot.as_str())]
            });
        let others = self.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        identity.chain(others).map(|(key, value)| format!("{key}={value}")).collect()
    }
}

/// The file under `snapshots/`, as restic spells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SnapshotFile {
    pub(crate) time: Timestamp,
    pub(crate) tree: String,
    #[serde(default)]
    pub(crate) paths: Vec<String>,
    #[serde(default)]
    pub(crate) hostname: String,
    #[serde(default)]
    pub(crate) username: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) program_version: String,
    /// What other programs have noted; it stays when the file is written anew.
    #[serde(flatten)]
    pub(crate) others: serde_json::Map<String, serde_json::Value>,
}

impl SnapshotFile {
    /// The same restore point with more tags; `None` when it has them.
    pub(crate) fn tagged(mut self, more: &[(&str, &str)]) -> Option<Self> {
        let tags = self.tags.get_or_insert_default();
        let before = tags.len();
        for tag in more.iter().map(|(key, value)| format!("{key}={value}")) {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        (tags.len() > before).then_some(self)
    }

    pub(crate) fn new(point: &NewRestorePoint, tree: &[u8; 32]) -> Self {
        let tags = point.all_tags();
        Self {
            time: point.time,
            tree: hex(tree),
            paths: vec![point.path.clone()],
            hostname: point.host.clone(),
            username: USERNAME.to_owned(),
            tags: (!tags.is_empty()).then_some(tags),
            program_version: concat!("vsphere-backup ", env!("CARGO_PKG_VERSION")).to_owned(),
            others: serde_json::Map::new(),
        }
    }

    /// `None` when another program wrote it, or when it names no tree.
    pub(crate) fn restore_point(self, id: RestorePointId) -> Option<RestorePoint> {
        if self.username != USERNAME {
            return None;
        }
        let split = |tag: String| match tag.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (tag, String::new()),
        };
        Some(RestorePoint {
            id,
            time: self.time,
            host: self.hostname,
            path: self.paths.into_iter().next().unwrap_or_default(),
            tags: self.tags.unwrap_or_default().into_iter().map(split).collect(),
            program: self.program_version,
            tree: from_hex(&self.tree)?,
        })
    }
}
