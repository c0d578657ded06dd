//! `restore`: a restore point onto a disk, or a failure that says so.

use std::sync::Arc;

use anyhow::{Context, Result};
use data_path::{Progress, RestoreOptions, RestoreReport, Waits};
use repository::{Reader, RestorePoint};
use serde::Serialize;

use crate::args::{Output, RestoreArguments};
use crate::backup::short;
use crate::disks;
use crate::interrupt::Interrupt;
use crate::output::{self, Bar};
use crate::repositories::{self, Access};

/// What a restore did, for scripts. All sizes in bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    restore_point: &'a RestorePoint,
    target: String,
    bytes_total: u64,
    bytes_read: u64,
    bytes_written: u64,
    bytes_zero: u64,
    untouched_tail: u64,
    seconds: f64,
    waited: Waits,
}

pub(crate) async fn run(arguments: &RestoreArguments, output: Output, interrupt: &Interrupt) -> Result<()> {
    let repository = Access::new(&arguments.repository.repository)?.open().await?;
    interrupt.hold();
    let lock = repository.lock_to_read(&repositories::host()).await?;
    let restored = async {
        let finding = repositories::find_and_open(&repository, &arguments.restore_point, arguments.path.as_deref());
        let (point, reader) = interrupt.or(finding).await?;
        let report = write(&reader, arguments, output, interrupt).await?;
        Ok::<_, anyhow::Error>((point, report))
    };
    let restored = restored.await.with_context(|| format!("restore {}", arguments.restore_point));
    let released = lock.release().await;
    let (point, report) = restored?;
    if let Err(error) = released {
        tracing::warn!(error = %format!("{:#}", anyhow::Error::from(error)), "the restore is complete, but its lock could not be removed");
    }
    print(&point, arguments, &report, output)
}

async fn write(
    reader: &Reader,
    arguments: &RestoreArguments,
    output: Output,
    interrupt: &Interrupt,
) -> Result<RestoreReport> {
    let (opened, content, half_made) =
        interrupt.or(disks::open_target(&arguments.target, reader.size(), arguments.force)).await?.split();
    let progress = Arc::new(Progress::new());
    let _bar = Bar::follow(output, "restore", &progress);
    let options = RestoreOptions { target: content, ..RestoreOptions::default() };
    let report = data_path::restore(reader, opened.disk, &options, &progress, interrupt.token())
        .await
        .with_context(|| format!("write {}", arguments.target))?;
    if let Some(half_made) = half_made {
        half_made.keep();
    }
    Ok(report)
}

fn print(point: &RestorePoint, arguments: &RestoreArguments, report: &RestoreReport, output: Output) -> Result<()> {
    let counts = &report.counts;
    let done = Done {
        restore_point: point,
        target: arguments.target.to_string(),
        bytes_total: counts.total,
        bytes_read: counts.read,
        bytes_written: counts.stored,
        bytes_zero: counts.skipped,
        untouched_tail: report.untouched_tail,
        seconds: report.elapsed.as_secs_f64(),
        waited: report.waits,
    };
    output::result(output, &done, || {
        let tail = match report.untouched_tail {
            0 => String::new(),
            bytes => format!("\nthe target is larger: its last {bytes} bytes were left as they are"),
        };
        format!(
            "restored {} of {} onto {}\n{} disk, {} written, {} zero, {}\n{}{tail}",
            short(point),
            point.path,
            arguments.target,
            output::bytes(counts.total),
            output::bytes(counts.stored),
            output::bytes(counts.skipped),
            output::seconds(report.elapsed),
            report.waits,
        )
    })
}
