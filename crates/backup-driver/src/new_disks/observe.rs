//! Reads what exists for a Download that named no volume, and what a disk for it needs. Writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use api::entity::DiskEntity;
use api::{Download, Reason, WITHOUT_BACKUP_REPOSITORY, names};
use connections::{Centers, from_kube, from_original, leftovers};
use disk::DiskSnapshot;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::flavor::Flavor;
use lifecycle::new_disk::{self, FIRST_LOOK, LOOKING, Nodes, Owner, PLACING, Seen};
use vsphere::{ClusterFlavor, NewVolume, Vcenter};

use crate::{Context, Error};

/// What is being done while a datastore is looked for.
const PLACE: &str = "find a datastore for a new disk";

/// Nodes whose machines are looked for at once; a cluster may have hundreds.
const NODES_AT_ONCE: usize = 8;

/// The Download as it is now, and what exists besides.
pub(super) struct Looked {
    pub(super) download: Download,
    pub(super) seen: Seen,
}

/// Reads them; `None` when there is nothing to do: it is no such Download, or it is gone.
pub(super) async fn observe(known: &Download, ctx: &Context) -> Result<Option<Looked>, Error> {
    if Owner::of(known).is_none() {
        return Ok(None);
    }
    let uid = known.uid().unwrap_or_default();
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let read = downloads.get_opt(&known.name_any()).await.map_err(Error::cluster("read the Download"))?;
    let Some(download) = read.filter(|d| d.uid() == known.uid()) else { return Ok(None) };
    let mut seen = Seen { lasts: ctx.new_disks.of(&uid, new_disk::state(&download)), ..Seen::default() };
    match Owner::of(&download) {
        Some(Owner::Removing) => seen.writer = writer(&download, ctx).await?,
        Some(Owner::Taken) if seen.lasts >= FIRST_LOOK => seen.is_used = Some(is_used(&download, ctx).await?),
        _ => {}
    }
    Ok(Some(Looked { download, seen }))
}

/// The node that holds its lease.
pub(super) async fn writer(download: &Download, ctx: &Context) -> Result<Option<String>, Error> {
    let held = ctx.transfers.held_by_another(&names::download_lease(&download.name_any())).await?;
    Ok(held.map(|(node, _)| node))
}

/// Whether a volume of the cluster has the disk.
pub(super) async fn is_used(download: &Download, ctx: &Context) -> Result<bool, Problem> {
    match new_disk::disk_of(download) {
        Some(disk) => Ok(leftovers::disks_in_use(&ctx.client).await?.contains_key(&disk)),
        None => Ok(false),
    }
}

/// What is to be made, and where.
pub(super) struct Wanted {
    pub(super) vcenter: Vcenter,
    pub(super) volume: NewVolume,
    /// Which nodes may not reach it, and why.
    pub(super) left_out: Option<String>,
}

/// What is to be made, and where. Looks at the backup first: one that is not whole makes no disk.
pub(super) async fn wanted(download: &Download, ctx: &Context) -> Result<Wanted, Problem> {
    let source = source_of(download)?;
    let late = |_| {
        let cause = format!("look for the backup: not found within {} seconds", LOOKING.as_secs());
        Problem::passing(Reason::StoreUnreachable, cause)
    };
    let capacity_bytes = tokio::time::timeout(LOOKING, size_of(download, &source, ctx)).await.map_err(late)??;
    let late = |_| {
        let cause = format!("{PLACE}: not found within {} seconds", PLACING.as_secs());
        Problem::passing(Reason::VCenterUnreachable, cause)
    };
    let placed = async {
        let centers = ctx.vcenters.centers().await?;
        place(&centers, ctx).await
    };
    let Place { vcenter, datastores, left_out } = tokio::time::timeout(PLACING, placed).await.map_err(late)??;
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
    let volume = NewVolume { name, capacity_bytes, datastores, storage_policy: None, cluster_id, cluster_flavor };
    Ok(Wanted { vcenter, volume, left_out })
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
        Problem::lasting(Reason::RestorePointMissing, cause).with_fix(new_disk::which_disk(download))
    })?;
    Ok(found.size())
}

/// Where a disk is made.
struct Place {
    vcenter: Vcenter,
    datastores: Vec<String>,
    /// Which nodes may not reach it, and why.
    left_out: Option<String>,
}

/// Where the disk is made: datastores that the hosts of all nodes have mounted. Of several vCenters it is the first of the Secret that has
/// such; one before it that does not answer is waited for, so that a repeated step does not make a second disk elsewhere.
async fn place(centers: &Centers, ctx: &Context) -> Result<Place, Problem> {
    let nodes: Api<Node> = Api::all(ctx.client.clone());
    let nodes = nodes.list(&ListParams::default()).await.map_err(|e| from_kube("list nodes", &e))?.items;
    let nodes = Nodes::of(&nodes);
    let (mut hosts, mut placed) = (Vec::new(), BTreeSet::new());
    for center in centers.all() {
        let look = |vcenter: Vcenter| datastores(vcenter, nodes.machines.clone());
        let found = center.ask(PLACE, PLACING, look).await?;
        if !found.shared.is_empty() {
            let left_out = nodes.left_out(&found.nodes);
            return Ok(Place { vcenter: center.client()?, datastores: found.shared, left_out });
        }
        hosts.extend(found.hosts);
        placed.extend(found.nodes);
    }
    Err(nodes.nowhere(PLACE, &hosts, &placed))
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
    let ids = |(node, uuid): (String, String)| {
        let vcenter = vcenter.clone();
        async move { vcenter.machine_ids_with_uuid(&uuid).await.map(|ids| (node, ids)) }
    };
    let of_node: BTreeMap<String, Vec<String>> =
        stream::iter(uuids).map(ids).buffer_unordered(NODES_AT_ONCE).try_collect().await?;
    let machines: Vec<String> = of_node.values().flatten().cloned().collect();
    let host_of = vcenter.hosts_of(&machines).await?;
    let runs = |ids: &Vec<String>| ids.iter().any(|id| host_of.contains_key(id));
    let nodes = of_node.iter().filter(|(_, ids)| runs(ids)).map(|(node, _)| node.clone()).collect();
    let hosts = Vec::from_iter(host_of.values().cloned().collect::<BTreeSet<_>>());
    let shared = vcenter.shared_datastores(&hosts).await?;
    Ok(Placed { nodes, hosts, shared })
}
