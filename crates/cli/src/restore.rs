//! `restore`: a restore point onto a disk, or a failure that says so.

use std::sync::Arc;

use anyhow::{Context, Result};
use data_path::{Progress, RestoreOptions, RestoreReport, TargetContent, Waits};
use disk::Ranges;
use repository::{Reader, RestorePoint};
use serde::Serialize;

use crate::args::{Output, RestoreArguments};
use crate::backup::short;
use crate::disks::{self, Target};
use crate::failure::{Refused, WithResult, exit};
use crate::interrupt::Interrupt;
use crate::output::{self, Bar};
use crate::partial::Partial;
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
    /// What was damaged in the repository, and is zeroes on the target.
    damaged: Vec<disk::ByteRange>,
    bytes_damaged: u64,
    seconds: f64,
    waited: Waits,
}

pub(crate) async fn run(arguments: &RestoreArguments, output: Output, interrupt: &Interrupt) -> Result<()> {
    let repository = Access::new(&arguments.repository.repository)?.open().await?;
    interrupt.hold();
    let lock = repository.lock_to_read(&repositories::host()).await?;
    let restored = async {
        let (wanted, path) = (&arguments.restore_point, arguments.path.as_deref());
        let (point, reader) = match arguments.skip_damaged {
            true => interrupt.or(repositories::find_and_examine(&repository, wanted, path)).await?,
            false => interrupt.or(repositories::find_and_open(&repository, wanted, path)).await?,
        };
        let report = write(&reader, arguments, output, interrupt).await?;
        Ok::<_, anyhow::Error>((point, report))
    };
    let restored = restored.await.with_context(|| format!("restore {}", arguments.restore_point));
    let released = lock.release().await;
    let (point, report) = restored?;
    if let Err(error) = released {
        tracing::warn!(error = %format!("{:#}", anyhow::Error::from(error)), "the restore is complete, but its lock could not be removed");
    }
    conclude(&point, arguments, &report, output)
}

async fn write(
    reader: &Reader,
    arguments: &RestoreArguments,
    output: Output,
    interrupt: &Interrupt,
) -> Result<RestoreReport> {
    let Target { opened, content, made } =
        interrupt.or(disks::open_target(&arguments.target, reader.size(), arguments.force)).await?;
    if made.is_none() {
        interrupt.leaves(Some(format!("{} is incomplete", arguments.target)));
    }
    let progress = Arc::new(Progress::new());
    let _bar = Bar::follow(output, "restore", &progress);
    let options = RestoreOptions { target: content, skip_damaged: arguments.skip_damaged, ..RestoreOptions::default() };
    let act = || format!("write {}", arguments.target);
    match data_path::restore(reader, opened.disk, &options, &progress, interrupt.token()).await {
        Ok(report) => {
            interrupt.leaves(None);
            made.map_or(Ok(()), Partial::complete).with_context(act)?;
            Ok(report)
        }
        Err(error) => {
            let left = left(&error, content, made).map(|left| format!(" ({left})")).unwrap_or_default();
            Err(disks::told(&arguments.target, error).context(format!("{}{left}", act())))
        }
    }
}

/// What a restore that failed has left at the target.
fn left(error: &data_path::Error, content: TargetContent, made: Option<Partial>) -> Option<String> {
    use data_path::Error::{TargetReadOnly, TargetTooSmall};
    match (made, error, content) {
        (Some(made), ..) => Some(made.remove()),
        (None, TargetTooSmall { .. } | TargetReadOnly, _) => None, // they say that nothing was written
        (None, _, TargetContent::KnownZero) => Some("it is incomplete".to_owned()),
        (None, _, TargetContent::Unknown) => {
            Some("it is incomplete: what it held may be partly overwritten".to_owned())
        }
    }
}

/// One document in every case: what was restored is part of the failure's.
fn conclude(point: &RestorePoint, arguments: &RestoreArguments, report: &RestoreReport, output: Output) -> Result<()> {
    let counts = &report.counts;
    let done = Done {
        restore_point: point,
        target: arguments.target.to_string(),
        bytes_total: counts.total,
        bytes_read: counts.read,
        bytes_written: counts.stored,
        bytes_zero: counts.skipped,
        untouched_tail: report.untouched_tail,
        damaged: report.damaged.iter().collect(),
        bytes_damaged: report.damaged.bytes(),
        seconds: report.elapsed.as_secs_f64(),
        waited: report.waits,
    };
    let whole = report.damaged.is_empty();
    if whole || output == Output::Text {
        output::result(output, &done, || text(point, arguments, report))?;
    }
    if whole { Ok(()) } else { Err(WithResult::new(damaged(&report.damaged), &done).into()) }
}

fn text(point: &RestorePoint, arguments: &RestoreArguments, report: &RestoreReport) -> String {
    let counts = &report.counts;
    let mut text = output::spans("damaged, now zeroes", &report.damaged);
    text.push_str(&format!(
        "restored {} of {} onto {}\n{} disk, {} written, {} zero, {}\n{}",
        short(point),
        point.path,
        arguments.target,
        output::bytes(counts.total),
        output::bytes(counts.stored),
        output::bytes(counts.skipped),
        output::seconds(report.elapsed),
        report.waits,
    ));
    if report.untouched_tail > 0 {
        text.push_str(&format!(
            "\nthe target is larger: its last {} bytes were left as they are",
            report.untouched_tail
        ));
    }
    text
}

fn damaged(places: &Ranges) -> Refused {
    Refused {
        message: format!(
            "restore all of it: {} bytes are damaged in the repository, and zeroes on the target",
            places.bytes()
        ),
        fix: "look at what lies there before you use it, or restore another restore point".into(),
        code: exit::DIFFERS,
    }
}
