//! Opens the repository that was asked for, with keys from the environment, and finds restore points in it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use repository::store::Store;
use repository::{Credentials, Damage, Error, Location, Points, Reader, Repository, RestorePoint, RestorePointId};
use secrecy::SecretString;

use crate::backup::short;
use crate::failure::{self, Refused, exit};
use crate::list::damage;

/// Unreadable restore points that a message names.
const NAMED: usize = 3;

/// The word for the newest restore point.
const LATEST: &str = "latest";

/// A repository's place and key, both usable, before anything is asked of it.
pub(crate) struct Access {
    location: Location,
    password: SecretString,
}

impl Access {
    /// Reads the place and the environment; talks to nobody.
    pub(crate) fn new(place: &str) -> Result<Self> {
        Ok(Self { location: Location::parse(place)?, password: password()? })
    }

    /// Opens a repository that exists.
    pub(crate) async fn open(&self) -> Result<Repository> {
        let store = self.store().await?;
        match repository::open(store.clone(), &self.password).await {
            // a repository that has lost it is not an empty place: whoever believes that makes another one
            Err(Error::NotARepository { location })
                if !store.list("snapshots/").await.unwrap_or_default().is_empty() =>
            {
                let message =
                    format!("open the repository at {location}: `config` is missing, and snapshots are there");
                Err(Refused { message, fix: failure::CONFIG_LOST.into(), code: exit::DIFFERS }.into())
            }
            opened => Ok(opened?),
        }
    }

    /// Opens the repository, and makes it when this is the first backup.
    pub(crate) async fn open_or_make(&self) -> Result<Repository> {
        Ok(repository::initialise(self.store().await?, &self.password).await?)
    }

    async fn store(&self) -> Result<Arc<dyn Store>> {
        let ca_pem = match variable("AWS_CA_BUNDLE") {
            Some(file) => Some(std::fs::read_to_string(&file).with_context(|| format!("read AWS_CA_BUNDLE {file}"))?),
            None => None,
        };
        let store = self.location.store(|options| {
            options.region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).unwrap_or_default();
            options.ca_pem = ca_pem;
            options.credentials = credentials();
        });
        store.await.with_context(|| format!("reach {}", self.location))
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn credentials() -> Credentials {
    match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => Credentials::Given {
            id,
            secret: secret.into(),
            token: variable("AWS_SESSION_TOKEN").map(SecretString::from),
        },
        _ => Credentials::Environment,
    }
}

/// The file goes before the variable, as in restic: who has set both would otherwise make a repository that restic, asked
/// in the same shell, does not open.
fn password() -> Result<SecretString> {
    let fix = "set RESTIC_PASSWORD or RESTIC_PASSWORD_FILE to the repository's key";
    let Some(file) = variable("RESTIC_PASSWORD_FILE").map(PathBuf::from) else {
        let none = || Refused::new("find the repository's key: the environment has none", fix);
        return Ok(variable("RESTIC_PASSWORD").ok_or_else(none)?.into());
    };
    let unusable = |cause: &dyn std::fmt::Display| {
        Refused::new(format!("find the repository's key: read {}: {cause}", file.display()), fix)
    };
    let text = std::fs::read_to_string(&file).map_err(|cause| unusable(&cause))?;
    // restic trims, too: editors end files with a newline
    match text.trim() {
        "" => Err(unusable(&"it is empty").into()),
        password => Ok(password.into()),
    }
}

/// The restore point that `wanted` means, ready to be read.
pub(crate) async fn find_and_open(
    repository: &Repository,
    wanted: &str,
    path: Option<&str>,
) -> Result<(RestorePoint, Reader)> {
    let point = find(repository, wanted, path).await?;
    let reader = repository.reader(&point.id).await?;
    Ok((point, reader))
}

/// The restore point that `wanted` means, ready to be examined: also when chunks of it are lost.
pub(crate) async fn find_and_examine(
    repository: &Repository,
    wanted: &str,
    path: Option<&str>,
) -> Result<(RestorePoint, Reader)> {
    let point = find(repository, wanted, path).await?;
    let reader = repository.reader_despite_damage(&point.id).await;
    match reader {
        Ok(reader) => Ok((point, reader)),
        // what lies below a list of places that is lost cannot be named: advice to ask for it again leads nowhere
        Err(Error::Damaged { act, source }) if !matches!(source, Damage::NotIndexed { .. }) => {
            let message = format!("{act}: {source}: what the restore point is made of cannot be told");
            let fix = "restore another restore point; `restic check --read-data` tells what else is damaged".into();
            Err(Refused { message, fix, code: exit::FAILED }.into())
        }
        Err(other) => Err(other.into()),
    }
}

/// The restore point that `wanted` means: `latest`, or the beginning of an id, in small letters.
async fn find(repository: &Repository, wanted: &str, path: Option<&str>) -> Result<RestorePoint> {
    if wanted != LATEST {
        let point = repository.find_by_prefix(wanted).await?;
        if let Some(path) = path.filter(|path| *path != point.path) {
            let message = format!("find restore point {}: it is of {}, not of {path}", short(&point), point.path);
            return Err(Refused::new(message, "give another id, or leave --path out").into());
        }
        return Ok(point);
    }
    let Points { readable, damaged } = repository.points().await?;
    let fix = "give the id of a restore point: `vsphere-backup list` shows them; and bring the file back from a copy, or remove it";
    refuse_unreadable("find the latest restore point", &damaged, fix)?;
    Ok(latest(readable, path)?)
}

/// Which restore point of a disk is the newest, nobody knows while one cannot be read: that one may be it.
pub(crate) fn refuse_unreadable(
    act: &str,
    unreadable: &[(RestorePointId, Error)],
    fix: &'static str,
) -> Result<(), Refused> {
    if unreadable.is_empty() {
        return Ok(());
    }
    let mut named: Vec<_> = unreadable.iter().take(NAMED).map(|(_, error)| damage(error)).collect();
    if let Some(more) = unreadable.len().checked_sub(NAMED).filter(|more| *more > 0) {
        named.push(format!("{more} more"));
    }
    let message = format!("{act}: it may be one that cannot be read: {}", named.join("; "));
    Err(Refused { message, fix: fix.into(), code: exit::DIFFERS })
}

fn latest(points: Vec<RestorePoint>, path: Option<&str>) -> Result<RestorePoint, Refused> {
    let mut points: Vec<_> = points.into_iter().filter(|point| path.is_none_or(|path| point.path == path)).collect();
    let mut paths: Vec<_> = points.iter().map(|point| point.path.as_str()).collect();
    paths.sort_unstable();
    paths.dedup();
    if paths.len() > 1 {
        return Err(Refused {
            message: format!(
                "find the latest restore point: the repository holds several disks:\n  {}",
                paths.join("\n  ")
            ),
            fix: "say which one with --path".into(),
            code: exit::NO_RESTORE_POINT,
        });
    }
    points.pop().ok_or_else(|| Refused {
        message: match path {
            Some(path) => format!("find the latest restore point of {path}: there is none"),
            None => "find the latest restore point: the repository holds none".to_owned(),
        },
        fix: "see `vsphere-backup list` for the restore points there are".into(),
        code: exit::NO_RESTORE_POINT,
    })
}

/// This machine's name, as restic would note it.
pub(crate) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}
