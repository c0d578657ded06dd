//! Says of objects that lie in the wrong namespace that nobody will look at them. Snapshots and clones lie with their
//! claims; the other kinds are read in the Velero namespace alone.
//!
//! One warning event an object and no more: it is neither changed nor looked at again. After a restart of the driver it
//! is told once more.

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use api::{BackupRepositoryClaim, DeleteSnapshot, Download, Reason, Upload};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt};
use lifecycle::Problem;
use operator::Note;
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

/// Tells of each object of a kind once. Only metadata is read, and the API server leaves out the Velero namespace.
async fn watch<K>(ctx: &Context)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + 'static,
{
    let objects: Api<PartialObjectMeta<K>> = Api::all(ctx.client.clone());
    let outside = watcher::Config::default().fields(&format!("metadata.namespace!={}", ctx.namespace));
    let mut seen = pin!(watcher(objects, outside).default_backoff().touched_objects());
    let mut told = HashSet::new();
    while let Some(object) = seen.next().await {
        match object {
            Ok(object) if object.metadata.deletion_timestamp.is_none() && told.insert(object.uid()) => {
                tell(&object, ctx).await;
            }
            Ok(_) => {}
            Err(error) => {
                let error = Problem::chain(&error);
                tracing::debug!(kind = %K::kind(&()), error, "objects in other namespaces are not watched; trying again");
            }
        }
    }
}

async fn tell<K>(object: &PartialObjectMeta<K>, ctx: &Context)
where
    K: Resource<DynamicType = ()>,
{
    let (kind, namespace) = (K::kind(&()), object.namespace().unwrap_or_default());
    let cause = format!("it is in namespace {namespace}; a {kind} is read in namespace {} only", ctx.namespace);
    let fix = format!("Make it in namespace {} and delete this one.", ctx.namespace);
    let problem = Problem::lasting(Reason::WrongNamespace, cause).with_fix(Some(fix));
    tracing::warn!(%kind, namespace, name = object.name_any(), %problem, "nobody will look at this object");
    ctx.publisher.note(object, &Note { reason: problem.reason, message: problem.message(), warning: true }).await;
}
