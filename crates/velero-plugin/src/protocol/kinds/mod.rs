//! The kinds of plugins that we know, as traits: what an action is asked, and what it answers. Nothing here knows gRPC.

mod backup;
mod delete;
mod operation;
mod restore;
mod snapshotter;

use std::panic::Location;

pub use backup::{BackedUp, BackupItemAction};
pub use delete::DeleteItemAction;
pub use operation::{Outcome, Progress};
pub use restore::{RestoreItemAction, Restored, WaitForItems};
pub use snapshotter::{VolumeInfo, VolumeSnapshotter};

/// Which items an action is called for. An empty list excludes nothing; a selector of labels is `""` for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// Namespaces to look in; an action that lists any is never called for objects of the cluster.
    pub included_namespaces: Vec<String>,
    /// Namespaces to leave out.
    pub excluded_namespaces: Vec<String>,
    /// Resources: lower-case plural, with the group when it is not the core group, as `datauploads.velero.io`.
    pub included_resources: Vec<String>,
    /// Resources to leave out.
    pub excluded_resources: Vec<String>,
    /// A selector of labels in Kubernetes' words.
    pub labels: String,
}

impl Selector {
    /// Every object of these resources.
    pub fn resources<R: Into<String>>(resources: impl IntoIterator<Item = R>) -> Self {
        Self { included_resources: resources.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// One object of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemReference {
    /// The API group; empty for the core group.
    pub group: String,
    /// The lower-case plural of the kind.
    pub resource: String,
    /// The namespace; empty for an object of the cluster.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
}

/// Whether a backup is in its last pass, in which no action may start an operation (P-12).
pub fn is_finalizing(backup: &serde_json::Value) -> bool {
    matches!(backup["status"]["phase"].as_str(), Some("Finalizing" | "FinalizingPartiallyFailed"))
}

/// Why an action could not do what it was asked: one sentence for the user and the place it came from.
///
/// Every error turns into one with `?`, its causes joined by `: `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionError {
    message: String,
    file: &'static str,
    line: u32,
}

impl ActionError {
    /// An error of this text, from the caller's line.
    #[track_caller]
    pub fn new(message: impl Into<String>) -> Self {
        let place = Location::caller();
        Self { message: message.into(), file: place.file(), line: place.line() }
    }

    /// What the user reads.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The source file and line.
    pub fn place(&self) -> (&'static str, u32) {
        (self.file, self.line)
    }
}

impl<E: std::error::Error> From<E> for ActionError {
    #[track_caller]
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            message = format!("{message}: {source}");
            cause = source.source();
        }
        Self::new(message)
    }
}

impl std::fmt::Display for ActionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}
