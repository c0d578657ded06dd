//! Removes locks that no transfer holds any more: where every node that could release them is gone, they would keep
//! restic's `prune` and `check` out for good.

use std::sync::Arc;
use std::time::Duration;

use api::{BackupRepository, REPOSITORY_DRIVER, Reason};
use connections::from_repository;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use lifecycle::orphans::Kind;
use tokio_util::sync::CancellationToken;

use crate::every::every;
use crate::{Context, Error};

/// Pause between two sweeps. A lock counts as stale after 30 minutes without renewal, so none outlives an hour by much.
const EVERY: Duration = Duration::from_secs(30 * 60);

/// Sweeps at once and then every half hour, until `stop`.
pub(crate) async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    every(EVERY, &stop, "stale locks of repositories were not swept", async || sweep(&ctx).await).await;
}

/// One sweep over all repositories; one that cannot be opened is left for the next sweep.
async fn sweep(ctx: &Context) -> Result<(), Error> {
    let repositories: Api<BackupRepository> = Api::all(ctx.client.clone());
    let listed = repositories.list(&ListParams::default()).await.map_err(Error::cluster("list BackupRepositories"))?;
    for described in listed.items.iter().filter(|d| d.repository_driver == REPOSITORY_DRIVER) {
        for namespace in described.namespaces() {
            let swept = async {
                let repository = ctx.repositories.open(described, namespace).await?;
                let removed = repository.remove_stale_locks().await;
                removed.map_err(|e| from_repository("remove stale locks", &e))
            };
            match swept.await {
                Ok(removed) => ctx.metrics.orphans_removed(Kind::Lock.as_str(), removed),
                Err(problem) if problem.reason == Reason::RepositoryMissing => {} // nothing was ever backed up
                Err(problem) => {
                    let name = described.name_any();
                    tracing::info!(repository = name, namespace, %problem, "its locks were not looked at");
                }
            }
        }
    }
    Ok(())
}
