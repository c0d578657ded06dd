//! Reads what exists for a Download that named no volume, and what a disk for it needs. Writes nothing.

use std::collections::HashSet;

use api::entity::DiskEntity;
use api::{Download, Reason, WITHOUT_BACKUP_REPOSITORY, names};
use connections::{Centers, from_kube, from_original, leftovers};
use disk::DiskSnapshot;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use lifecycle::new_disk::{self, FIRST_LOOK, LOOKING, Owner, PLACING, Seen};
use lifecycle::{Problem, tracking};
use vsphere::{NewVolume, Vcenter};

use crate::{Context, Error};

/// What is being done while a datastore is looked for.
const PLACE: &str = "find a datastore for a new disk";

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
pub(super) async fn is_used(download: &Download, ctx: &Context) -> Result<bool, Error> {
    match new_disk::disk_of(download) {
        Some(disk) => Ok(leftovers::disks(&ctx.client).await?.contains_key(&disk)),
        None => Ok(false),
    }
}

/// What is to be made, and where. Looks at the backup first: one that is not whole makes no disk.
pub(super) async fn wanted(download: &Download, ctx: &Context) -> Result<(Vcenter, NewVolume), Problem> {
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
    let (vcenter, datastores) = tokio::time::timeout(PLACING, placed).await.map_err(late)??;
    let Some(cluster_id) = vcenter.config().cluster_id.clone() else {
        let cause = "make a disk: the vCenter Secret names no cluster-id, to which it would belong in CNS";
        return Err(Problem::lasting(Reason::VCenterSecretInvalid, cause));
    };
    let name = new_disk::name(download);
    Ok((vcenter, NewVolume { name, capacity_bytes, datastores, storage_policy: None, cluster_id }))
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
async fn place(centers: &Centers, ctx: &Context) -> Result<(Vcenter, Vec<String>), Problem> {
    let nodes: Api<Node> = Api::all(ctx.client.clone());
    let nodes = nodes.list(&ListParams::default()).await.map_err(|e| from_kube("list nodes", &e))?.items;
    let uuid = |node: &Node| tracking::machine_id(node.spec.as_ref()?.provider_id.as_deref()?);
    let machines: Vec<_> = nodes.iter().filter_map(uuid).collect();
    let mut hosts = Vec::new();
    for center in centers.all() {
        let look = |vcenter: Vcenter| datastores(vcenter, machines.clone());
        let (found, shared) = center.ask(PLACE, PLACING, look).await?;
        if !shared.is_empty() {
            return Ok((center.client()?, shared));
        }
        hosts.extend(found);
    }
    let cause = match hosts.len() {
        0 => format!("{PLACE}: none of {} nodes names a virtual machine that runs", nodes.len()),
        _ => format!("{PLACE}: hosts {} share none", hosts.join(", ")),
    };
    Err(Problem::lasting(Reason::NoSharedDatastore, cause))
}

/// The hosts that these machines run on, and the datastores that all of these hosts have mounted. Machines that run nowhere do not count.
async fn datastores(vcenter: Vcenter, uuids: Vec<String>) -> Result<(Vec<String>, Vec<String>), vsphere::Error> {
    let mut machines = Vec::new();
    for uuid in uuids {
        machines.extend(vcenter.machine_ids_with_uuid(&uuid).await?);
    }
    let hosts: HashSet<String> = vcenter.hosts_of(&machines).await?.into_values().collect();
    let mut hosts = Vec::from_iter(hosts);
    hosts.sort_unstable();
    let shared = vcenter.shared_datastores(&hosts).await?;
    Ok((hosts, shared))
}
