//! How a failure ends the program: its exit code, and what to do about it. Adds nothing to the message itself.

use std::borrow::Cow;
use std::error::Error as _;
use std::io;

use data_path::ErrorKind as Copy;
use lifecycle::Problem;
use repository::store;
use repository::{Damage, ErrorKind as Store};
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
    pub(crate) fix: Cow<'static, str>,
    /// One of [`exit`].
    pub(crate) code: u8,
}

impl Refused {
    /// With exit code [`exit::REFUSED`].
    pub(crate) fn new(message: impl Into<String>, fix: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), fix: fix.into(), code: exit::REFUSED }
    }

    /// What the cluster, a store or vCenter said, with exit code [`exit::FAILED`].
    pub(crate) fn by(problem: &Problem) -> Self {
        let fix = problem.fix.clone().unwrap_or_else(|| problem.reason.fix().to_owned());
        Self { message: problem.to_string(), fix: fix.into(), code: exit::FAILED }
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
    pub(crate) fix: Option<Cow<'static, str>>,
}

/// Looks along the chain of causes for the first one that we know.
pub(crate) fn meaning(error: &anyhow::Error) -> Meaning {
    let known = error.chain().find_map(|cause| {
        let with_result = cause.downcast_ref::<WithResult>().map(|found| &found.failure);
        let refused =
            cause.downcast_ref::<Refused>().or(with_result).map(|refused| (refused.code, refused.fix.clone()));
        let told = |(code, fix): (u8, &'static str)| (code, Cow::Borrowed(fix));
        let copy = || cause.downcast_ref::<data_path::Error>().map(of_copy).map(told);
        let repository = || cause.downcast_ref::<repository::Error>().map(of_repository).map(told);
        let store = || cause.downcast_ref::<store::Error>().map(of_store).map(told);
        let location = || cause.downcast_ref::<repository::InvalidLocation>().map(|_| (exit::REFUSED, Cow::default()));
        refused.or_else(copy).or_else(repository).or_else(store).or_else(location)
    });
    let (code, fix) = known.unwrap_or((exit::FAILED, Cow::default()));
    Meaning { code, fix: Some(fix).filter(|fix| !fix.is_empty()) }
}

fn of_copy(error: &data_path::Error) -> (u8, &'static str) {
    match error {
        data_path::Error::Connect { .. } => {
            return (exit::FAILED, "check the disk's address and that its server runs, then start again");
        }
        data_path::Error::Repository { source, .. } | data_path::Error::Unread { source, .. } => {
            return of_repository(source);
        }
        _ => {}
    }
    match error.kind() {
        Copy::DiskRead => (exit::FAILED, "look at the disk's server, then start again"),
        Copy::TrackingUntrue => (exit::DIFFERS, "the list of changes misses some: back it up without it"),
        Copy::DiskWrite => (exit::FAILED, "look at the target's server and its free space, then restore again"),
        Copy::DiskFlush => (exit::FAILED, "look at the target's server, then restore again"),
        Copy::TargetTooSmall => (exit::REFUSED, "give a target that is at least as large as the restore point"),
        Copy::Repository(kind) => of_kind(kind),
        Copy::Cancelled => (exit::CANCELLED, ""),
    }
}

fn of_repository(error: &repository::Error) -> (u8, &'static str) {
    match error {
        repository::Error::Store { source, .. } => of_store(source),
        repository::Error::Damaged { source, .. } => of_damage(source),
        repository::Error::LockUnproven { source } => of_repository(source),
        repository::Error::PasswordWrong { untried, .. } if !untried.is_empty() => (exit::WRONG_KEY, KEYS_UNTRIED),
        other => of_kind(other.kind()),
    }
}

/// Of a folder the system tells what failed; everything else is a bucket.
fn of_store(error: &store::Error) -> (u8, &'static str) {
    use io::ErrorKind::{NotADirectory, NotFound, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let system = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let fix = match (system, error.kind()) {
        (Some(ReadOnlyFilesystem), _) => "mount the repository's file system for writing, then start again",
        (Some(StorageFull | QuotaExceeded), _) => "free space on the repository's file system, then start again",
        (Some(NotADirectory), _) => "name a folder: a part of its path is a file",
        (Some(NotFound), _) => "look whether the repository's file system is mounted, then start again",
        (Some(_), store::ErrorKind::AccessDenied) => {
            "let this user read and write the repository's folder and all below it"
        }
        (Some(_), _) => {
            "look at the disk that the repository's folder is on, and at the system's log, then start again"
        }
        (None, store::ErrorKind::BucketMissing) => return of_kind(Store::BucketMissing),
        (None, _) if error.source().is_some_and(|cause| cause.is::<store::NoKey>()) => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key that may read and write the bucket, or mend where it is to \
             come from; RUST_LOG=aws_config=debug tells where one is looked for"
        }
        (None, store::ErrorKind::AccessDenied) => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key that may read and write the bucket"
        }
        (None, store::ErrorKind::Unreachable) => return of_kind(Store::Unreachable),
        (None, store::ErrorKind::NotFound | store::ErrorKind::Failed) => return of_kind(Store::StoreFailed),
    };
    (exit::FAILED, fix)
}

/// What helps when a repository has snapshots and no `config`.
pub(crate) const CONFIG_LOST: &str =
    "bring the repository's file `config` back from a copy of it; do not make a new one in its place";

/// Damage differs in what can still be had.
fn of_damage(damage: &Damage) -> (u8, &'static str) {
    let object = match damage {
        Damage::ObjectMissing { object }
        | Damage::Length { object, .. }
        | Damage::Sealed { object }
        | Damage::Malformed { object, .. } => object.as_str(),
        Damage::Chunk { .. } | Damage::Image { .. } => "",
        Damage::NotIndexed { .. } => return (exit::FAILED, INDEX_LOST),
    };
    match object.split('/').next() {
        Some("config") => (exit::DIFFERS, CONFIG_LOST),
        Some("keys") => (exit::DIFFERS, KEYS_LOST),
        Some("index") => (exit::FAILED, INDEX_LOST),
        Some("snapshots") => {
            (exit::FAILED, "bring the file back from a copy of the repository, or restore another restore point")
        }
        _ => (
            exit::FAILED,
            "`vsphere-backup verify` tells which bytes of the disk are lost, `restore --skip-damaged` brings back all \
             others; or restore another restore point",
        ),
    }
}

const KEYS_LOST: &str =
    "bring a file of the repository's folder `keys` back from a copy of it: without one nobody can read the repository";

/// The password may be right.
const KEYS_UNTRIED: &str = "where a key file that is named here is the repository's own, bring a damaged one back from a copy of the \
                            repository, or run `restic key add`, which opens one that asks for too much and writes one that does not; \
                            else set RESTIC_PASSWORD or RESTIC_PASSWORD_FILE to this repository's key";

const INDEX_LOST: &str = "run `restic rebuild-index` (since 0.16 `restic repair index`) on the repository, which finds what \
                          its packs still hold, then `vsphere-backup verify`";

/// What a kind of failure means where nothing more is known of it.
fn of_kind(kind: Store) -> (u8, &'static str) {
    match kind {
        Store::BucketMissing => (exit::NO_REPOSITORY, "create the bucket, or correct its name"),
        Store::AccessDenied => (
            exit::FAILED,
            "check who may read and write the repository: the key to the bucket, the folder's permissions",
        ),
        Store::Unreachable => (exit::FAILED, "check the address of the store and the network, then start again"),
        Store::StoreFailed => (exit::FAILED, "look at the log of the store's server, then start again"),
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
        Store::Damaged => (
            exit::FAILED,
            "`restic check --read-data` tells what is damaged in the repository; restore another restore point",
        ),
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
        let inner = repository::Error::PasswordWrong { location: "folder".to_owned(), untried: Vec::new() };
        let error =
            Err::<(), _>(inner).context("open the repository").context("list restore points").expect_err("made as one");
        assert_eq!(meaning(&error).code, exit::WRONG_KEY);
        assert!(meaning(&error).fix.is_some_and(|fix| fix.contains("RESTIC_PASSWORD")));
    }

    #[test]
    fn nobody_with_a_folder_is_sent_to_a_server() {
        use store::ErrorKind::{AccessDenied, BucketMissing, Failed, NotFound, Unreachable};
        let system = [1, 2, 5, 13, 20, 28, 30].map(io::Error::from_raw_os_error);
        for cause in system {
            for kind in [AccessDenied, NotFound, Failed] {
                let cause = io::Error::from_raw_os_error(cause.raw_os_error().unwrap_or_default());
                let (_, fix) = of_store(&store::Error::new(kind, "put", "x", "folder /r", cause));
                for word in ["AWS", "bucket", "server", "network"] {
                    assert!(!fix.contains(word), "{kind:?}: {fix}");
                }
            }
        }
        for kind in [AccessDenied, BucketMissing, Unreachable, NotFound, Failed] {
            let (_, fix) = of_store(&store::Error::new(kind, "put", "x", "bucket b", "the store answers 500"));
            assert!(!fix.contains("folder") && !fix.contains("mount"), "{kind:?}: {fix}");
        }
    }

    #[test]
    fn each_damage_has_the_advice_that_helps() {
        let object = |object: &str| Damage::ObjectMissing { object: object.to_owned() };
        let cases = [
            (object("config"), exit::DIFFERS, "config"),
            (object("keys/"), exit::DIFFERS, "keys"),
            (object("data/00/00"), exit::FAILED, "--skip-damaged"),
            (Damage::Sealed { object: "index/00".to_owned() }, exit::FAILED, "rebuild-index"),
            (Damage::NotIndexed { chunk: "00".to_owned() }, exit::FAILED, "rebuild-index"),
        ];
        for (damage, code, word) in cases {
            let (said, fix) = of_damage(&damage);
            assert!(said == code && fix.contains(word), "{damage}: {said}: {fix}");
        }
    }

    #[test]
    fn what_nobody_knows_is_a_plain_failure() {
        assert_eq!(meaning(&anyhow::anyhow!("boom")), Meaning { code: exit::FAILED, fix: None });
    }
}
