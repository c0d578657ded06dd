//! Does what was decided for a Download: writes the volume, says the outcome, gives the lease back.

use api::Download;
use lifecycle::transfer::Work;
use lifecycle::transfer::download as says;

use super::copy;
use crate::at_work::Place;
use crate::attempt::{Claimed, NotDone};
use crate::context::Context;
use crate::interrupt::{Interrupt, Why};
use crate::report::Report;
use crate::steps::Step;

/// Does the work under its lease, and gives the lease back.
pub(super) async fn perform(ctx: &Context, Claimed { object, found, work, lease }: Claimed<Download>, place: &Place) {
    if let Work::Copy { resumed } = work {
        Step::DownloadBegun.done();
        let touched = resumed || found.status.as_ref().is_some_and(|s| s.retry_count > 0);
        let report = Report::new(ctx.publisher.clone(), ctx.client.clone(), object, lease.lost());
        let interrupt = Interrupt::new(place.stop.clone(), lease.lost(), ctx.shutdown.clone());
        copy(ctx, &report, &interrupt, touched).await;
        place.note(report.was_refused(), false);
    }
    Step::DownloadTold.done();
    lease.release().await;
}

async fn copy(ctx: &Context, report: &Report<Download>, interrupt: &Interrupt, touched: bool) {
    match copy::run(ctx, report, interrupt, touched).await {
        Ok(written) => {
            report.say(|status, now| says::completed(status, &written.volume, written.progress, now)).await;
        }
        Err(NotDone::Interrupted(Why::Shutdown)) => {
            report.say_shortly(|status, now| says::given_back(status, &ctx.node, now)).await;
        }
        Err(NotDone::Interrupted(why)) => tracing::info!(?why, "stopped; whoever comes next goes on"),
        Err(NotDone::Failed(problem)) => {
            tracing::warn!(reason = %problem.reason, problem = problem.message(), "the download failed");
            report.say(|status, now| says::attempt_failed(status, &problem, now)).await;
        }
    }
}
