//! `backup`: a disk becomes a restore point, or nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use data_path::{BackupOptions, BackupReport, Content, Progress, Waits};
use disk::Ranges;
use jiff::Timestamp;
use repository::{CHUNK_SIZE, DiskFacts, NewRestorePoint, Repository, RestorePoint, WriterOptions};
use serde::Serialize;

use crate::args::{BackupArguments, Output};
use crate::changes;
use crate::disks::{self, Opened};
use crate::failure::Refused;
use crate::interrupt::Interrupt;
use crate::output::{self, Bar};
use crate::place::Place;
use crate::repositories::{self, Access};

/// Longest time to make sure that a cancelled backup left no restore point.
const CLEAN_UP: Duration = Duration::from_secs(3);

/// What a backup did, for scripts. All sizes in bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    restore_point: &'a RestorePoint,
    repository: String,
    bytes_total: u64,
    bytes_read: u64,
    bytes_zero: u64,
    bytes_new: u64,
    bytes_stored: u64,
    seconds: f64,
    waited: Waits,
}

pub(crate) async fn run(arguments: &BackupArguments, output: Output, interrupt: &Interrupt) -> Result<()> {
    let access = Access::new(&arguments.repository.repository)?;
    let path = disk_path(&arguments.source, arguments.path.as_deref())?;
    // the disk first: a mistyped source must not leave a repository behind
    let source = disks::open_source(&arguments.source).await?;
    let changed = match &arguments.changed {
        Some(list) => Some(changes::read(list, source.disk.size())?),
        None => None,
    };
    let act = format!("back up {}", arguments.source);
    let repository = access.open_or_make().await.with_context(|| act.clone())?;
    interrupt.hold();
    let lock = repository.lock(&repositories::host()).await.with_context(|| act.clone())?;
    let copied = async {
        let content = content(&repository, &source, &path, changed).await?;
        copy(&repository, &source, &path, content, output, interrupt).await
    };
    let copied = copied.await;
    let released = lock.release().await;
    let report = copied.context(act)?;
    if let Err(error) = released {
        tracing::warn!(error = %format!("{:#}", anyhow::Error::from(error)), "the restore point is complete, but its lock could not be removed");
    }
    print(&repository, &report, output)
}

fn disk_path(source: &Place, given: Option<&str>) -> Result<String> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let path = source.default_path().with_context(|| format!("name {source}"))?;
    Ok(path
        .ok_or_else(|| Refused::new(format!("name {source}: the file's name is not UTF-8"), "name it with --path"))?)
}

/// What is read: everything, or what the list says changed since the latest restore point of that path.
async fn content(repository: &Repository, source: &Opened, path: &str, changed: Option<Ranges>) -> Result<Content> {
    let Some(areas) = changed else { return Ok(Content::Allocated) };
    let host = repositories::host();
    let points = repository.restore_points().await?;
    let base = points.iter().rev().find(|point| (&point.host, point.path.as_str()) == (&host, path));
    let base = base.ok_or_else(|| {
        let cause = format!("take over what did not change: there is no restore point of {path} from {host}");
        Refused::new(cause, "back it up without --changed first")
    })?;
    let base = repository.reader(&base.id).await?;
    if base.size() != source.disk.size() || base.chunk_size() != CHUNK_SIZE {
        let cause = format!("take over what did not change: the latest restore point of {path} is of another size");
        return Err(Refused::new(cause, "back it up without --changed").into());
    }
    Ok(Content::Changed { areas, base })
}

async fn copy(
    repository: &Repository,
    source: &Opened,
    path: &str,
    content: Content,
    output: Output,
    interrupt: &Interrupt,
) -> Result<BackupReport> {
    let found = match content {
        Content::Allocated => "allocated areas",
        Content::Changed { .. } => "changed areas",
    };
    let facts = DiskFacts { content_found: Some(found.to_owned()), ..DiskFacts::of_size(source.disk.size()) };
    let point = NewRestorePoint::new(repositories::host(), path, Timestamp::now(), facts);
    let opening = async { Ok(repository.writer(point.clone(), WriterOptions::default()).await?) };
    let writer = interrupt.or(opening).await?;
    let progress = Arc::new(Progress::new());
    let _bar = Bar::follow(output, "backup", &progress);
    let options = BackupOptions { content, ..BackupOptions::default() };
    let copied = data_path::backup(&source.disk, writer, &options, &progress, interrupt.token()).await;
    if matches!(copied, Err(data_path::Error::Cancelled)) {
        // the writer removes what it may have committed in the background, and we are about to end
        let _ = tokio::time::timeout(CLEAN_UP, forget(repository, &point)).await;
    }
    Ok(copied?)
}

async fn forget(repository: &Repository, cancelled: &NewRestorePoint) -> Result<(), repository::Error> {
    let same = |point: &RestorePoint| {
        (&point.host, &point.path, point.time) == (&cancelled.host, &cancelled.path, cancelled.time)
    };
    for point in repository.restore_points().await?.iter().filter(|point| same(point)) {
        repository.forget(&point.id).await?;
    }
    Ok(())
}

fn print(repository: &Repository, report: &BackupReport, output: Output) -> Result<()> {
    let (counts, stats) = (&report.counts, &report.stats);
    let done = Done {
        restore_point: &report.point,
        repository: repository.place(),
        bytes_total: counts.total,
        bytes_read: counts.read,
        bytes_zero: counts.skipped,
        bytes_new: stats.bytes_new,
        bytes_stored: stats.bytes_stored,
        seconds: report.elapsed.as_secs_f64(),
        waited: report.waits,
    };
    output::result(output, &done, || {
        format!(
            "restore point {} of {}\n{} disk, {} read, {} zero, {} new, {} stored, {}\n{}",
            short(&report.point),
            report.point.path,
            output::bytes(counts.total),
            output::bytes(counts.read),
            output::bytes(counts.skipped),
            output::bytes(stats.bytes_new),
            output::bytes(stats.bytes_stored),
            output::seconds(report.elapsed),
            report.waits,
        )
    })
}

/// The beginning of a restore point's id, as restic shows it.
pub(crate) fn short(point: &RestorePoint) -> String {
    point.id.to_string()[..8].to_owned()
}
