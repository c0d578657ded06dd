//! Removes leases of transfers that have ended: a node that died between its last word on a transfer and the return of its
//! lease would leave it for good, and the original leaves each. A lease of a transfer that goes on is never touched, whoever holds it.

use std::sync::Arc;
use std::time::Duration;

use api::{Download, DownloadPhase, Upload, UploadPhase, names};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, ResourceExt};
use lifecycle::Problem;
use lifecycle::orphans::Kind;
use lifecycle::orphans::leases::{Made, Transfer, goes, made};
use tokio_util::sync::CancellationToken;

use crate::error::is_code;
use crate::{Context, Error};

/// Looks every `every`, until `stop`. A lease is removed at the second look that finds it as it was, when it has run out.
pub(crate) async fn run(ctx: Arc<Context>, every: Duration, stop: CancellationToken) {
    let missed = "leases of transfers that have ended were not removed";
    crate::every::every(every, &stop, missed, async || sweep(&ctx).await).await;
}

/// One lease that cannot be looked at keeps no other one. There are as many of them as transfers run, but for those of the original.
async fn sweep(ctx: &Context) -> Result<(), Error> {
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let listed = leases.list(&ListParams::default()).await;
    let (mut found, mut removed, now) = (0, 0, ctx.now());
    for lease in &listed.map_err(Error::cluster("list leases of transfers"))?.items {
        let Some(made) = made(lease, now) else { continue };
        let name = lease.name_any();
        match is_left_over(ctx, &name, made).await {
            Ok(false) => continue,
            Ok(true) => found += 1,
            Err(error) => {
                tracing::warn!(lease = name, error = Problem::chain(&error), "a lease was not looked at");
                continue;
            }
        }
        tracing::info!(lease = name, "its transfer has ended; removing the lease");
        match forget(&leases, lease).await {
            Ok(()) => removed += 1,
            Err(error) => {
                let error = Problem::chain(&error);
                tracing::warn!(lease = name, error, "a lease whose transfer has ended was not removed; tried again");
            }
        }
    }
    ctx.metrics.orphans_found(Kind::Lease.as_str(), found);
    ctx.metrics.orphans_removed(Kind::Lease.as_str(), removed);
    Ok(())
}

/// Whether nobody holds it, and nobody will.
async fn is_left_over(ctx: &Context, name: &str, made: Made) -> Result<bool, Error> {
    let Some(transfer) = transfer_of(ctx, name).await? else { return Ok(false) };
    let is_held = ctx.transfers.held_by_another(name).await?.is_some();
    Ok(goes(made, transfer, is_held))
}

/// Deletes a lease as it was seen: one that was taken meanwhile stays.
pub(crate) async fn forget(leases: &Api<Lease>, lease: &Lease) -> Result<(), Error> {
    let name = lease.name_any();
    let unchanged = Preconditions { uid: lease.uid(), resource_version: lease.resource_version() };
    let params = DeleteParams { preconditions: Some(unchanged), ..DeleteParams::default() };
    match leases.delete(&name, &params).await {
        Ok(_) => Ok(()),
        Err(e) if is_code(&e, 404) || is_code(&e, 409) => Ok(()),
        Err(e) => Err(Error::cluster(format!("delete lease {name}"))(e)),
    }
}

/// The transfer that a lease is named after; `None` for other leases.
async fn transfer_of(ctx: &Context, lease: &str) -> Result<Option<Transfer>, Error> {
    if let Some(upload) = lease.strip_prefix(&names::upload_lease("")) {
        let uploads = Api::<Upload>::namespaced(ctx.client.clone(), &ctx.namespace);
        let upload = uploads.get_opt(upload).await.map_err(Error::cluster("read the Upload of a lease"))?;
        return Ok(Some(Transfer::of(upload.map(|upload| upload.phase().is_some_and(UploadPhase::is_terminal)))));
    }
    if let Some(download) = lease.strip_prefix(&names::download_lease("")) {
        let downloads = Api::<Download>::namespaced(ctx.client.clone(), &ctx.namespace);
        let download = downloads.get_opt(download).await.map_err(Error::cluster("read the Download of a lease"))?;
        return Ok(Some(Transfer::of(download.map(|d| d.phase().is_some_and(DownloadPhase::is_terminal)))));
    }
    Ok(None)
}
