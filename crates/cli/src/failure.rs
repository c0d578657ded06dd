//! How a failure ends the program: its exit code, and what to do about it. Adds nothing to the message itself.

use data_path::ErrorKind as Copy;
use repository::ErrorKind as Store;
use serde::Serialize;
use serde_json::{Map, Value};

/// Exit codes, as `--help` lists them.
pub(crate) mod exit {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const REFUSED: u8 = 2;
    pub(crate) const DIFFERS: u8 = 3;
    pub(crate) const NO_RESTORE_POINT: u8 = 4;
    pub(crate) const NO_REPOSITORY: u8 = 10;
    pub(crate) const LOCKED: u8 = 11;
    pub(crate) const WRONG_KEY: u8 = 12;
    pub(crate) const CANCELLED: u8 = 130;
}

/// Refused by the command line itself, before anything was changed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    /// What was refused, and why.
    pub(crate) message: String,
    /// What to do.
    pub(crate) fix: &'static str,
    /// One of [`exit`].
    pub(crate) code: u8,
}

impl Refused {
    /// With exit code [`exit::REFUSED`].
    pub(crate) fn new(message: impl Into<String>, fix: &'static str) -> Self {
        Self { message: message.into(), fix, code: exit::REFUSED }
    }
}

/// A failure that has a result nevertheless: scripts find both in the failure's document.
#[derive(Debug, thiserror::Error)]
#[error("{failure}")]
pub(crate) struct WithResult {
    pub(crate) failure: Refused,
    /// What becomes part of the document.
    pub(crate) result: Map<String, Value>,
}

impl WithResult {
    /// `result` is written as a JSON object.
    pub(crate) fn new(failure: Refused, result: &impl Serialize) -> Self {
        let result = match serde_json::to_value(result).expect("results are strings, numbers and times") {
            Value::Object(result) => result,
            other => Map::from_iter([("result".to_owned(), other)]),
        };
        Self { failure, result }
    }
}

/// What an error means for who called us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// The process's exit code.
    pub(crate) code: u8,
    /// What to do; `None` when the message says it all.
    pub(crate) fix: Option<&'static str>,
}

/// Looks along the chain of causes for the first one that we know.
pub(crate) fn meaning(error: &anyhow::Error) -> Meaning {
    let known = error.chain().find_map(|cause| {
        let with_result = cause.downcast_ref::<WithResult>().map(|found| &found.failure);
        let refused = cause.downcast_ref::<Refused>().or(with_result).map(|refused| (refused.code, refused.fix));
        let copy = || cause.downcast_ref::<data_path::Error>().map(of_copy);
        let store = || cause.downcast_ref::<repository::Error>().map(|error| of_repository(error.kind()));
        let location = || cause.downcast_ref::<repository::InvalidLocation>().map(|_| (exit::REFUSED, ""));
        refused.or_else(copy).or_else(store).or_else(location)
    });
    let (code, fix) = known.unwrap_or((exit::FAILED, ""));
    Meaning { code, fix: Some(fix).filter(|fix| !fix.is_empty()) }
}

fn of_copy(error: &data_path::Error) -> (u8, &'static str) {
    if matches!(error, data_path::Error::Connect { .. }) {
        return (exit::FAILED, "check the disk's address and that its server runs, then start again");
    }
    match error.kind() {
        Copy::DiskRead => (exit::FAILED, "look at the disk's server, then start again"),
        Copy::TrackingUntrue => (exit::DIFFERS, "the list of changes misses some: back it up without it"),
        Copy::DiskWrite => (
            exit::FAILED,
            "look at the target's server and its free space, then restore again: the target is incomplete",
        ),
        Copy::DiskFlush => (exit::FAILED, "the target may be incomplete: look at its server, then restore again"),
        Copy::TargetTooSmall => (exit::REFUSED, "give a target that is at least as large as the restore point"),
        Copy::Repository(kind) => of_repository(kind),
        Copy::Cancelled => (exit::CANCELLED, ""),
    }
}

fn of_repository(kind: Store) -> (u8, &'static str) {
    match kind {
        Store::BucketMissing => (exit::NO_REPOSITORY, "create the bucket, or correct its name"),
        Store::AccessDenied => {
            (exit::FAILED, "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the folder's permissions")
        }
        Store::Unreachable => (exit::FAILED, "check the address of the store and the network, then start again"),
        Store::StoreFailed => (exit::FAILED, "look at the store's own log, then start again"),
        Store::PasswordWrong => {
            (exit::WRONG_KEY, "set RESTIC_PASSWORD or RESTIC_PASSWORD_FILE to this repository's key")
        }
        Store::NotARepository => {
            (exit::NO_REPOSITORY, "correct the place of the repository; the first backup makes one")
        }
        Store::Unsupported => (exit::FAILED, "use a repository of restic's format version 2"),
        Store::Locked => {
            (exit::LOCKED, "wait for the other program, or remove its lock with `restic unlock` when it is dead")
        }
        Store::Damaged => {
            (exit::FAILED, "run `restic check --read-data` on the repository, and restore another restore point")
        }
        Store::PointMissing => (exit::NO_RESTORE_POINT, "see `vsphere-backup list` for the restore points there are"),
        Store::Cancelled => (exit::CANCELLED, ""),
        Store::SendAgain => (exit::FAILED, "start again, and do not prune the repository meanwhile"),
        _ => (exit::FAILED, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_cause_deep_in_the_chain_decides_the_exit_code() {
        let inner = repository::Error::PasswordWrong { location: "folder".to_owned() };
        let error =
            Err::<(), _>(inner).context("open the repository").context("list restore points").expect_err("made as one");
        assert_eq!(meaning(&error).code, exit::WRONG_KEY);
        assert!(meaning(&error).fix.is_some_and(|fix| fix.contains("RESTIC_PASSWORD")));
    }

    #[test]
    fn what_nobody_knows_is_a_plain_failure() {
        assert_eq!(meaning(&anyhow::anyhow!("boom")), Meaning { code: exit::FAILED, fix: None });
    }
}
