//! Does what was decided for a Download: takes the lease, writes the volume, says the outcome, gives the lease back.

use std::sync::Arc;

use api::{Download, names};
use kube::{Api, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::transfer::download as says;
use lifecycle::transfer::{self, Holder, Node, Plan, Work};
use operator::{Lease, Taken};
use tracing::Instrument as _;

use super::copy::{self, NotWritten};
use crate::at_work::Place;
use crate::context::Context;
use crate::interrupt::Interrupt;
use crate::report::Report;

/// Starts the work in the background; it ends by itself.
pub(crate) fn start(ctx: &Arc<Context>, download: &Download, work: Work) {
    let Work::Copy { resumed } = work else { return }; // a Download has no disk snapshot, and its deletion cancels it
    let name = download.name_any();
    let Some(place) = ctx.at_work.begin(&name, true) else { return };
    let ctx = ctx.clone();
    let span = tracing::info_span!("download", name, target_disk = download.spec.protected_entity_id);
    tokio::spawn(
        async move {
            if let Err(error) = claim(&ctx, &name, resumed, &place).await {
                tracing::warn!(error = %Problem::chain(&error), "could not claim the download");
            }
        }
        .instrument(span),
    );
}

/// Takes the lease, looks once more, works, and gives the lease back.
async fn claim(ctx: &Context, name: &str, resumed: bool, place: &Place) -> Result<(), operator::Error> {
    let Taken::Ours(lease) = ctx.leases.take(&names::download_lease(name)).await? else { return Ok(()) };
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let now_there =
        downloads.get_opt(name).await.map_err(|e| operator::Error::api(format!("read Download {name}"), e))?;
    if let Some(download) = now_there {
        let node = Node { free_slots: 1, at_work: false, holder: Holder::Us, nearer_elsewhere: false };
        let plan = transfer::plan(&(&download).into(), &node, api::Timestamp::now());
        if let Plan::Claim(Work::Copy { resumed: now_resumed }) = plan {
            write(ctx, download, resumed || now_resumed, &lease, place).await;
        }
    }
    lease.release().await;
    Ok(())
}

async fn write(ctx: &Context, download: Download, resumed: bool, lease: &Lease, place: &Place) {
    let failed_before = download.status.as_ref().is_some_and(|s| s.retry_count > 0);
    let report = Report::new(ctx.publisher.clone(), download, lease.lost());
    let interrupt = Interrupt::new(place.stop.clone(), lease.lost(), ctx.shutdown.clone());
    if !report.say(|status, now| says::started(status, &ctx.node, now)).await {
        return;
    }
    match copy::run(ctx, &report, &interrupt, resumed || failed_before).await {
        Ok(written) => {
            report.say(|status, now| says::completed(status, &written.volume, written.progress, now)).await;
        }
        Err(NotWritten::Interrupted(why)) => tracing::info!(?why, "stopped; whoever comes next goes on"),
        Err(NotWritten::Failed(problem)) => {
            tracing::warn!(reason = %problem.reason, problem = problem.message(), "the download failed");
            report.say(|status, now| says::attempt_failed(status, &problem, now)).await;
        }
    }
}
