//! Looks for what nobody owns any more in buckets, among BackupRepositories and their claims and among the disks of old backups, tells of
//! it, and removes what no data hangs on. `lifecycle::orphans` decides. Disk snapshots, leases and locks have sweeps of their own.
//!
//! A restore point is data: it is told of, and deleted only where the user has set `orphaned-restore-points: remove`, and only when
//! every look for as long as `orphan-age` has found it so. What is not looked at for an error is left for the next look.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::parameters::key;
use api::{BackupRepository, BackupRepositoryClaim, Download, Reason};
use connections::leftovers::{self, AllListed, Listed};
use connections::{Settings as UserSettings, from_repository};
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, ResourceExt};
use lifecycle::Problem;
use lifecycle::orphans::points::{Owners, Point};
use lifecycle::orphans::{Kind, Settings};
use tokio_util::sync::CancellationToken;

use crate::error::is_code;
use crate::every::every;
use crate::maintenance::note_deletion;
use crate::{Context, Error, new_disks};

/// One bucket may take so long to say what is open in it.
const A_LOOK: Duration = Duration::from_secs(300);

/// When we first met what only goes once every look has found it so: by the repository and id of a restore point without an owner, by
/// the uid of a claim that nobody asks for, or of the Download of a disk that no volume has.
#[derive(Default)]
struct Met {
    points: HashMap<(String, String), Instant>,
    claims: HashMap<String, Instant>,
    disks: HashMap<String, Instant>,
}

/// Looks at once and then after each `pause`, until `stop`.
///
/// `age` takes the place of the setting `orphan-age`: tests have no hour.
pub(crate) async fn run(ctx: Arc<Context>, pause: Duration, age: Option<Duration>, stop: CancellationToken) {
    let mut met = Met::default();
    let missed = "what nobody owns was not looked for in buckets";
    every(pause, &stop, missed, async || {
        let mut settings = UserSettings::read(&ctx.client, &ctx.namespace).await?.orphans();
        if let Some(age) = age.and_then(|age| age.try_into().ok()) {
            settings.age = age;
        }
        // one that fails keeps the others not
        let looks = [
            claims(&ctx, &settings, &mut met).await.err(),
            repositories(&ctx, &settings).await.err(),
            open_uploads(&ctx, &settings).await.err(),
            restore_points(&ctx, &settings, &mut met).await.err(),
            disks(&ctx, &settings, &mut met).await.err(),
        ];
        looks.into_iter().flatten().next().map_or(Ok(()), Err)
    })
    .await;
}

/// Claims that no storage location asks for. With each goes its BackupRepository, as with every claim that is deleted. A backup that
/// runs may have asked when its location was another one, so a claim goes only when it was found so for as long as `orphan-age`.
async fn claims(ctx: &Context, settings: &Settings, met: &mut Met) -> Result<(), Error> {
    let left = leftovers::unasked_claims(&ctx.client, &ctx.namespace, settings, ctx.now()).await?;
    ctx.metrics.orphans_found(Kind::RepositoryClaim.as_str(), left.len());
    let uid = |claim: &BackupRepositoryClaim| claim.uid().unwrap_or_default();
    met.claims.retain(|known, _| left.iter().any(|claim| uid(claim) == *known));
    let api: Api<BackupRepositoryClaim> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    for claim in left {
        let (name, repository) = (claim.name_any(), claim.backup_repository.as_deref());
        let since = *met.claims.entry(uid(&claim)).or_insert_with(|| {
            tracing::info!(
                claim = name,
                repository,
                "no storage location asks for this BackupRepositoryClaim any more"
            );
            Instant::now()
        });
        if since.elapsed() < Duration::try_from(settings.age).unwrap_or(Duration::MAX) {
            continue;
        }
        match api.delete(&name, &unchanged(&claim)).await {
            Ok(_) => {
                ctx.metrics.orphans_removed(Kind::RepositoryClaim.as_str(), 1);
                tracing::info!(claim = name, repository, "deleted a BackupRepositoryClaim that nobody asks for");
            }
            Err(e) if is_code(&e, 404) || is_code(&e, 409) => {}
            Err(e) => {
                return Err(Error::cluster(format!("delete BackupRepositoryClaim {name}, which nobody asks for"))(e));
            }
        }
    }
    Ok(())
}

/// Disks that Velero took for old backups, and that no volume has. Here it is only noted that such a disk goes: who deletes it looks for
/// its volume once more, asks every vCenter, and tries again where one is silent.
async fn disks(ctx: &Context, settings: &Settings, met: &mut Met) -> Result<(), Error> {
    let left = leftovers::unused_new_disks(&ctx.client, &ctx.namespace, settings, ctx.now()).await?;
    ctx.metrics.orphans_found(Kind::NewDisk.as_str(), left.len());
    let uid = |download: &Download| download.uid().unwrap_or_default();
    let mut refused = None;
    met.disks.retain(|known, _| left.iter().any(|download| uid(download) == *known));
    for download in left {
        let (name, disk) = (download.name_any(), download.spec.protected_entity_id.as_deref().unwrap_or_default());
        let since = *met.disks.entry(uid(&download)).or_insert_with(|| {
            tracing::info!(download = name, disk, "Velero took this disk, and no volume has it");
            Instant::now()
        });
        if since.elapsed() < Duration::try_from(settings.age).unwrap_or(Duration::MAX) {
            continue;
        }
        match new_disks::condemn(&download, ctx).await {
            Ok(()) => {
                ctx.metrics.orphans_removed(Kind::NewDisk.as_str(), 1);
                tracing::info!(download = name, disk, "a disk that Velero took and no volume has is to be removed");
            }
            // a volume has it by now, or the Download is gone
            Err(Error::Cluster { source, .. }) if is_code(&source, 404) || is_code(&source, 409) => {}
            Err(error) => refused = refused.or(Some(error)), // and the others go on
        }
    }
    refused.map_or(Ok(()), Err)
}

/// Deletes an object only as it was seen.
fn unchanged(seen: &impl ResourceExt) -> DeleteParams {
    let seen = Preconditions { uid: seen.uid(), resource_version: seen.resource_version() };
    DeleteParams { preconditions: Some(seen), ..DeleteParams::default() }
}

/// BackupRepositories whose claim is gone: descriptions only, the backups stay in the bucket.
async fn repositories(ctx: &Context, settings: &Settings) -> Result<(), Error> {
    let left = leftovers::without_claim(&ctx.client, settings, ctx.now()).await?;
    ctx.metrics.orphans_found(Kind::Repository.as_str(), left.len());
    let api: Api<BackupRepository> = Api::all(ctx.client.clone());
    for described in left {
        let name = described.name_any();
        match api.delete(&name, &unchanged(&described)).await {
            Ok(_) => {
                ctx.metrics.orphans_removed(Kind::Repository.as_str(), 1);
                tracing::info!(
                    repository = name,
                    "its claim is gone and nobody names it; deleted the BackupRepository"
                );
            }
            Err(e) if is_code(&e, 404) || is_code(&e, 409) => {}
            Err(e) => return Err(Error::cluster(format!("delete BackupRepository {name}, whose claim is gone"))(e)),
        }
    }
    Ok(())
}

/// Uploads in parts that nobody goes on with.
async fn open_uploads(ctx: &Context, settings: &Settings) -> Result<(), Error> {
    let described: Api<BackupRepository> = Api::all(ctx.client.clone());
    let described = described.list(&ListParams::default()).await.map_err(Error::cluster("list BackupRepositories"))?;
    let mut found = 0;
    for described in leftovers::folders(described.items) {
        let name = described.name_any();
        match tokio::time::timeout(A_LOOK, give_up(&described, settings, ctx)).await {
            Ok(Ok(count)) => found += count,
            Ok(Err(problem)) => {
                tracing::info!(repository = name, %problem, "open uploads of its bucket were not looked for");
            }
            Err(_) => {
                let seconds = A_LOOK.as_secs();
                tracing::info!(repository = name, seconds, "open uploads of its bucket were not all looked at in time");
            }
        }
    }
    ctx.metrics.orphans_found(Kind::OpenUpload.as_str(), found);
    Ok(())
}

/// Gives up those of one bucket; how many there were.
async fn give_up(described: &BackupRepository, settings: &Settings, ctx: &Context) -> Result<usize, Problem> {
    let store = ctx.repositories.store(described).await?;
    let failed = |source| {
        let act = "look for uploads in parts that nobody goes on with".to_owned();
        from_repository("look at the bucket", &repository::Error::Store { act, source })
    };
    let left = leftovers::open_uploads(&store, settings, ctx.now()).await.map_err(failed)?;
    for open in &left {
        store.abort_upload(&open.upload).await.map_err(failed)?;
        ctx.metrics.orphans_removed(Kind::OpenUpload.as_str(), 1);
        let (key, last_sign) = (&open.upload.key, open.last_sign);
        tracing::info!(key, %last_sign, "gave up an upload in parts that nobody went on with");
    }
    Ok(left.len())
}

/// Restore points whose Velero backup is gone.
async fn restore_points(ctx: &Context, settings: &Settings, met: &mut Met) -> Result<(), Error> {
    let silent = leftovers::Silent::default();
    let AllListed { listed, problems, unasked } =
        leftovers::restore_points(&ctx.client, &ctx.repositories, silent).await?;
    for problem in problems.into_iter().chain(unasked) {
        tracing::info!(%problem, "the restore points of a repository were not looked at");
    }
    let Some(owners) = leftovers::owners(&ctx.client, &ctx.namespace).await? else { return Ok(()) };
    let mut found = Vec::new();
    for listed in &listed {
        let left = leftovers::unowned(listed, &owners, &ctx.cluster, settings, ctx.now());
        found.extend(left.into_iter().map(|point| (listed, point)));
    }
    ctx.metrics.orphans_found(Kind::RestorePoint.as_str(), found.len());
    let name = |listed: &Listed, point: &Point| (listed.repository.place(), point.id.clone());
    met.points.retain(|known, _| found.iter().any(|(listed, point)| name(listed, point) == *known));
    for (listed, point) in found {
        let since = *met.points.entry(name(listed, &point)).or_insert_with(|| first_meeting(&point, settings));
        if goes(since, settings, &owners, &listed.described) {
            forget(listed, &point, ctx).await?;
        }
    }
    Ok(())
}

fn first_meeting(point: &Point, settings: &Settings) -> Instant {
    let (path, point, backup) = (&point.path, &point.id, point.backup.as_ref().map(|of| &of.name));
    let remove = settings.remove_restore_points;
    tracing::info!(path, point, backup, remove, "the Velero backup of this restore point is gone, and nobody names it");
    Instant::now()
}

/// Whether it may be deleted now: only where Velero has the storage location, and knows a backup in it.
fn goes(since: Instant, settings: &Settings, owners: &Owners, of: &BackupRepository) -> bool {
    let age = Duration::try_from(settings.age).unwrap_or(Duration::MAX);
    let parameter = |name: &str| of.repository_parameters.get(name).map_or("", String::as_str);
    let place_is_known = owners.know_backups_in(parameter(key::BUCKET), parameter(key::STORAGE_PREFIX));
    settings.remove_restore_points && place_is_known && since.elapsed() >= age
}

async fn forget(listed: &Listed, point: &Point, ctx: &Context) -> Result<(), Error> {
    let act = "delete a restore point whose Velero backup is gone";
    let id = point.id.parse();
    let id = id.map_err(|_| Problem::lasting(Reason::Internal, format!("{act}: `{}` is no id", point.id)))?;
    listed.repository.forget(&id).await.map_err(|e| from_repository(act, &e))?;
    ctx.metrics.orphans_removed(Kind::RestorePoint.as_str(), 1);
    tracing::info!(path = point.path, point = point.id, "deleted a restore point whose Velero backup is gone");
    note_deletion(&listed.described, ctx).await;
    Ok(())
}
