//! Does what was decided for a Download: takes the lease, writes the volume, says the outcome, gives the lease back.

use std::sync::Arc;

use api::{Download, names};
use kube::ResourceExt as _;
use lifecycle::Problem;
use lifecycle::transfer::Work;
use lifecycle::transfer::download as says;
use tracing::Instrument as _;

use super::copy;
use crate::at_work::Place;
use crate::attempt::{self, Claimed, NotDone};
use crate::context::Context;
use crate::interrupt::Interrupt;
use crate::report::{Report, Said};

/// Starts the work in the background; it ends by itself.
pub(crate) fn start(ctx: &Arc<Context>, download: &Download, work: Work) {
    if !matches!(work, Work::Copy { .. }) {
        return; // a Download has no disk snapshot, and its deletion cancels it
    }
    let name = download.name_any();
    let Some(place) = ctx.at_work.begin(&name, true) else { return };
    let ctx = ctx.clone();
    let span = tracing::info_span!("download", name, target_disk = download.spec.protected_entity_id);
    tokio::spawn(
        async move {
            let claimed = attempt::claim::<Download>(&ctx, &names::download_lease(&name), &name, work).await;
            match claimed {
                Ok(Some(claimed)) => write(&ctx, claimed, &place).await,
                Ok(None) => {}
                Err(error) => tracing::warn!(error = %Problem::chain(&error), "could not claim the download"),
            }
        }
        .instrument(span),
    );
}

async fn write(ctx: &Context, Claimed { object, work, lease }: Claimed<Download>, place: &Place) {
    if let Work::Copy { resumed } = work {
        let touched = resumed || object.status.as_ref().is_some_and(|s| s.retry_count > 0);
        let report = Report::new(ctx.publisher.clone(), ctx.client.clone(), object, lease.lost());
        let interrupt = Interrupt::new(place.stop.clone(), lease.lost(), ctx.shutdown.clone());
        copy(ctx, &report, &interrupt, touched).await;
    }
    lease.release().await;
}

async fn copy(ctx: &Context, report: &Report<Download>, interrupt: &Interrupt, touched: bool) {
    if report.say(|status, now| says::started(status, &ctx.node, now)).await != Said::Taken {
        return;
    }
    match copy::run(ctx, report, interrupt, touched).await {
        Ok(written) => {
            report.say(|status, now| says::completed(status, &written.volume, written.progress, now)).await;
        }
        Err(NotDone::Interrupted(why)) => tracing::info!(?why, "stopped; whoever comes next goes on"),
        Err(NotDone::Failed(problem)) => {
            tracing::warn!(reason = %problem.reason, problem = problem.message(), "the download failed");
            report.say(|status, now| says::attempt_failed(status, &problem, now)).await;
        }
    }
}
