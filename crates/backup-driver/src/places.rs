//! Finds out where transfers read and write while an Upload waits for room: the datastores of disks that are being restored,
//! and the ESXi hosts that serve disks. Reads only; what a place means to an Upload is decided in [`lifecycle::admission`].
//!
//! A disk that a node has attached is served by the host on which that node's virtual machine runs: claim, volume,
//! attachment, node and machine lead there. Machines move, so the way from the attachments on is gone anew for every
//! decision, [`FRESH`] apart at the closest. Asked are the API server for two lists, and vCenter for one property of all
//! machines at once; which machine a node is and how a host is called is asked once each.
//!
//! Nothing here may hold a backup up: what cannot be found out within [`WITHIN`] stays what it was, or unknown, and the log
//! says why.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::{Download, Upload, UploadPhase};
use connections::{from_kube, from_vsphere};
use disk::DiskId;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use lifecycle::admission::{Budgets, Host, Places, attached_to, is_written, read_disk, written_disk};
use lifecycle::snapshot::disk_of;
use lifecycle::{Problem, tracking};
use tokio::time::{Instant, timeout};
use vsphere::Vcenter;

use crate::Context;

/// How long what was found out about attachments and machines is good for further decisions.
const FRESH: Duration = Duration::from_secs(10);
/// Longest time that a decision waits for the places.
const WITHIN: Duration = Duration::from_secs(15);
/// Questions at once.
const AT_ONCE: usize = 8;

/// Asks, and remembers what does not change.
#[derive(Default)]
pub(crate) struct Finder {
    /// The volume of each disk that an Upload reads; `None` where its claim has another one by now.
    volumes: HashMap<DiskId, Option<String>>,
    /// The datastore of each disk that a Download writes.
    datastores: HashMap<DiskId, String>,
    /// The host that serves each volume that is attached.
    serving: HashMap<String, Host>,
    /// Virtual machines by the UUIDs that nodes name.
    machines: HashMap<String, String>,
    /// Hosts' names by their ids.
    names: HashMap<String, String>,
    /// When the hosts were looked at, and what could not be found out then.
    looked: Option<Instant>,
    hidden: Option<String>,
    /// What was last said to be unknown.
    complaint: Option<String>,
}

impl Finder {
    /// What is known of the disks of these transfers now, as far as there are budgets for it.
    pub(crate) async fn places(
        &mut self,
        uploads: &[Arc<Upload>],
        downloads: &[Arc<Download>],
        budgets: Budgets,
        ctx: &Context,
    ) -> Places {
        let looked = timeout(WITHIN, self.look(uploads, downloads, budgets, ctx)).await;
        let unknown = looked.unwrap_or_else(|_| vec![late()]);
        let unknown = (!unknown.is_empty()).then(|| unknown.join("; "));
        if self.complaint != unknown {
            match &unknown {
                Some(unknown) => tracing::warn!(unknown, "not all transfers can be counted where they read or write"),
                None => tracing::info!("where all transfers read and write is known again"),
            }
            self.complaint = unknown;
        }
        let volumes = self.volumes.iter().filter_map(|(disk, volume)| Some((disk, volume.as_ref()?)));
        let hosts = volumes.filter_map(|(disk, volume)| Some((disk.clone(), self.serving.get(volume)?.clone())));
        Places { datastores: self.datastores.clone(), hosts: hosts.collect() }
    }

    /// Tells what could not be found out.
    async fn look(
        &mut self,
        uploads: &[Arc<Upload>],
        downloads: &[Arc<Download>],
        budgets: Budgets,
        ctx: &Context,
    ) -> Vec<String> {
        let mut unknown = Vec::new();
        if budgets.datastore.is_some() {
            unknown.extend(self.find_datastores(downloads, ctx).await.err().map(|problem| problem.to_string()));
        }
        if budgets.host.is_some() {
            unknown.extend(self.find_volumes(uploads, ctx).await.err().map(|problem| problem.to_string()));
            if self.looked.is_none_or(|at| at.elapsed() >= FRESH) {
                // also where it fails or is cut off: it is not asked for with each change
                (self.looked, self.hidden) = (Some(Instant::now()), Some(late()));
                self.hidden = match self.find_hosts(ctx).await {
                    Ok(nodes) if nodes.is_empty() => None,
                    Ok(nodes) => {
                        let nodes = Vec::from_iter(nodes).join(", ");
                        Some(format!(
                            "the hosts of nodes whose spec.providerID names no virtual machine that runs: {nodes}"
                        ))
                    }
                    Err(problem) => Some(problem.to_string()),
                };
            }
            unknown.extend(self.hidden.clone());
        }
        unknown
    }

    async fn find_datastores(&mut self, downloads: &[Arc<Download>], ctx: &Context) -> Result<(), Problem> {
        let written = downloads.iter().filter(|download| is_written(download));
        let written: HashSet<DiskId> = written.filter_map(|download| written_disk(download)).collect();
        self.datastores.retain(|disk, _| written.contains(disk));
        let new: Vec<_> = written.into_iter().filter(|disk| !self.datastores.contains_key(disk)).collect();
        let mut outcome = Ok(());
        for disk in new {
            match ctx.vcenters.get().await?.retrieve_disk(&disk).await {
                Ok(found) => drop(self.datastores.insert(disk, found.datastore)),
                Err(e) => outcome = Err(from_vsphere("find the datastore of a disk that is restored", &e)),
            }
        }
        outcome
    }

    async fn find_volumes(&mut self, uploads: &[Arc<Upload>], ctx: &Context) -> Result<(), Problem> {
        let alive = uploads.iter().filter(|upload| !upload.phase().is_some_and(UploadPhase::is_terminal));
        let alive: HashMap<DiskId, &Upload> =
            alive.filter_map(|upload| Some((read_disk(upload)?, upload.as_ref()))).collect();
        self.volumes.retain(|disk, _| alive.contains_key(disk));
        let new: Vec<_> = alive.into_iter().filter(|(disk, _)| !self.volumes.contains_key(disk)).collect();
        let find = |(disk, upload)| async move { (volume_of(&disk, upload, ctx).await, disk) };
        let mut found = stream::iter(new).map(find).buffer_unordered(AT_ONCE);
        while let Some((volume, disk)) = found.next().await {
            self.volumes.insert(disk, volume?);
        }
        Ok(())
    }

    /// Gives the nodes that have volumes and whose host is not known.
    async fn find_hosts(&mut self, ctx: &Context) -> Result<BTreeSet<String>, Problem> {
        let attachments = all::<VolumeAttachment>("list the attachments of volumes", ctx).await?;
        let attached: Vec<_> = attachments.iter().filter_map(attached_to).collect();
        let nodes: HashSet<&str> = attached.iter().map(|(_, node)| *node).collect();
        let vcenter = ctx.vcenters.get().await?;
        let mut machines = HashMap::new();
        for node in all::<Node>("list the nodes", ctx).await?.iter().filter(|node| nodes.contains(&*node.name_any())) {
            if let Some(machine) = self.machine_of(node, &vcenter).await? {
                machines.insert(node.name_any(), machine);
            }
        }
        let hosts = self.hosts_of(machines.values().cloned().collect(), &vcenter).await?;
        let host_on = |node: &str| hosts.get(machines.get(node)?);
        let serving = attached.iter().filter_map(|(volume, node)| Some(((*volume).to_owned(), host_on(node)?.clone())));
        self.serving = serving.collect();
        Ok(nodes.into_iter().filter(|node| host_on(node).is_none()).map(str::to_owned).collect())
    }

    /// The virtual machine that a node is, where there is exactly one.
    async fn machine_of(&mut self, node: &Node, vcenter: &Vcenter) -> Result<Option<String>, Problem> {
        let named = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
        let Some(uuid) = named.and_then(tracking::machine_id) else { return Ok(None) };
        if let Some(known) = self.machines.get(&uuid) {
            return Ok(Some(known.clone()));
        }
        let found = vcenter.machine_ids_with_uuid(&uuid).await;
        let found = found.map_err(|e| from_vsphere("find the virtual machine of a node", &e))?;
        let [machine] = &found[..] else { return Ok(None) };
        self.machines.insert(uuid, machine.clone());
        Ok(Some(machine.clone()))
    }

    /// Where virtual machines run now.
    async fn hosts_of(&mut self, machines: Vec<String>, vcenter: &Vcenter) -> Result<HashMap<String, Host>, Problem> {
        let hosts = vcenter.hosts_of(&machines).await.map_err(|e| {
            self.machines.clear(); // one of them may be gone: a node that was made anew is another machine
            from_vsphere("ask where the virtual machines of the nodes run", &e)
        })?;
        let new: BTreeSet<_> = hosts.values().filter(|host| !self.names.contains_key(*host)).cloned().collect();
        match vcenter.host_names(&Vec::from_iter(new)).await {
            Ok(names) => self.names.extend(names),
            Err(error) => tracing::debug!(error = Problem::chain(&error), "hosts are called by their ids"),
        }
        let named = |id: String| Host { name: self.names.get(&id).unwrap_or(&id).clone(), id };
        Ok(hosts.into_iter().map(|(machine, host)| (machine, named(host))).collect())
    }
}

fn late() -> String {
    format!("it was not found out within {} s", WITHIN.as_secs())
}

/// The volume of the claim that an Upload was made for, if that is the disk's still.
async fn volume_of(disk: &DiskId, upload: &Upload, ctx: &Context) -> Result<Option<String>, Problem> {
    let (Some(namespace), Some(claim)) = (&upload.spec.source_namespace, &upload.spec.source_claim) else {
        return Ok(None);
    };
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), namespace);
    let read = claims.get_opt(claim).await.map_err(|e| from_kube("read the claim of an Upload", &e))?;
    let Some(name) = read.and_then(|claim| claim.spec?.volume_name) else { return Ok(None) };
    let volumes: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let volume = volumes.get_opt(&name).await.map_err(|e| from_kube("read the volume of an Upload", &e))?;
    Ok(volume.filter(|volume| disk_of(volume).is_ok_and(|of_it| of_it == *disk)).map(|_| name))
}

/// All objects of a kind, as the API server has them at hand.
async fn all<K>(act: &str, ctx: &Context) -> Result<Vec<K>, Problem>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let read = Api::<K>::all(ctx.client.clone()).list(&ListParams::default().match_any()).await;
    read.map(|list| list.items).map_err(|e| from_kube(act, &e))
}
