//! Says of objects that lie in the wrong namespace that nobody will look at them. Snapshots and clones lie with their
//! claims; the other kinds are read in the Velero namespace alone.
//!
//! One condition an object, with one warning event, and no more: it is not looked at again. Where the status is somebody else's, or cannot
//! be written, the event alone says it, once more after a restart of the driver.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use api::{BackupRepositoryClaim, DeleteSnapshot, Download, Upload};
use futures::StreamExt;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt};
use lifecycle::Problem;
use lifecycle::elsewhere::{self, OfOnePlace};
use operator::{Guard, Note, Reported};
use tokio_util::sync::CancellationToken;

use crate::Context;

/// Watches for them until `stop`.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let watching = async {
        tokio::join!(
            watch::<Upload>(&ctx),
            watch::<Download>(&ctx),
            watch::<DeleteSnapshot>(&ctx),
            watch::<BackupRepositoryClaim>(&ctx),
        )
    };
    tokio::select! {
        _ = watching => {}
        () = stop.cancelled() => {}
    }
}

/// Tells of each object of a kind once. The API server leaves out the Velero namespace.
async fn watch<K>(ctx: &Context)
where
    K: Reported<Status = <K as OfOnePlace>::Status> + OfOnePlace + Send + Sync + 'static,
{
    let objects: Api<K> = Api::all(ctx.client.clone());
    let outside = operator::client::watching().fields(&format!("metadata.namespace!={}", ctx.namespace));
    let mut seen = pin!(watcher(objects, outside).default_backoff().touched_objects());
    let mut told = HashSet::new();
    while let Some(object) = seen.next().await {
        match object {
            Ok(object) => {
                let uid = object.uid();
                let is_new = object.meta().deletion_timestamp.is_none() && !told.contains(&uid);
                if is_new && tell(&object, ctx).await {
                    told.insert(uid);
                }
            }
            Err(error) => {
                let error = Problem::chain(&error);
                tracing::debug!(kind = %K::kind(&()), error, "objects in other namespaces are not watched; trying again");
            }
        }
    }
}

/// Whether it is told. Not where the object has changed meanwhile, which shows it again; nor where nobody answers: it is told when it is
/// shown the next time.
async fn tell<K>(object: &K, ctx: &Context) -> bool
where
    K: Reported<Status = <K as OfOnePlace>::Status> + OfOnePlace + Sync,
{
    let (kind, namespace) = (K::kind(&()), object.namespace().unwrap_or_default());
    let problem = elsewhere::problem(&kind, &namespace, &ctx.namespace);
    if let Some(status) = elsewhere::status(object, &problem, ctx.now()) {
        match ctx.publisher.publish(object, &status, Guard::Unchanged).await {
            Ok(_) => return true, // with its event; without one where it said so already
            Err(error) if error.is_conflict() || error.answer().is_none() => return false,
            Err(error) => {
                let (name, error) = (object.name_any(), Problem::chain(&error));
                tracing::warn!(%kind, namespace, name, error, "that nobody reads this object cannot be written into it");
            }
        }
    }
    tracing::warn!(%kind, namespace, name = object.name_any(), %problem, "nobody will look at this object");
    ctx.publisher.note(object, &Note { reason: problem.reason, message: problem.message(), warning: true }).await;
    true
}
