//! BackupRepositoryClaim: gets a BackupRepository of its own and that repository's name, and says when it is of no use.

use std::convert::Infallible;
use std::sync::Arc;

use api::{BackupRepository, BackupRepositoryClaim, Reason, names};
use futures::StreamExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use lifecycle::Problem;
use lifecycle::claim::{Plan, news, plan, status};
use operator::client::watching;
use operator::{Note, Watches};
use serde_json::json;

use crate::error::is_code;
use crate::steps::Step;
use crate::{Context, Error};

/// Moves one claim one step on.
pub async fn reconcile(claim: Arc<BackupRepositoryClaim>, ctx: Arc<Context>) -> Result<Action, Error> {
    let repositories: Api<BackupRepository> = Api::all(ctx.client.clone());
    let name = names::backup_repository(&claim.uid().unwrap_or_default());
    let read = repositories.get_opt(&name).await;
    let present = read.map_err(Error::cluster(format!("read BackupRepository {name}")))?;
    let mut made = present.clone();
    let bound = match plan(&claim, present.as_ref()) {
        Plan::Rest if claim.metadata.deletion_timestamp.is_some() => return Ok(Action::await_change()),
        Plan::Rest => claim.as_ref().clone(),
        Plan::Create(repository) => {
            match repositories.create(&PostParams::default(), &repository).await {
                Ok(_) => tracing::info!(repository = name, claim = claim.name_any(), "made the BackupRepository"),
                Err(e) if is_code(&e, 409) => {}
                Err(e) => return Err(Error::cluster(format!("make BackupRepository {name}"))(e)),
            }
            Step::RepositoryMade.done();
            made = Some(*repository);
            bind(&claim, &name, &ctx).await?
        }
        Plan::Bind(name) => bind(&claim, &name, &ctx).await?,
    };
    if let Some(repository) = made {
        let usable = connections::check(&repository).await;
        let says = status(bound.status.as_ref(), &repository, usable.as_ref().copied(), ctx.now());
        ctx.publish(&bound, &says).await?;
        if let Some(message) = news(bound.status.as_ref(), &says, &repository) {
            ctx.publisher.note(&bound, &Note { reason: Reason::SettingsInvalid, message, warning: true }).await;
        }
    }
    ctx.pace.forget(&claim.uid().unwrap_or_default());
    Ok(Action::await_change())
}

async fn bind(claim: &BackupRepositoryClaim, repository: &str, ctx: &Context) -> Result<BackupRepositoryClaim, Error> {
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let name = claim.name_any();
    let patch = Patch::Merge(json!({ "backupRepository": repository }));
    let patched = claims.patch(&name, &PatchParams::default(), &patch).await;
    patched.map_err(Error::cluster(format!("write the repository's name into claim {name}")))
}

/// Deletes the BackupRepository of each claim that is deleted while we watch. A repository is only a description: the
/// backups stay in the bucket.
async fn follow_deletions(ctx: Arc<Context>) -> Infallible {
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let mut events = std::pin::pin!(watcher(claims, watching()));
    loop {
        match events.next().await.expect("a watch goes on for ever") {
            Ok(watcher::Event::Delete(claim)) => {
                ctx.pace.forget(&claim.uid().unwrap_or_default()); // it may have failed last
                remove_repository(&claim, &ctx).await;
            }
            Ok(_) => {}
            // the watcher starts over by itself; without a pause it would do so at once. The controller watches the same and tells of it
            Err(_) => tokio::time::sleep(std::time::Duration::from_secs(5)).await,
        }
    }
}

async fn remove_repository(claim: &BackupRepositoryClaim, ctx: &Context) {
    let name = names::backup_repository(&claim.uid().unwrap_or_default());
    let repositories: Api<BackupRepository> = Api::all(ctx.client.clone());
    match repositories.delete(&name, &DeleteParams::default()).await {
        Ok(_) => tracing::info!(repository = name, "its claim was deleted; deleted the BackupRepository"),
        Err(e) if is_code(&e, 404) => {}
        Err(error) => {
            let error = Problem::chain(&error);
            tracing::warn!(repository = name, error, "the BackupRepository of a deleted claim stays");
        }
    }
}

/// Runs the controller until `stop`.
pub async fn run(ctx: Arc<Context>, stop: tokio_util::sync::CancellationToken) {
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let deletions = follow_deletions(ctx.clone());
    let repositories: Api<BackupRepository> = Api::all(ctx.client.clone());
    let namespace = ctx.namespace.clone();
    let mut watches = Watches::of::<BackupRepositoryClaim>(&ctx.metrics).with_others(1);
    let controller = kube::runtime::Controller::new(claims, watching())
        .watches(repositories, watching(), move |repository| {
            let claim = Some(repository.backup_repository_claim).filter(|name| !name.is_empty())?;
            Some(ObjectRef::<BackupRepositoryClaim>::new(&claim).within(&namespace))
        })
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |claim, error, ctx| ctx.after_error(&*claim, error), ctx)
        .for_each(|looked| {
            watches.looked(&looked);
            std::future::ready(())
        });
    tokio::select! {
        () = controller => {}
        never = deletions => match never {},
    }
}
