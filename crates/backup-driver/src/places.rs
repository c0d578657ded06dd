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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::{Download, Timestamp, Upload, UploadPhase};
use connections::{Center, Centers, from_kube, from_vsphere};
use disk::DiskId;
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use lifecycle::admission::{Budgets, Host, Places, attached_to, is_written, read_disk, written_disk};
use lifecycle::{Again, Problem, tracking};
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
/// Longest time that one of several vCenters gets for an answer, so that it is not [`WITHIN`] for all of them.
const OF_SEVERAL: Duration = Duration::from_secs(4);
/// Questions at once.
const AT_ONCE: usize = 8;
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// A virtual machine of one of the vCenters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Machine {
    /// `host:port` of its vCenter.
    server: String,
    /// Its managed object id there.
    id: String,
}

/// Asks, and remembers what seldom changes.
pub(crate) struct Finder {
    /// The volume of each disk that an Upload reads; `None` where its claim has another one by now.
    volumes: Answers<DiskId, Option<String>>,
    /// The datastore of each disk that a Download writes.
    datastores: Answers<DiskId, String>,
    /// The virtual machine that each node with volumes is; `None` where there is not exactly one.
    machines: Answers<String, Option<Machine>>,
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
        let centers = match ctx.vcenters.centers().await {
            Ok(centers) => centers,
            Err(problem) => return self.datastores.fail(new, &problem, Instant::now()),
        };
        let centers = &*centers;
        let find = |disk: DiskId| async move { (datastore_of(&disk, centers).await, disk) };
        let mut found = stream::iter(new).map(find).buffer_unordered(AT_ONCE);
        while let Some((datastore, disk)) = found.next().await {
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
        let centers = ctx.vcenters.centers().await?;
        self.find_machines(&nodes, &centers, ctx).await;
        let machine_on = |node: &String| self.machines.get(node)?.clone();
        let machines: HashMap<_, _> = nodes.iter().filter_map(|node| Some((node.clone(), machine_on(node)?))).collect();
        let (mut hosts, mut away, mut silent) = (HashMap::new(), Vec::new(), HashSet::new());
        for center in centers.all() {
            let on_it = machines.values().filter(|machine| machine.server == center.server());
            match self.hosts_of(on_it.map(|machine| machine.id.clone()).collect(), center, &centers).await {
                Ok(found) => hosts.extend(found),
                Err(problem) if centers.only().is_some() => return Err(problem),
                // the others' hosts are told all the same
                Err(problem) => {
                    away.push(problem.to_string());
                    silent.insert(center.server());
                }
            }
        }
        let host_on = |node: &str| hosts.get(machines.get(node)?);
        let is_away = |node: &str| machines.get(node).is_some_and(|machine| silent.contains(machine.server.as_str()));
        let host_of = |(volume, node): &(String, String)| {
            let before = || self.serving.get(volume).filter(|_| is_away(node));
            Some((volume.clone(), host_on(node).or_else(before)?.clone()))
        };
        let serving: HashMap<_, _> = attached.iter().filter_map(host_of).collect();
        let nowhere = |node: &&str| host_on(node).is_none() && !is_away(node);
        let without: BTreeSet<_> = nodes.iter().map(String::as_str).filter(nowhere).collect();
        self.serving = serving;
        let without = (!without.is_empty()).then(|| {
            let nodes = Vec::from_iter(without).join(", ");
            format!("the hosts of nodes whose spec.providerID names no virtual machine that runs: {nodes}")
        });
        let said: Vec<_> = self.machines.hidden().into_iter().chain(away).chain(without).collect();
        Ok((!said.is_empty()).then(|| said.join("; ")))
    }

    /// Finds out which machines nodes are. One that cannot be found out holds no other up.
    async fn find_machines(&mut self, nodes: &HashSet<String>, centers: &Centers, ctx: &Context) {
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
        let find = |(uuid, node): (_, String)| async move { (machine_of(&node, uuid, centers).await, node) };
        let mut found = stream::iter(Vec::from_iter(asked)).map(find).buffer_unordered(AT_ONCE);
        while let Some((machine, node)) = found.next().await {
            self.machines.take(node, machine, Instant::now());
        }
    }

    /// Where virtual machines of one vCenter run now.
    async fn hosts_of(
        &mut self,
        machines: Vec<String>,
        center: &Center,
        centers: &Centers,
    ) -> Result<HashMap<Machine, Host>, Problem> {
        if machines.is_empty() {
            return Ok(HashMap::new());
        }
        let (vcenter, is_gone) = (center.client()?, &AtomicBool::new(false));
        let look = |vcenter: Vcenter| async move {
            vcenter.hosts_of(&machines).await.inspect_err(|e| {
                let gone = matches!(e.cause(), Cause::Fault(Fault { kind: FaultKind::ManagedObjectNotFound, .. }));
                is_gone.store(gone, Ordering::Relaxed);
            })
        };
        let hosts = center.ask("ask where the virtual machines of the nodes run", OF_SEVERAL, look).await;
        if is_gone.load(Ordering::Relaxed) {
            self.machines.forget(); // one of them is gone: a node that was made anew is another machine
        }
        let hosts = hosts?;
        let id_of = |host: &String| centers.id_of(&vcenter, host);
        let new: BTreeSet<_> = hosts.values().filter(|host| !self.names.contains_key(&id_of(host))).cloned().collect();
        match vcenter.host_names(&Vec::from_iter(new)).await {
            Ok(names) => self.names.extend(names.into_iter().map(|(host, name)| (id_of(&host), name))),
            Err(error) => tracing::debug!(error = Problem::chain(&error), "hosts are called by their ids"),
        }
        let named = |id: String| Host { name: self.names.get(&id).unwrap_or(&id).clone(), id };
        let machine = |id: String| Machine { server: center.server().to_owned(), id };
        Ok(hosts.into_iter().map(|(id, host)| (machine(id), named(id_of(&host)))).collect())
    }
}

fn late() -> String {
    format!("it was not found out within {} s", WITHIN.as_secs())
}

/// The datastore of a disk, by its managed object id.
async fn datastore_of(disk: &DiskId, centers: &Centers) -> Result<String, Problem> {
    let vcenter = centers.of_disk(disk).await?;
    let found = vcenter.retrieve_disk(disk).await;
    let found = found.map_err(|e| from_vsphere("find the datastore of a disk that is restored", &e))?;
    Ok(centers.id_of(&vcenter, &found.datastore))
}

/// The virtual machine with the UUID that a node names, where there is exactly one. Of several vCenters, one that is silent matters
/// only where no other has it.
async fn machine_of(node: &str, uuid: Option<String>, centers: &Centers) -> Result<Option<Machine>, Problem> {
    let Some(uuid) = uuid else { return Ok(None) };
    let (mut machines, mut silent) = (Vec::new(), None);
    for found in join_all(centers.all().map(|center| machines_at(center, node, &uuid))).await {
        match found {
            Ok(found) => machines.extend(found),
            Err(problem) => silent = silent.or(Some(problem)),
        }
    }
    match (<[Machine; 1]>::try_from(machines), silent) {
        (Ok([machine]), _) => Ok(Some(machine)),
        (Err(_), Some(problem)) => Err(problem),
        (Err(_), None) => Ok(None),
    }
}

/// The virtual machines of one vCenter with the UUID that a node names.
async fn machines_at(center: &Center, node: &str, uuid: &str) -> Result<Vec<Machine>, Problem> {
    let act = format!("find the virtual machine of node {node}");
    let ask = |vcenter: Vcenter| async move { vcenter.machine_ids_with_uuid(uuid).await };
    let found = center.ask(&act, OF_SEVERAL, ask).await?;
    Ok(found.into_iter().map(|id| Machine { server: center.server().to_owned(), id }).collect())
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
    match ctx.migrations.disk_of(&volume).await {
        Ok(of_it) => Ok((of_it == *disk).then_some(name)),
        Err(problem) if problem.again == Again::Never => Ok(None),
        Err(problem) => Err(problem),
    }
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
