//! `backup`: a disk becomes a restore point, or nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use data_path::{BackupOptions, BackupReport, Content, Progress, Waits};
use disk::Ranges;
use jiff::Timestamp;
use repository::{CHUNK_SIZE, DiskFacts, NewRestorePoint, NoRival, Points, Repository, RestorePoint, WriterOptions};
use serde::Serialize;

use crate::args::{self, BackupArguments, Output};
use crate::changes;
use crate::disks::{self, Opened};
use crate::failure::Refused;
use crate::interrupt::Interrupt;
use crate::list::when;
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
    /// What was not read is taken over from this one; `null`: everything was read.
    base: Option<&'a RestorePoint>,
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
    refuse_shared_name(arguments, &path)?;
    // the disk first: a mistyped source must not leave a repository behind
    let source = disks::open_source(&arguments.source).await?;
    let changed = match &arguments.changed {
        Some(list) => Some(changes::read(list, source.disk.size())?),
        None => None,
    };
    let act = format!("back up {}", arguments.source);
    // what a list belongs to is in a repository: where there is none, another place was meant
    let repository = if changed.is_some() { access.open().await } else { access.open_or_make().await };
    let repository = repository.with_context(|| act.clone())?;
    interrupt.hold();
    let lock = repository.begin_lock(&repositories::host()).await.with_context(|| act.clone())?;
    let asked = Asked { repository: &repository, arguments, source: &source, path: &path, no_rival: lock.no_rival() };
    let copied = async {
        let (base, content) = content(&repository, arguments, &source, &path, changed).await?;
        let over = base.as_ref().map(|base| format!("take over from restore point {} of {}", short(base), when(base)));
        let report = match (copy(&asked, content, output, interrupt).await, over) {
            (Err(error), Some(over)) => return Err(error.context(over)),
            (report, _) => report?,
        };
        Ok::<_, anyhow::Error>((base, report))
    };
    let copied = copied.await;
    let released = lock.release().await;
    let (base, report) = copied.context(act)?;
    if let Err(error) = released {
        tracing::warn!(error = %format!("{:#}", anyhow::Error::from(error)), "the restore point is complete, but its lock could not be removed");
    }
    print(&repository, base.as_ref(), &report, output)
}

fn disk_path(source: &Place, given: Option<&str>) -> Result<String> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let path = source.default_path().with_context(|| format!("name {source}"))?;
    let unusable = |cause: &str| Refused::new(format!("name {source}: {cause}"), "name it with --path");
    let path = path.ok_or_else(|| unusable("the file's name is not UTF-8"))?;
    Ok(args::disk_path(&path).map_err(|cause| unusable(&cause))?)
}

/// A list of changes on the wrong restore point makes a disk that never was, so nobody guesses which disk it is.
fn refuse_shared_name(arguments: &BackupArguments, path: &str) -> Result<(), Refused> {
    let guessed = arguments.changed.is_some() && arguments.base.is_none() && arguments.path.is_none();
    if !guessed || !arguments.source.default_path_is_shared() {
        return Ok(());
    }
    let message = format!(
        "take over what did not change: any disk behind a socket may be called {path}, so its latest restore point may be another disk's"
    );
    Err(Refused::new(message, "say with --base which restore point the list belongs to, or name the disk with --path"))
}

/// What is read: everything, or what the list says changed since the restore point that comes with it.
async fn content(
    repository: &Repository,
    arguments: &BackupArguments,
    source: &Opened,
    path: &str,
    changed: Option<Ranges>,
) -> Result<(Option<RestorePoint>, Content)> {
    let Some(areas) = changed else { return Ok((None, Content::Allocated)) };
    let base = match arguments.base.as_deref() {
        Some(id) => named_base(repository, id, path).await,
        None => newest_base(repository, path).await,
    };
    let base = base.context("take over what did not change")?;
    let reader = repository.reader(&base.id).await?;
    if reader.size() != source.disk.size() || reader.chunk_size() != CHUNK_SIZE {
        let cause = format!("take over what did not change: restore point {} is of another size", short(&base));
        return Err(Refused::new(cause, "back it up without --changed").into());
    }
    Ok((Some(base), Content::Changed { areas, base: reader }))
}

/// The one that was asked for. Which other restore points there are, or cannot be read, does not matter to it.
async fn named_base(repository: &Repository, id: &str, path: &str) -> Result<RestorePoint> {
    let base = repository.find_by_prefix(id).await?;
    if base.path != path {
        let message = format!("restore point {} is of {}, and this is {path}", short(&base), base.path);
        return Err(
            Refused::new(message, "give the restore point that the list belongs to, or the disk's --path").into()
        );
    }
    Ok(base)
}

async fn newest_base(repository: &Repository, path: &str) -> Result<RestorePoint> {
    let host = repositories::host();
    let Points { readable, damaged } = repository.points().await?;
    let fix = "say with --base which restore point the list belongs to, or back it up without --changed";
    repositories::refuse_unreadable("find the latest restore point", &damaged, fix)?;
    let base = readable.into_iter().rev().find(|point| (&point.host, point.path.as_str()) == (&host, path));
    let none = || {
        let cause = format!("there is no restore point of {path} from {host}");
        Refused::new(cause, "back it up without --changed first")
    };
    Ok(base.ok_or_else(none)?)
}

/// Which disk goes where.
struct Asked<'a> {
    repository: &'a Repository,
    arguments: &'a BackupArguments,
    source: &'a Opened,
    path: &'a str,
    /// Of the lock that it is written under.
    no_rival: NoRival,
}

async fn copy(asked: &Asked<'_>, content: Content, output: Output, interrupt: &Interrupt) -> Result<BackupReport> {
    let Asked { repository, arguments, source, path, no_rival } = asked;
    let found = match content {
        Content::Allocated => "allocated areas",
        Content::Changed { .. } => "changed areas",
    };
    let facts = DiskFacts { content_found: Some(found.to_owned()), ..DiskFacts::of_size(source.disk.size()) };
    let point = NewRestorePoint::new(repositories::host(), *path, Timestamp::now(), facts);
    let options = WriterOptions { lock: Some(no_rival.clone()), ..WriterOptions::default() };
    let opening = async { Ok(repository.writer(point.clone(), options).await?) };
    let writer = interrupt.or(opening).await?;
    let progress = Arc::new(Progress::new());
    let _bar = Bar::follow(output, "backup", &progress);
    let options = BackupOptions { content, ..BackupOptions::default() };
    let copied = data_path::backup(&source.disk, writer, &options, &progress, interrupt.token()).await;
    if matches!(copied, Err(data_path::Error::Cancelled)) {
        // the writer removes what it may have committed in the background, and we are about to end
        let _ = tokio::time::timeout(CLEAN_UP, forget(repository, &point)).await;
    }
    copied.map_err(|error| disks::told(&arguments.source, error))
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

fn print(repository: &Repository, base: Option<&RestorePoint>, report: &BackupReport, output: Output) -> Result<()> {
    let (counts, stats) = (&report.counts, &report.stats);
    let done = Done {
        restore_point: &report.point,
        repository: repository.place(),
        base,
        bytes_total: counts.total,
        bytes_read: counts.read,
        bytes_zero: counts.skipped,
        bytes_new: stats.bytes_new,
        bytes_stored: stats.bytes_stored,
        seconds: report.elapsed.as_secs_f64(),
        waited: report.waits,
    };
    let over =
        base.map(|base| format!("what did not change is from restore point {} of {}\n", short(base), when(base)));
    output::result(output, &done, || {
        format!(
            "restore point {} of {}\n{}{} disk, {} read, {} zero, {} new, {} stored, {}\n{}",
            short(&report.point),
            report.point.path,
            over.unwrap_or_default(),
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
