//! Makes the disk of a Download that names no volume, and removes it when nobody takes it. `lifecycle::new_disk` decides.
//!
//! There is no claim and no class to make a volume by: only the disk's size is known, from the backup. So it is a volume of CNS, on a
//! datastore that the hosts of all nodes share, and the cluster's by its `cluster-id`. Its name follows from the Download's uid: a
//! repeated step finds it, and so does who looks for what a deleted Download has left.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::entity::DiskEntity;
use api::{Download, Reason, WITHOUT_BACKUP_REPOSITORY, labels, names};
use connections::{Center, Centers, from_kube, from_original, from_vsphere, leftovers};
use disk::{DiskId, DiskSnapshot};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use lifecycle::flavor::Flavor;
use lifecycle::new_disk::{self, MADE_WITHIN, Nodes, Owner, Plan};
use lifecycle::transfer::download as says;
use lifecycle::{Again, Problem, retry};
use operator::Note;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use vsphere::{ClusterFlavor, NewVolume, Vcenter};

use crate::steps::Step;
use crate::{Context, Error};

/// Looking at the backup takes no longer than this in one attempt.
const LOOKING: Duration = Duration::from_secs(60);
/// What is being done while a datastore is looked for.
const PLACING: &str = "find a datastore for a new disk";
/// How long vCenter may refuse for passing reasons in one attempt.
const MAKING: Duration = Duration::from_secs(120);
/// How often a node that is to stop writing is looked at; it sends no event.
const LETTING_GO: Duration = Duration::from_secs(1);
/// How long a node may go on writing after its Download was deleted. One that died loses its lease within a minute.
const STOPPING: Duration = Duration::from_secs(90);
/// How long the disk of a Download that was deleted is tried to be deleted.
const REMOVED_WITHIN: Duration = Duration::from_secs(3600);

/// Runs until `stop`.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let deletions = tokio::spawn(follow_deletions(ctx.clone()));
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    Controller::new(downloads, watcher::Config::default())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |download, error, ctx| ctx.after_error(&*download, error), ctx)
        .for_each(|_| std::future::ready(()))
        .await;
    deletions.abort();
}

/// Moves one Download one step on.
async fn reconcile(known: Arc<Download>, ctx: Arc<Context>) -> Result<Action, Error> {
    if Owner::of(&known).is_none() {
        return Ok(Action::await_change());
    }
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let read = downloads.get_opt(&known.name_any()).await.map_err(Error::cluster("read the Download"))?;
    let Some(download) = read.filter(|d| d.uid() == known.uid()) else { return Ok(Action::await_change()) };
    let writing = match Owner::of(&download) {
        Some(Owner::Removing) => is_written(&download, &ctx).await?,
        _ => false,
    };
    let planned = new_disk::plan(&download, writing, ctx.now());
    tracing::debug!(download = download.name_any(), plan = ?planned, "decided");
    let action = match planned {
        Plan::Rest => Action::await_change(),
        Plan::WakeAt(at) => ctx.wake_at(at),
        Plan::Make => make(&download, &ctx).await?,
        Plan::End(problem) => end(&download, &problem, &ctx).await?,
        Plan::Remove => remove(&download, &ctx).await?,
        Plan::AwaitNode => Action::requeue(LETTING_GO),
        Plan::Delete => {
            let name = new_disk::name(&download);
            if let Err(problem) = delete(&name, &ctx).await {
                // an event: the status keeps why the disk is not wanted
                let message = format!("disk {name} stays for now: {}", problem.message());
                ctx.publisher.note(&download, &Note { reason: problem.reason, message, warning: true }).await;
                return Err(problem.into());
            }
            note(&download, Owner::Removed, None, &ctx).await?;
            Action::await_change()
        }
    };
    ctx.pace.forget(&known.uid().unwrap_or_default());
    Ok(action)
}

async fn is_written(download: &Download, ctx: &Context) -> Result<bool, Error> {
    Ok(ctx.transfers.held_by_another(&names::download_lease(&download.name_any())).await?.is_some())
}

/// What the attempts for a Download are counted by.
fn attempts_of(download: &Download) -> String {
    format!("{}/make", download.uid().unwrap_or_default())
}

/// Looks at the backup, makes the disk, and writes its id down.
async fn make(download: &Download, ctx: &Context) -> Result<Action, Error> {
    let before = download.status.clone().unwrap_or_default();
    // what an attempt writes comes back as an event, and is no reason for another one
    if let Some(due) = ctx.pauses.due(&attempts_of(download)).filter(|due| *due > ctx.now()) {
        return Ok(ctx.wake_at(due));
    }
    let message = "looking at the backup and making a disk for it";
    let download =
        &ctx.publish(download, &says::awaits_its_disk(&before, Reason::Provisioning, message, ctx.now())).await?;
    let noted = match make_disk(download, ctx).await {
        Ok(disk) => is_made(download, &disk, ctx).await,
        Err(problem) => not_made(download, &problem, ctx).await,
    };
    if noted.is_err() {
        // when it was deleted meanwhile, the disk was not there yet for who looked for it then
        tokio::spawn(after_deletion(download.clone(), Arc::new(ctx.clone())));
    }
    noted
}

async fn is_made(download: &Download, disk: &DiskId, ctx: &Context) -> Result<Action, Error> {
    Step::DiskMade.done();
    ctx.pauses.forget(&attempts_of(download));
    let owner = Owner::of(download).unwrap_or(Owner::Unsaid);
    note(download, owner, Some(disk), ctx).await?;
    tracing::info!(download = download.name_any(), %disk, "made a disk for a backup of an old version");
    Ok(Action::await_change())
}

/// What does not answer may come back; everything else needs somebody.
async fn not_made(download: &Download, problem: &Problem, ctx: &Context) -> Result<Action, Error> {
    let within = Duration::try_from(MADE_WITHIN).unwrap_or(Duration::ZERO);
    if problem.again == Again::Never || !ctx.is_younger_than(download, within) {
        ctx.pauses.forget(&attempts_of(download));
        return end(download, problem, ctx).await;
    }
    let due = ctx.pauses.after_failure(&attempts_of(download), ctx.now(), retry::controller_pause);
    let before = download.status.clone().unwrap_or_default();
    let waiting = says::awaits_its_disk(&before, problem.reason, &problem.message(), ctx.now());
    ctx.publish(download, &waiting).await?;
    Ok(ctx.wake_at(due))
}

async fn end(download: &Download, problem: &Problem, ctx: &Context) -> Result<Action, Error> {
    let before = download.status.clone().unwrap_or_default();
    ctx.publish(download, &says::ended(&before, problem, ctx.now())).await?;
    Ok(Action::await_change())
}

/// The disk goes, unless a volume of the cluster has it by now.
async fn remove(download: &Download, ctx: &Context) -> Result<Action, Error> {
    let disk = download.spec.protected_entity_id.as_deref().and_then(|id| Some(id.parse::<DiskEntity>().ok()?.disk));
    let is_used = match disk {
        Some(disk) => leftovers::disks(&ctx.client).await?.contains_key(&disk),
        None => false,
    };
    note(download, if is_used { Owner::Taken } else { Owner::Removing }, None, ctx).await?;
    Ok(Action::await_change())
}

/// Writes down who answers for the disk, and which it is. Refused when the Download changed meanwhile.
async fn note(download: &Download, owner: Owner, disk: Option<&DiskId>, ctx: &Context) -> Result<(), Error> {
    let mut patch = json!({"metadata": {
        "resourceVersion": download.resource_version(), "annotations": {labels::NEW_DISK: owner.as_str()},
    }});
    if let Some(disk) = disk {
        patch["spec"] = json!({"protectedEntityID": format!("ivd:{disk}")});
    }
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let patched = downloads.patch(&download.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(drop).map_err(Error::cluster("note the disk of a Download"))
}

async fn make_disk(download: &Download, ctx: &Context) -> Result<DiskId, Problem> {
    let source = source_of(download)?;
    let late = |_| {
        let cause = format!("look for the backup: not found within {} seconds", LOOKING.as_secs());
        Problem::passing(Reason::StoreUnreachable, cause)
    };
    let capacity_bytes = tokio::time::timeout(LOOKING, size_of(download, &source, ctx)).await.map_err(late)??;
    let centers = ctx.vcenters.centers().await?;
    let (vcenter, datastores) = place(download, &centers, ctx).await?;
    let Some(cluster_id) = vcenter.config().cluster_id.clone() else {
        let cause = "make a disk: the vCenter Secret names no cluster-id, to which it would belong in CNS";
        return Err(Problem::lasting(Reason::VCenterSecretInvalid, cause));
    };
    let cluster_flavor = match ctx.vcenters.flavor().await?.flavor {
        Flavor::Vanilla => ClusterFlavor::Vanilla,
        Flavor::Supervisor => ClusterFlavor::Workload,
        Flavor::Guest => ClusterFlavor::Guest, // no vCenter is in reach from there, so it never comes to this
    };
    let name = new_disk::name(download);
    let wanted = NewVolume { name, capacity_bytes, datastores, storage_policy: None, cluster_id, cluster_flavor };
    let made = vcenter.create_volume(&wanted, MAKING).await;
    made.map(|volume| volume.id).map_err(|e| from_vsphere("make a disk", &e))
}

fn source_of(download: &Download) -> Result<DiskSnapshot, Problem> {
    let id = download.spec.snapshot_id.as_deref().unwrap_or_default();
    let invalid = |why: String| Problem::lasting(Reason::InvalidSpec, format!("read spec.snapshotID `{id}`: {why}"));
    let entity: DiskEntity = id.parse().map_err(|e| invalid(Problem::chain(&e)))?;
    entity.disk_snapshot().ok_or_else(|| invalid("it names a disk, not a disk snapshot".to_owned()))
}

/// How large the disk is, in bytes. This is also the proof that all of its objects are there, which must come before a disk is made.
async fn size_of(download: &Download, source: &DiskSnapshot, ctx: &Context) -> Result<u64, Problem> {
    let named = download.spec.backup_repository_name.as_deref().filter(|name| !name.is_empty());
    let described = ctx.repositories.find(named.unwrap_or(WITHOUT_BACKUP_REPOSITORY)).await?;
    let original = ctx.repositories.original(&described).await?;
    let found = original.open(source).await;
    let found = found.map_err(|e| from_original("look for the backup in the original's layout", &e))?;
    let found = found.ok_or_else(|| {
        let bucket = described.repository_parameters.get(api::parameters::key::BUCKET).map_or("", String::as_str);
        let cause = format!("look for the backup {source}: bucket {bucket} has none in the original's layout");
        Problem::lasting(Reason::RestorePointMissing, cause)
    })?;
    Ok(found.size())
}

/// Where the disk is made: datastores that the hosts of all nodes have mounted. Of several vCenters it is the first of the Secret that has
/// such; one before it that does not answer is waited for, so that a repeated step does not make a second disk elsewhere.
async fn place(download: &Download, centers: &Centers, ctx: &Context) -> Result<(Vcenter, Vec<String>), Problem> {
    let nodes: Api<Node> = Api::all(ctx.client.clone());
    let nodes = nodes.list(&ListParams::default()).await.map_err(|e| from_kube("list nodes", &e))?.items;
    let nodes = Nodes::of(&nodes);
    let (mut hosts, mut placed) = (Vec::new(), BTreeSet::new());
    for center in centers.all() {
        let look = |vcenter: Vcenter| datastores(vcenter, nodes.machines.clone());
        let found = center.ask(PLACING, LOOKING, look).await?;
        if !found.shared.is_empty() {
            if let Some(message) = nodes.left_out(&found.nodes) {
                tracing::warn!(download = download.name_any(), message, "not every node counts");
                let note = Note { reason: Reason::NoSharedDatastore, message, warning: true };
                ctx.publisher.note(download, &note).await;
            }
            return Ok((center.client()?, found.shared));
        }
        hosts.extend(found.hosts);
        placed.extend(found.nodes);
    }
    Err(nodes.nowhere(PLACING, &hosts, &placed))
}

/// Where the nodes of one vCenter are.
struct Placed {
    /// Nodes whose machines run there.
    nodes: BTreeSet<String>,
    /// The hosts of these.
    hosts: Vec<String>,
    /// The datastores that all of these hosts have mounted.
    shared: Vec<String>,
}

/// Looks where the machines run, by node. Machines that run nowhere do not count.
async fn datastores(vcenter: Vcenter, uuids: BTreeMap<String, String>) -> Result<Placed, vsphere::Error> {
    let mut machines: Vec<String> = Vec::new();
    let mut of_node = BTreeMap::new();
    for (node, uuid) in uuids {
        let ids = vcenter.machine_ids_with_uuid(&uuid).await?;
        machines.extend(ids.iter().cloned());
        of_node.insert(node, ids);
    }
    let host_of = vcenter.hosts_of(&machines).await?;
    let runs = |ids: &Vec<String>| ids.iter().any(|id| host_of.contains_key(id));
    let nodes = of_node.iter().filter(|(_, ids)| runs(ids)).map(|(node, _)| node.clone()).collect();
    let hosts = Vec::from_iter(host_of.values().cloned().collect::<BTreeSet<_>>());
    let shared = vcenter.shared_datastores(&hosts).await?;
    Ok(Placed { nodes, hosts, shared })
}

/// Deletes the disks of that name, whichever vCenter has them. One that cannot be asked may have one, and keeps no other from being asked.
async fn delete(name: &str, ctx: &Context) -> Result<(), Problem> {
    let centers = match ctx.vcenters.centers().await {
        // there is no vCenter: no disk was made
        Err(problem) if problem.reason == Reason::GuestCluster => return Ok(()),
        centers => centers?,
    };
    let mut failed = None;
    for center in centers.all() {
        if let Err(problem) = delete_at(center, name, ctx).await {
            tracing::info!(server = center.server(), name, %problem, "a disk of that name may be there still");
            failed = failed.or(Some(problem));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// One that a volume of the cluster has by now stays.
async fn delete_at(center: &Center, name: &str, ctx: &Context) -> Result<(), Problem> {
    let look = |vcenter: Vcenter| async move { vcenter.volumes_named(name).await };
    let named = center.ask("look for a disk that nobody takes", LOOKING, look).await?;
    if named.is_empty() {
        return Ok(());
    }
    let used = leftovers::disks(&ctx.client).await?;
    for disk in &named {
        if used.contains_key(disk) {
            tracing::info!(%disk, name, "a volume of the cluster has the disk by now; it stays");
            continue;
        }
        let deleting = |vcenter: Vcenter| async move { vcenter.delete_volume(disk, MAKING).await };
        center.ask("delete a disk that nobody takes", MAKING + LOOKING, deleting).await?;
        tracing::info!(%disk, name, "deleted a disk that nobody takes");
    }
    Ok(())
}

/// A Download that somebody deletes leaves its disk behind: a controller is told nothing about objects that are gone.
async fn follow_deletions(ctx: Arc<Context>) {
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let mut events = pin!(watcher(downloads, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        if let Ok(watcher::Event::Delete(download)) = event
            && new_disk::is_owed(&download)
        {
            tokio::spawn(after_deletion(download, ctx.clone()));
        }
    }
}

/// Removes the disk of a Download that is gone. Nobody else will: it is tried again and again, for [`REMOVED_WITHIN`].
async fn after_deletion(download: Download, ctx: Arc<Context>) {
    let (name, disk) = (download.name_any(), new_disk::name(&download));
    let (begun, mut failures) = (Instant::now(), 0);
    loop {
        let why = match remove_left(&download, &ctx).await {
            Ok(Left::Nothing) => return,
            Ok(Left::Written) if begun.elapsed() < STOPPING => {
                tokio::time::sleep(LETTING_GO).await;
                continue;
            }
            Ok(Left::Written) => "a node still writes it".to_owned(),
            Err(error) => Problem::chain(&error),
        };
        failures += 1;
        let pause = retry::controller_pause(failures);
        if begun.elapsed() + pause > REMOVED_WITHIN {
            tracing::warn!(download = name, disk, why, "it was deleted, and its disk stays; delete it in vCenter");
            return;
        }
        tracing::info!(download = name, disk, why, again_in = ?pause, "it was deleted, and its disk is still there");
        tokio::time::sleep(pause).await;
    }
}

/// What a Download that is gone has left.
enum Left {
    /// Nothing; or it is not gone, and its own steps remove the disk.
    Nothing,
    /// A disk that a node writes.
    Written,
}

async fn remove_left(download: &Download, ctx: &Context) -> Result<Left, Error> {
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let read = downloads.get_opt(&download.name_any()).await;
    let read = read.map_err(Error::cluster("look whether the Download is gone"))?;
    if read.is_some_and(|there| there.uid() == download.uid()) {
        return Ok(Left::Nothing);
    }
    if is_written(download, ctx).await? {
        return Ok(Left::Written);
    }
    delete(&new_disk::name(download), ctx).await?;
    Ok(Left::Nothing)
}
