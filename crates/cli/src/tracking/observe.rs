//! What the cluster and vCenter say of nodes and disks. Reads only.

use anyhow::{Result, anyhow};
use connections::Migrations;
use disk::DiskId;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::{Client, ResourceExt};
use lifecycle::snapshot::backing;
use lifecycle::tracking::{self, Facts, Machine};
use vsphere::{self, ReasonKind, Vcenter};

use crate::cluster::all;

/// Questions to vCenter at once.
const AT_ONCE: usize = 8;

/// Everything that a decision needs.
pub(crate) struct Seen {
    pub(crate) nodes: Vec<tracking::Node>,
    /// The virtual machine of each node, where there is exactly one.
    pub(crate) machines: Vec<Option<vsphere::Machine>>,
    pub(crate) disks: Vec<tracking::Disk>,
    /// Whose each disk is.
    pub(crate) volumes: Vec<Volume>,
}

/// A volume of the vSphere CSI driver.
pub(crate) struct Volume {
    pub(crate) name: String,
    /// `namespace/name` of its claim.
    pub(crate) claim: Option<String>,
}

/// Looks at all nodes and at all disks of this cluster's volumes.
///
/// What concerns one node or disk is a fact about it; what concerns vCenter as a whole ends the look.
pub(crate) async fn observe(client: &Client, vcenter: &Vcenter) -> Result<Seen> {
    let nodes: Vec<Node> = all(client).await?;
    let volumes: Vec<PersistentVolume> = all(client).await?;
    let found: Vec<_> =
        stream::iter(&nodes).map(|node| machine_of(node, vcenter)).buffered(AT_ONCE).try_collect().await?;
    let (known, machines): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let named = nodes.iter().map(ResourceExt::name_any).zip(known);
    let ours = ours(client, &volumes).await;
    let facts = stream::iter(&ours).map(|(_, disk)| facts_of(disk, vcenter)).buffered(AT_ONCE).try_collect::<Vec<_>>();
    let facts = facts.await?;
    let disks = ours.iter().zip(facts).map(|((volume, disk), facts)| tracking::Disk {
        id: disk.clone(),
        shared: is_shared(volume),
        facts,
    });
    Ok(Seen {
        nodes: named.map(|(name, machine)| tracking::Node { name, machine }).collect(),
        machines,
        disks: disks.collect(),
        volumes: ours.iter().map(|(volume, _)| Volume { name: volume.name_any(), claim: claim_of(volume) }).collect(),
    })
}

/// Those of the vSphere CSI driver, made or taken over, with their disks. One whose disk cannot be told is left out, and told of.
async fn ours<'v>(client: &Client, volumes: &'v [PersistentVolume]) -> Vec<(&'v PersistentVolume, DiskId)> {
    let migrations = Migrations::new(client.clone());
    let mut ours = Vec::new();
    for volume in volumes {
        let Ok(backing) = backing(volume) else { continue }; // somebody else's
        match migrations.disk(&backing).await {
            Ok(disk) => ours.push((volume, disk)),
            Err(problem) => tracing::warn!(%problem, "a migrated volume is not looked at"),
        }
    }
    ours
}

async fn machine_of(node: &Node, vcenter: &Vcenter) -> Result<(Machine, Option<vsphere::Machine>)> {
    let provider_id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
    let Some(uuid) = provider_id.and_then(tracking::machine_id) else { return Ok((Machine::Unnamed, None)) };
    Ok(match vcenter.machines_with_uuid(&uuid).await {
        Ok(mut found) if found.len() == 1 => (found.first().map_or(Machine::Missing, known), found.pop()),
        Ok(found) if found.is_empty() => (Machine::Missing, None),
        Ok(found) => (Machine::Several(found.len()), None),
        Err(error) => (Machine::Unreadable(of_one(&error)?), None),
    })
}

fn known(machine: &vsphere::Machine) -> Machine {
    let vsphere::Machine { hardware, tracking, snapshots, .. } = machine;
    Machine::Known { hardware: hardware.clone(), tracking: *tracking, snapshots: *snapshots }
}

impl Seen {
    /// Looks at the same disks once more.
    ///
    /// # Errors
    /// When vCenter does not answer any more; the facts are then as they were.
    pub(super) async fn look_at_disks_again(&mut self, vcenter: &Vcenter) -> Result<()> {
        let facts = stream::iter(&self.disks).map(|disk| facts_of(&disk.id, vcenter)).buffered(AT_ONCE);
        let facts: Vec<_> = facts.try_collect().await?;
        self.disks.iter_mut().zip(facts).for_each(|(disk, facts)| disk.facts = facts);
        Ok(())
    }
}

/// What vCenter says of a disk now.
pub(super) async fn facts_of(disk: &DiskId, vcenter: &Vcenter) -> Result<Facts> {
    let asked = async {
        let found = vcenter.retrieve_disk(disk).await?;
        let snapshots = vcenter.list_snapshots(disk).await?.len();
        Ok(Facts::Known { attached: found.attached, tracking: found.tracking, snapshots })
    };
    match asked.await {
        Ok(facts) => Ok(facts),
        Err(error) if vsphere::Error::reason_kind(&error) == ReasonKind::NotFound => Ok(Facts::Missing),
        Err(error) => Ok(Facts::Unreadable(of_one(&error)?)),
    }
}

/// An error that concerns one object, told as a fact about it.
///
/// # Errors
/// One that every further question would end with.
pub(super) fn of_one(error: &vsphere::Error) -> Result<String> {
    match error.reason_kind() {
        ReasonKind::LoginRefused
        | ReasonKind::CertificateUntrusted
        | ReasonKind::Unreachable
        | ReasonKind::BadConfig => Err(anyhow!("{}", error.describe())),
        _ => Ok(error.describe()),
    }
}

fn is_shared(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteMany"))
}

fn claim_of(volume: &PersistentVolume) -> Option<String> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(format!("{}/{}", claim.namespace.as_deref()?, claim.name.as_deref()?))
}
