//! `verify`: every byte of a restore point is read and checked, and compared where a disk is given.

use std::sync::Arc;

use anyhow::{Context, Result};
use data_path::{Progress, VerifyReport};
use repository::RestorePoint;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{Output, VerifyArguments};
use crate::backup::short;
use crate::disks;
use crate::failure::{Refused, exit};
use crate::output::{self, Bar};
use crate::repositories::{self, Access};

/// Differences that people are shown.
const SHOWN: usize = 20;

/// What was found, for scripts. All sizes in bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    restore_point: &'a RestorePoint,
    sound: bool,
    bytes_total: u64,
    bytes_read: u64,
    damages: &'a [String],
    damage_count: u64,
    differences: Vec<disk::ByteRange>,
    bytes_different: u64,
    seconds: f64,
}

pub(crate) async fn run(arguments: &VerifyArguments, output: Output, cancel: &CancellationToken) -> Result<()> {
    let repository = Access::new(&arguments.repository.repository)?.open().await?;
    let against = match &arguments.against {
        Some(place) => Some(disks::open_source(place).await?),
        None => None,
    };
    let lock = repository.lock(&repositories::host()).await?;
    let verified = async {
        let point = repositories::find(&repository, &arguments.restore_point, arguments.path.as_deref()).await?;
        let reader = repository.reader(&point.id).await?;
        let progress = Arc::new(Progress::new());
        let _bar = Bar::follow(output, "verify", &progress);
        let disk = against.as_ref().map(|opened| &opened.disk);
        let report = data_path::verify(&reader, disk, &progress, cancel).await?;
        Ok::<_, anyhow::Error>((point, report))
    };
    let verified = verified.await.with_context(|| format!("verify {}", arguments.restore_point));
    let released = lock.release().await;
    let (point, report) = verified?;
    released?;
    print(&point, &report, arguments, output);
    if report.is_sound() { Ok(()) } else { Err(unsound(&report).into()) }
}

fn print(point: &RestorePoint, report: &VerifyReport, arguments: &VerifyArguments, output: Output) {
    let done = Done {
        restore_point: point,
        sound: report.is_sound(),
        bytes_total: report.counts.total,
        bytes_read: report.counts.read,
        damages: &report.damages,
        damage_count: report.damage_count,
        differences: report.differences.iter().collect(),
        bytes_different: report.differences.bytes(),
        seconds: report.elapsed.as_secs_f64(),
    };
    if output == Output::Json && !report.is_sound() {
        return; // the failure's document is the one document
    }
    output::result(output, &done, || text(point, report, arguments));
}

fn text(point: &RestorePoint, report: &VerifyReport, arguments: &VerifyArguments) -> String {
    let mut text = String::new();
    for damage in &report.damages {
        text.push_str(&format!("damaged: {damage}\n"));
    }
    for span in report.differences.iter().take(SHOWN) {
        text.push_str(&format!("different: {} bytes at {}\n", span.length, span.offset));
    }
    if report.is_sound() {
        let equal = match &arguments.against {
            Some(place) => format!(" and equal to {place}"),
            None => String::new(),
        };
        text.push_str(&format!("restore point {} of {} is sound{equal}\n", short(point), point.path));
    }
    text.push_str(&format!(
        "{} disk, {} read, {}",
        output::bytes(report.counts.total),
        output::bytes(report.counts.read),
        output::seconds(report.elapsed)
    ));
    text
}

fn unsound(report: &VerifyReport) -> Refused {
    let damaged = (report.damage_count > 0).then(|| format!("{} pieces are damaged", report.damage_count));
    let different = Some(report.differences.bytes()).filter(|bytes| *bytes > 0);
    let different = different.map(|bytes| format!("the disk differs in {bytes} bytes"));
    let found: Vec<_> =
        damaged.iter().chain(&different).cloned().chain(report.damages.iter().take(SHOWN).cloned()).collect();
    let fix = match report.damage_count {
        0 => "",
        _ => "run `restic check --read-data` on the repository, and restore another restore point",
    };
    Refused { message: format!("verify the restore point: {}", found.join("; ")), fix, code: exit::DIFFERS }
}
