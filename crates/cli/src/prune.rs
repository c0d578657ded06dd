//! `prune`: frees the space of what no restore point needs, or says how much that would be.

use anyhow::{Context, Result};
use repository::{MaintenanceOptions, Report};
use serde::Serialize;

use crate::args::{Output, PruneArguments};
use crate::failure::Refused;
use crate::interrupt::Interrupt;
use crate::output;
use crate::repositories::{self, Access};

/// What was freed or would be, for scripts. All sizes in bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    repository: String,
    dry_run: bool,
    grace_seconds: u64,
    #[serde(flatten)]
    report: &'a Report,
}

pub(crate) async fn run(arguments: &PruneArguments, output: Output, interrupt: &Interrupt) -> Result<()> {
    let grace = arguments.grace;
    if grace < repository::maintenance::GRACE && !arguments.allow_short_grace {
        let message = "free space: with a grace below 72 hours, backups that run meanwhile have to send data again";
        let fix = "add --allow-short-grace when nothing else writes to the repository, or leave out --grace";
        return Err(Refused::new(message, fix).into());
    }
    let repository = Access::new(&arguments.repository.repository)?.open().await?;
    let options = MaintenanceOptions {
        holder: repositories::host(),
        grace,
        allow_short_grace: arguments.allow_short_grace,
        dry_run: arguments.dry_run,
        ..MaintenanceOptions::default()
    };
    if !arguments.dry_run {
        interrupt.hold();
    }
    let report = repository.maintain(&options, interrupt.token()).await;
    let report = report.with_context(|| format!("free space in {}", repository.place()))?;
    let done = Done {
        repository: repository.place(),
        dry_run: arguments.dry_run,
        grace_seconds: grace.as_secs(),
        report: &report,
    };
    output::result(output, &done, || text(&report, arguments.dry_run))?;
    Ok(())
}

fn text(report: &Report, dry_run: bool) -> String {
    let packs = |count: usize, bytes: u64| format!("{count} packs, {}", output::bytes(bytes));
    let freed = if dry_run { "would be freed" } else { "freed" };
    let left = (report.packs_unused - report.packs_removed, report.bytes_unused - report.bytes_removed);
    let mut text = format!(
        "stored: {}, for {} snapshots\n{freed}: {}\n",
        packs(report.packs, report.bytes),
        report.snapshots,
        packs(report.packs_removed, report.bytes_removed),
    );
    if left.0 > 0 {
        text.push_str(&format!("of no use, kept for the grace: {}", packs(left.0, left.1)));
        if let Some(due) = report.next_due {
            text.push_str(&format!("; the first goes with a run after {}", due.strftime("%Y-%m-%d %H:%M:%SZ")));
        }
    }
    text
}
