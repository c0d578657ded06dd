//! `list`: the restore points of one repository.

use anyhow::{Context, Result};
use repository::{Error, Points, RestorePoint, RestorePointId};
use serde::Serialize;

use crate::args::{ListArguments, Output};
use crate::backup::short;
use crate::failure::{Refused, WithResult, exit};
use crate::output;
use crate::repositories::Access;

pub(crate) async fn run(place: &str, arguments: &ListArguments, output: Output) -> Result<()> {
    let repository = Access::new(place)?.open().await?;
    let Points { readable, damaged } = repository.points().await.context("list restore points")?;
    let wanted = arguments.path.as_deref();
    let points: Vec<_> = readable.into_iter().filter(|point| wanted.is_none_or(|path| point.path == path)).collect();
    let damaged: Vec<_> = damaged.iter().map(|(id, error)| Unreadable::of(id, error)).collect();
    if damaged.is_empty() || output == Output::Text {
        output::result(output, &points, || text(&points, &damaged))?;
    }
    if damaged.is_empty() {
        return Ok(());
    }
    let named: Vec<_> = damaged.iter().map(|damaged| damaged.cause.as_str()).collect();
    let failure = Refused {
        message: format!("list restore points: {} cannot be read: {}", damaged.len(), named.join("; ")),
        fix: "bring the files back from a copy of the repository, or remove them; the others are listed".into(),
        code: exit::DIFFERS,
    };
    Err(WithResult::new(failure, &Listed { restore_points: points, damaged }).into())
}

/// What could be listed, when some restore points cannot be read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    restore_points: Vec<RestorePoint>,
    damaged: Vec<Unreadable>,
}

/// A snapshot file that may be a restore point of any disk.
#[derive(Serialize)]
struct Unreadable {
    id: RestorePointId,
    /// The file below the repository, and what is wrong with it.
    cause: String,
}

impl Unreadable {
    fn of(id: &RestorePointId, error: &Error) -> Self {
        Self { id: *id, cause: damage(error) }
    }
}

/// What is wrong, without what was being done.
pub(crate) fn damage(error: &Error) -> String {
    match error {
        Error::Damaged { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

fn text(points: &[RestorePoint], damaged: &[Unreadable]) -> String {
    if points.is_empty() && damaged.is_empty() {
        return "no restore points".to_owned();
    }
    let rows = points.iter().map(|point| vec![short(point), when(point), point.host.clone(), point.path.clone()]);
    let unreadable = |damaged: &Unreadable| {
        vec![damaged.id.to_string()[..8].to_owned(), "cannot be read".to_owned(), String::new(), String::new()]
    };
    output::table(&["ID", "TIME", "HOST", "DISK"], rows.chain(damaged.iter().map(unreadable)))
}

/// To the second, in UTC.
pub(crate) fn when(point: &RestorePoint) -> String {
    point.time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
