//! Says what the Upload of a Snapshot says, and asks it to stop. Touches nothing in vCenter: the disk snapshot is the Upload's.

use api::Upload;
use api::entity::EntityId;
use api::metadata::Blob;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use lifecycle::snapshot::{self, status};
use serde_json::json;

use super::begin::record;
use super::observe::Seen;
use super::opening::open_repository;
use crate::error::is_code;
use crate::{Context, Error};

/// Says what the Upload says, and fills in what a killed driver could not write.
pub(super) async fn follow(seen: &Seen, ctx: &Context) -> Result<Action, Error> {
    let Some(upload) = &seen.upload else { return Ok(Action::await_change()) };
    if snapshot::needs_repository(upload) {
        // its own attempts tell what is wrong with it, and come again
        if let Err(problem) = open_repository(&seen.snapshot, &seen.snapshot.namespace().unwrap_or_default(), ctx).await
        {
            tracing::warn!(upload = upload.name_any(), error = %problem, "an Upload of the original has no repository yet");
        }
    }
    let before = seen.snapshot.status.clone().unwrap_or_default();
    let incomplete = before.snapshot_id.is_none() || before.metadata.as_ref().is_none_or(Blob::is_empty);
    let taken = upload.spec.snapshot_id.as_deref().and_then(|id| id.parse::<EntityId>().ok()?.disk_snapshot().ok());
    let record = match taken.filter(|_| incomplete) {
        Some(taken) => Some(record(&seen.snapshot, &taken, ctx).await?),
        None => None,
    };
    ctx.publish(&seen.snapshot, &status::followed(&before, upload, record, ctx.now())).await?;
    Ok(Action::await_change())
}

/// Asks the Upload to stop; what becomes of it is followed as ever.
pub(super) async fn stop_upload(seen: &Seen, ctx: &Context) -> Result<Action, Error> {
    let name = seen.upload.as_ref().map(ResourceExt::name_any).unwrap_or_default();
    let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let patch = Patch::Merge(json!({ "spec": { "uploadCancel": true } }));
    match uploads.patch(&name, &PatchParams::default(), &patch).await {
        Ok(_) => tracing::info!(upload = name, snapshot = seen.snapshot.name_any(), "cancelled; asked it to stop"),
        Err(e) if is_code(&e, 404) => {} // deleted since we looked, which comes as an event
        Err(e) => return Err(Error::cluster("ask the Upload to stop")(e)),
    }
    follow(seen, ctx).await
}
