//! Finds out where transfers read and write while an Upload waits for room: the datastores of disks that are being restored,
//! and the ESXi hosts that serve disks. Reads only; what a place means to an Upload is decided in [`lifecycle::admission`].
//!
//! A disk that a node has attached is served by the host on which that node's virtual machine runs: claim, volume,
//! attachment, node and machine lead there. Machines move, so attachments and hosts are asked for anew for every decision,
//! [`FRESH`] apart at the closest: pages of one list, and one property of all machines at once. Which machine a node is, is
//! asked again after [`KNOWN_FOR`], and how a host is called once.
//!
//! Nothing here may hold a backup up: what cannot be found out within [`WITHIN`] stays what it was, or unknown, is asked again
//! after [`FRESH`], and the log says why. Only what a driver that has just started has never found out is waited for, as long
//! as [`lifecycle::admission`] says.

mod answers;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Download, Timestamp, Upload, UploadPhase};
use connections::{from_kube, from_vsphere};
use disk::DiskId;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use lifecycle::admission::{Budgets, Host, Places, attached_to, is_written, read_disk, written_disk};
use lifecycle::{Problem, tracking};
use tokio::time::timeout;
use vsphere::{Cause, Fault, FaultKind, Vcenter};

use crate::Context;
use answers::Answers;

/// How long what was found out about attachments and hosts is good for further decisions, and the pause after a question
/// that failed.
const FRESH: Duration = Duration::from_secs(10);
/// How long a node is known to be a machine, or to be none.
const KNOWN_FOR: Duration = Duration::from_secs(300);
/// Longest time that a decision waits for the places.
const WITHIN: Duration = Duration::from_secs(15);
/// Questions at once.
const AT_ONCE: usize = 8;
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Asks, and remembers what seldom changes.
pub(crate) struct Finder {
    /// The volume of each disk that an Upload reads; `None` where its claim has another one by now.
    volumes: Answers<DiskId, Option<String>>,
    /// The datastore of each disk that a Download writes.
    datastores: Answers<DiskId, String>,
    /// The virtual machine that each node with volumes is; `None` where there is not exactly one.
    machines: Answers<String, Option<String>>,
    /// The host that serves each volume that is attached.
    serving: HashMap<String, Host>,
    /// Hosts' names by their ids.
    names: HashMap<String, String>,
    /// When the hosts were looked at, and what could not be found out then.
    looked: Option<Instant>,
    hidden: Option<String>,
    /// Since when hosts are asked for; whether they, and then whether the volumes that they serve, were ever told.
    asked_since: Option<Timestamp>,
    knows_hosts: bool,
    knows: bool,
    /// What was last said to be unknown.
    complaint: Option<String>,
}

impl Default for Finder {
    fn default() -> Self {
        Self {
            volumes: Answers::new(None, FRESH),
            datastores: Answers::new(None, FRESH),
            machines: Answers::new(Some(KNOWN_FOR), FRESH),
            serving: HashMap::new(),
            names: HashMap::new(),
            looked: None,
            hidden: None,
            asked_since: None,
            knows_hosts: false,
            knows: false,
            complaint: None,
        }
    }
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
        if budgets.host.is_some() {
            self.asked_since.get_or_insert(ctx.now());
        }
        let is_late = timeout(WITHIN, self.look(uploads, downloads, budgets, ctx)).await.is_err();
        let unknown = [
            is_late.then(late),
            budgets.host.and(self.hidden.clone()),
            budgets.host.and(self.volumes.hidden()),
            budgets.datastore.and(self.datastores.hidden()),
        ];
        let unknown: BTreeSet<_> = unknown.into_iter().flatten().collect();
        let unknown = (!unknown.is_empty()).then(|| Vec::from_iter(unknown).join("; "));
        if self.complaint != unknown {
            match &unknown {
                Some(unknown) => tracing::warn!(unknown, "not all transfers can be counted where they read or write"),
                None => tracing::info!("where all transfers read and write is known again"),
            }
            self.complaint = unknown;
        }
        let datastores = self.datastores.known().map(|(disk, datastore)| (disk.clone(), datastore.clone()));
        let volumes = self.volumes.known().filter_map(|(disk, volume)| Some((disk, volume.as_ref()?)));
        let hosts = volumes.filter_map(|(disk, volume)| Some((disk.clone(), self.serving.get(volume)?.clone())));
        Places {
            datastores: datastores.collect(),
            hosts: hosts.collect(),
            hosts_unknown_since: self.asked_since.filter(|_| !self.knows),
        }
    }

    async fn look(&mut self, uploads: &[Arc<Upload>], downloads: &[Arc<Download>], budgets: Budgets, ctx: &Context) {
        if budgets.host.is_some() {
            if self.looked.is_none_or(|at| at.elapsed() >= FRESH) {
                // also where it fails or is cut off: it is not asked for with each change
                (self.looked, self.hidden) = (Some(Instant::now()), Some(late()));
                let found = self.find_hosts(ctx).await;
                self.knows_hosts |= found.is_ok() && self.machines.hidden().is_none();
                self.hidden = found.unwrap_or_else(|problem| Some(problem.to_string()));
            }
            self.find_volumes(uploads, ctx).await;
            self.knows |= self.knows_hosts && self.volumes.hidden().is_none();
        }
        if budgets.datastore.is_some() {
            self.find_datastores(downloads, ctx).await;
        }
    }

    async fn find_datastores(&mut self, downloads: &[Arc<Download>], ctx: &Context) {
        let written = downloads.iter().filter(|download| is_written(download));
        let written = written.filter_map(|download| written_disk(download)).collect();
        let new = self.datastores.begin(&written, &late(), Instant::now());
        if new.is_empty() {
            return;
        }
        let vcenter = match ctx.vcenters.get().await {
            Ok(vcenter) => vcenter,
            Err(problem) => return self.datastores.fail(new, &problem, Instant::now()),
        };
        let vcenter = &vcenter;
        let find = |disk: DiskId| async move {
            let found = vcenter.retrieve_disk(&disk).await.map(|found| found.datastore);
            (disk, found.map_err(|e| from_vsphere("find the datastore of a disk that is restored", &e)))
        };
        let mut found = stream::iter(new).map(find).buffer_unordered(AT_ONCE);
        while let Some((disk, datastore)) = found.next().await {
            self.datastores.take(disk, datastore, Instant::now());
        }
    }

    async fn find_volumes(&mut self, uploads: &[Arc<Upload>], ctx: &Context) {
        let alive = uploads.iter().filter(|upload| !upload.phase().is_some_and(UploadPhase::is_terminal));
        let alive: HashMap<DiskId, &Upload> =
            alive.filter_map(|upload| Some((read_disk(upload)?, upload.as_ref()))).collect();
        let new = self.volumes.begin(&alive.keys().cloned().collect(), &late(), Instant::now());
        let new: Vec<_> = new.into_iter().filter_map(|disk| Some((*alive.get(&disk)?, disk))).collect();
        let find = |(upload, disk)| async move { (volume_of(&disk, upload, ctx).await, disk) };
        let mut found = stream::iter(new).map(find).buffer_unordered(AT_ONCE);
        while let Some((volume, disk)) = found.next().await {
            self.volumes.take(disk, volume, Instant::now());
        }
    }

    /// Tells what is not known: the hosts of some nodes that have volumes.
    async fn find_hosts(&mut self, ctx: &Context) -> Result<Option<String>, Problem> {
        let of_ours = |attachment: &VolumeAttachment| {
            attached_to(attachment).map(|(volume, node)| (volume.to_owned(), node.to_owned()))
        };
        let attached = all("list the attachments of volumes", of_ours, ctx).await?;
        let nodes: HashSet<String> = attached.iter().map(|(_, node)| node.clone()).collect();
        let vcenter = ctx.vcenters.get().await?;
        self.find_machines(&nodes, &vcenter, ctx).await;
        let machine_on = |node: &String| self.machines.get(node)?.clone();
        let machines: HashMap<_, _> = nodes.iter().filter_map(|node| Some((node.clone(), machine_on(node)?))).collect();
        let hosts = self.hosts_of(machines.values().cloned().collect(), &vcenter).await?;
        let host_on = |node: &str| hosts.get(machines.get(node)?);
        self.serving =
            attached.iter().filter_map(|(volume, node)| Some((volume.clone(), host_on(node)?.clone()))).collect();
        let without: BTreeSet<_> = nodes.iter().map(String::as_str).filter(|node| host_on(node).is_none()).collect();
        let without = (!without.is_empty()).then(|| {
            let nodes = Vec::from_iter(without).join(", ");
            format!("the hosts of nodes whose spec.providerID names no virtual machine that runs: {nodes}")
        });
        let said: Vec<_> = self.machines.hidden().into_iter().chain(without).collect();
        Ok((!said.is_empty()).then(|| said.join("; ")))
    }

    /// Finds out which machines nodes are. One that cannot be found out holds no other up.
    async fn find_machines(&mut self, nodes: &HashSet<String>, vcenter: &Vcenter, ctx: &Context) {
        let new: HashSet<_> = self.machines.begin(nodes, &late(), Instant::now()).into_iter().collect();
        if new.is_empty() {
            return;
        }
        let uuid_of = |node: &Node| {
            let named = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
            let name = Some(node.name_any()).filter(|name| new.contains(name))?;
            Some((name, named.and_then(tracking::machine_id)?))
        };
        let mut uuids: HashMap<_, _> = match all("list the nodes", uuid_of, ctx).await {
            Ok(uuids) => uuids.into_iter().collect(),
            Err(problem) => return self.machines.fail(new, &problem, Instant::now()),
        };
        let asked = new.into_iter().map(|node| (uuids.remove(&node), node));
        let find = |(uuid, node): (_, String)| async move { (machine_of(&node, uuid, vcenter).await, node) };
        let mut found = stream::iter(Vec::from_iter(asked)).map(find).buffer_unordered(AT_ONCE);
        while let Some((machine, node)) = found.next().await {
            self.machines.take(node, machine, Instant::now());
        }
    }

    /// Where virtual machines run now.
    async fn hosts_of(&mut self, machines: Vec<String>, vcenter: &Vcenter) -> Result<HashMap<String, Host>, Problem> {
        let hosts = vcenter.hosts_of(&machines).await.map_err(|e| {
            if matches!(e.cause(), Cause::Fault(Fault { kind: FaultKind::ManagedObjectNotFound, .. })) {
                self.machines.forget(); // one of them is gone: a node that was made anew is another machine
            }
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

/// The virtual machine with the UUID that a node names, where there is exactly one.
async fn machine_of(node: &str, uuid: Option<String>, vcenter: &Vcenter) -> Result<Option<String>, Problem> {
    let Some(uuid) = uuid else { return Ok(None) };
    let found = vcenter.machine_ids_with_uuid(&uuid).await;
    let found = found.map_err(|e| from_vsphere(&format!("find the virtual machine of node {node}"), &e))?;
    Ok(<[String; 1]>::try_from(found).ok().map(|[machine]| machine))
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
    let Some(volume) = volume else { return Ok(None) };
    Ok(ctx.migrations.disk_of(&volume).await.is_ok_and(|of_it| of_it == *disk).then_some(name))
}

/// What `keep` takes of all objects of a kind.
async fn all<K, T>(act: &str, keep: impl Fn(&K) -> Option<T>, ctx: &Context) -> Result<Vec<T>, Problem>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let objects = Api::<K>::all(ctx.client.clone());
    let (mut kept, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let listed = objects.list(&page).await.map_err(|e| from_kube(act, &e))?;
        kept.extend(listed.items.iter().filter_map(&keep));
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(kept),
        }
    }
}
