//! What this executable holds: names, and an action behind each. The order is the order in which Velero runs them.

use std::collections::HashSet;
use std::sync::Arc;

use super::kinds::{BackupItemAction, DeleteItemAction, RestoreItemAction, VolumeSnapshotter};

/// An action and the kind of plugin it is. There is no ItemBlockAction: a server before 1.15 does not start when it is
/// listed (P-02).
#[derive(Clone)]
pub enum Action {
    /// `BackupItemActionV2`
    Backup(Arc<dyn BackupItemAction>),
    /// `RestoreItemActionV2`
    Restore(Arc<dyn RestoreItemAction>),
    /// `DeleteItemAction`
    Delete(Arc<dyn DeleteItemAction>),
    /// `VolumeSnapshotter`
    VolumeSnapshotter(Arc<dyn VolumeSnapshotter>),
}

impl Action {
    /// Velero's word for the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Backup(_) => "BackupItemActionV2",
            Self::Restore(_) => "RestoreItemActionV2",
            Self::Delete(_) => "DeleteItemAction",
            Self::VolumeSnapshotter(_) => "VolumeSnapshotter",
        }
    }
}

/// A list that would keep the Velero server from starting.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Not `domain/name`.
    #[error("`{0}` is not a DNS name, one slash, and a name")]
    Name(String),
    /// The same name twice.
    #[error("{kind} `{name}` is there twice")]
    Twice {
        /// The kind of plugin.
        kind: &'static str,
        /// The name that is taken.
        name: String,
    },
}

/// All actions of the executable.
#[derive(Clone, Default)]
pub struct Registry {
    entries: Vec<(String, Action)>,
}

impl Registry {
    /// A list of these actions.
    ///
    /// # Errors
    /// When Velero would not start with it: a malformed name, or one that is there twice.
    pub fn new<N: Into<String>>(entries: impl IntoIterator<Item = (N, Action)>) -> Result<Self, RegistryError> {
        let entries: Vec<(String, Action)> = entries.into_iter().map(|(name, action)| (name.into(), action)).collect();
        let mut seen = HashSet::new();
        for (name, action) in &entries {
            if !well_formed(name) {
                return Err(RegistryError::Name(name.clone()));
            }
            if !seen.insert((action.kind(), name)) {
                return Err(RegistryError::Twice { kind: action.kind(), name: name.clone() });
            }
        }
        Ok(Self { entries })
    }

    /// Kind and name of every action, in order.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.entries.iter().map(|(name, action)| (action.kind(), name.as_str()))
    }

    /// The action that `pick` takes among those of this name.
    pub(super) fn find<T>(&self, name: &str, pick: impl Fn(&Action) -> Option<T>) -> Option<T> {
        self.entries.iter().filter(|(known, _)| known == name).find_map(|(_, action)| pick(action))
    }
}

/// `domain/name`: the first part a DNS-1123 subdomain, the second not empty.
fn well_formed(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |l: &str| {
        l.starts_with(inner) && l.ends_with(inner) && l.chars().all(|c| inner(c) || c == '-') && l.len() <= 63
    };
    match name.split_once('/') {
        Some((domain, rest)) => {
            domain.len() <= 253 && domain.split('.').all(label) && !rest.is_empty() && !rest.contains('/')
        }
        None => false,
    }
}
