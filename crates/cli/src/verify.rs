//! `verify`: every byte of a restore point is read and checked, and compared where a disk is given.

use std::sync::Arc;

use anyhow::{Context, Result};
use data_path::{Progress, VerifyReport};
use repository::RestorePoint;
use serde::Serialize;

use crate::args::{Output, VerifyArguments};
use crate::backup::short;
use crate::disks;
use crate::failure::{Refused, WithResult, exit};
use crate::interrupt::Interrupt;
use crate::output::{self, Bar};
use crate::repositories::{self, Access};

/// Damages that the failure names.
const SHOWN: usize = 20;

/// What was found, for scripts. All sizes in bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    restore_point: &'a RestorePoint,
    sound: bool,
    bytes_total: u64,
    bytes_read: u64,
    /// By how much the disk compared with is longer than the restore point.
    bytes_beyond: u64,
    /// By how much it is shorter: nothing of that is on it, and all of it counts among what is different.
    bytes_lacking: u64,
    damages: &'a [String],
    damage_count: u64,
    /// Where on the disk the damages are missed.
    damaged: Vec<disk::ByteRange>,
    bytes_damaged: u64,
    differences: Vec<disk::ByteRange>,
    bytes_different: u64,
    seconds: f64,
}

/// What was looked at, and what was found.
struct Verified {
    point: RestorePoint,
    size: u64,
    /// Of the disk compared with.
    other_size: Option<u64>,
    report: VerifyReport,
}

impl Verified {
    /// By how much the disk compared with is longer.
    fn beyond(&self) -> u64 {
        self.other_size.unwrap_or_default().saturating_sub(self.size)
    }

    /// By how much it is shorter.
    fn lacking(&self) -> u64 {
        self.other_size.map_or(0, |other| self.size.saturating_sub(other))
    }
}

pub(crate) async fn run(arguments: &VerifyArguments, output: Output, interrupt: &Interrupt) -> Result<()> {
    let repository = Access::new(&arguments.repository.repository)?.open().await?;
    let against = match &arguments.against {
        Some(place) => Some(disks::open_source(place).await?),
        None => None,
    };
    interrupt.hold();
    let lock = repository.lock_to_read(&repositories::host()).await?;
    let verified = async {
        let finding = repositories::find_and_examine(&repository, &arguments.restore_point, arguments.path.as_deref());
        let (point, reader) = interrupt.or(finding).await?;
        let progress = Arc::new(Progress::new());
        let _bar = Bar::follow(output, "verify", &progress);
        let disk = against.as_ref().map(|opened| &opened.disk);
        let report = data_path::verify(&reader, disk, &progress, interrupt.token()).await;
        let report = report.map_err(|error| match &arguments.against {
            Some(place) => disks::told(place, error),
            None => error.into(),
        })?;
        let size = reader.size();
        let other_size = disk.map(|disk| disk.size());
        Ok::<_, anyhow::Error>(Verified { point, size, other_size, report })
    };
    let verified = verified.await.with_context(|| format!("verify {}", arguments.restore_point));
    let released = lock.release().await;
    let verified = verified?;
    if let Err(error) = released {
        tracing::warn!(error = %format!("{:#}", anyhow::Error::from(error)), "everything was looked at, but the lock could not be removed");
    }
    conclude(&verified, arguments, output)
}

/// One document in every case: what was found is part of the failure's.
fn conclude(verified: &Verified, arguments: &VerifyArguments, output: Output) -> Result<()> {
    let report = &verified.report;
    let done = Done {
        restore_point: &verified.point,
        sound: report.is_sound(),
        bytes_total: verified.size,
        bytes_read: report.counts.read,
        bytes_beyond: verified.beyond(),
        bytes_lacking: verified.lacking(),
        damages: &report.damages,
        damage_count: report.damage_count,
        damaged: report.damaged.iter().collect(),
        bytes_damaged: report.damaged.bytes(),
        differences: report.differences.iter().collect(),
        bytes_different: report.differences.bytes(),
        seconds: report.elapsed.as_secs_f64(),
    };
    if report.is_sound() || output == Output::Text {
        output::result(output, &done, || text(verified, arguments))?;
    }
    if report.is_sound() { Ok(()) } else { Err(WithResult::new(unsound(verified, arguments), &done).into()) }
}

fn text(verified: &Verified, arguments: &VerifyArguments) -> String {
    let Verified { point, size, report, .. } = verified;
    let mut text = String::new();
    for damage in &report.damages {
        text.push_str(&format!("damaged: {damage}\n"));
    }
    text.push_str(&output::spans("lost", &report.damaged));
    text.push_str(&output::spans("different", &report.differences));
    if report.is_sound() {
        let equal = match (&arguments.against, verified.beyond()) {
            (None, _) => String::new(),
            (Some(place), 0) => format!(" and equal to {place}"),
            (Some(place), beyond) => format!(" and equal to {place}, which goes on with {beyond} bytes of zeroes"),
        };
        text.push_str(&format!("restore point {} of {} is sound{equal}\n", short(point), point.path));
    }
    text.push_str(&format!(
        "{} disk, {} read, {}",
        output::bytes(*size),
        output::bytes(report.counts.read),
        output::seconds(report.elapsed)
    ));
    text
}

fn unsound(verified: &Verified, arguments: &VerifyArguments) -> Refused {
    let report = &verified.report;
    let shorter = shorter(verified, arguments);
    let lost = report.damaged.bytes();
    let damaged = (report.damage_count > 0)
        .then(|| format!("{} pieces are damaged, which costs {lost} bytes of the disk", report.damage_count));
    let different = Some(report.differences.bytes()).filter(|bytes| *bytes > 0);
    let different = different.map(|bytes| format!("the disk differs in {bytes} bytes"));
    let found = damaged.iter().chain(&shorter).chain(&different).chain(report.damages.iter().take(SHOWN));
    let found: Vec<_> = found.cloned().collect();
    let fix = match report.damage_count {
        0 if shorter.is_some() => "compare with a disk that is as large as the restore point: a restore needs one, too",
        0 => "",
        _ => "restore another restore point, or with `restore --skip-damaged` what is left of this one",
    };
    Refused { message: format!("verify the restore point: {}", found.join("; ")), fix: fix.into(), code: exit::DIFFERS }
}

/// What it means that the disk compared with ends before the restore point does.
fn shorter(verified: &Verified, arguments: &VerifyArguments) -> Option<String> {
    let (size, lacking) = (verified.size, verified.lacking());
    let (place, other) = (arguments.against.as_ref()?, verified.other_size.filter(|_| lacking > 0)?);
    Some(format!(
        "{place} is shorter than the restore point: {other} bytes, and the restore point {size}; the last {lacking} bytes of the restore \
         point are not on it and count as different"
    ))
}
