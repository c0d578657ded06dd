//! Opens the repository that was asked for, with keys from the environment, and finds restore points in it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use repository::store::Store;
use repository::{Credentials, Location, Reader, Repository, RestorePoint};
use secrecy::SecretString;

use crate::failure::{Refused, exit};

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
        Ok(repository::open(self.store().await?, &self.password).await?)
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
    let reader = repository.reader_despite_damage(&point.id).await?;
    Ok((point, reader))
}

/// The restore point that `wanted` means: `latest`, or the beginning of an id.
async fn find(repository: &Repository, wanted: &str, path: Option<&str>) -> Result<RestorePoint> {
    if wanted != LATEST {
        return Ok(repository.find_by_prefix(&wanted.to_ascii_lowercase()).await?);
    }
    Ok(latest(repository.restore_points().await?, path)?)
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
            fix: "say which one with --path",
            code: exit::NO_RESTORE_POINT,
        });
    }
    points.pop().ok_or_else(|| Refused {
        message: match path {
            Some(path) => format!("find the latest restore point of {path}: there is none"),
            None => "find the latest restore point: the repository holds none".to_owned(),
        },
        fix: "see `vsphere-backup list` for the restore points there are",
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
