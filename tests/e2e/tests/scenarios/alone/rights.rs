//! Least privilege from the other side: the main jobs are done once, and every right of the chart's roles was used by them, as the API
//! server's audit log tells. That none is missing shows wherever something works.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use api::entity::{DiskEntity, PvcSnapshotId};
use api::{
    BackupRepository, BackupRepositoryClaim, CloneFromSnapshot, DeletePhase, DeleteSnapshot, DeleteSnapshotSpec,
    Download, Reason, Snapshot, SnapshotPhase, SnapshotSpec, Upload, UploadPhase, UploadSpec,
    WITHOUT_BACKUP_REPOSITORY, labels, names,
};
use e2e::{Claim, DEADLINE, Namespace, Program, Request, World, delete_if_there, nothing_left, put_right, wait_until};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::DATA_MANAGERS;
use super::orphans::{forget_requests, restart_driver, until};
use crate::velero::storage_locations::{Keys, Location, prefix};

crate::scenarios![every_right_of_our_accounts_is_used];

/// Rights for what the jobs below come to by chance or not at all, as [`Right::told`] has them, each with who calls it, and when.
const RARE: [(&str, &str); 14] = [
    ("get secrets ", "connections::known::Known::get, where the watch of a Secret cannot begin: the read says why"),
    ("get configmaps ", "the same"),
    ("DataManagers: get backuprepositories.", "the same"),
    (
        "list secrets velero-repo-credentials ",
        "connections::repositories, where the repositories have no key of their own",
    ),
    ("watch secrets velero-repo-credentials ", "the same"),
    (
        "Driver: get snapshots.",
        "snapshots::observe::is_unchanged, before a disk snapshot is taken for what the watch showed a while ago",
    ),
    (
        "Driver: patch persistentvolumeclaims ",
        "clones::hand::await_bound, when the volume controller has overlooked a claim",
    ),
    ("patch events.events.k8s.io ", "kube's Recorder, when an event comes again within minutes"),
    ("list cnsvspherevolumemigrations.", "connections::Migrations, for a volume that the CSI driver took over"),
    ("Driver: patch downloads.", "new_disks::note, for backups of plugin 1.0.2 and older"),
    ("DataManagers: get leases.", "operator::lease::Leases::take, of a lease that another node had or lets run out"),
    ("DataManagers: update leases.", "operator::lease::renew, in transfers that take longer than ten seconds"),
    (
        "DataManagers: get uploads.",
        "attempt::settle, when an Upload is not as the watch has shown it, or is asked to stop",
    ),
    ("DataManagers: get downloads.", "the same"),
];

async fn every_right_of_our_accounts_is_used(world: World) -> Result<()> {
    let mark = world.mark()?;
    world.nodes_name_their_machines().await?;
    let shop = world.namespace("rights").await?;
    let outcome = async {
        world.set(names::CONFIG, &json!({"uploads-per-host": "2"})).await?;
        let often = [("LEFTOVERS_SECONDS", "1"), ("ORPHAN_AGE_SECONDS", "1"), ("SWEEP_SECONDS", "1")];
        restart_driver(&world, &often).await?;
        for node in DATA_MANAGERS {
            world.kill(node).await?;
            world.start_process(node).await?;
        }
        through_velero(&world, &shop).await?;
        without_a_repository(&world, &shop).await?;
        what_lies_elsewhere_says_so(&world, &shop).await?;
        what_has_ended_goes(&world, &shop).await?;
        what_nobody_owns_goes(&world, &shop).await
    };
    let outcome = outcome.await;
    let mut acts = vec![
        world.set(names::CONFIG, &json!({"uploads-per-host": null})).await,
        world.terminate("backup-driver").await, // it gives its lease back
    ];
    let _ = world.kill("backup-driver").await; // where it did not end
    for program in DATA_MANAGERS.into_iter().chain(["backup-driver"]) {
        acts.push(world.start_process(program).await); // one that runs goes on
    }
    put_right(outcome, acts)?;

    let requests = world.requests_since(mark)?;
    let rights = rights(&world).await?;
    // W-21: what grows with the cluster is not shown to each of its nodes
    let grows = ["persistentvolumes", "persistentvolumeclaims", "pods", "*"];
    let shows_all = |right: &&Right| {
        right.program == Program::DataManagers
            && ["list", "watch", "*"].contains(&right.verb.as_str())
            && grows.contains(&right.resource.as_str())
    };
    let shown: Vec<_> = rights.iter().filter(shows_all).map(Right::told).collect();
    ensure!(shown.is_empty(), "nodes may list volumes or pods: {shown:#?}");
    let is_used = |right: &&Right| requests.iter().any(|request| right.allows(request));
    let unused: BTreeSet<String> = rights.iter().filter(|right| !is_used(right)).map(Right::told).collect();
    let is_rare = |told: &&String| RARE.iter().any(|(rare, _)| told.contains(rare));
    let idle: Vec<_> = unused.iter().filter(|told| !is_rare(told)).collect();
    ensure!(idle.is_empty(), "of {} rights nobody used these:\n{idle:#?}", rights.len());
    for (rare, caller) in RARE {
        let is_there = rights.iter().any(|right| right.told().contains(rare));
        ensure!(is_there, "no role gives `{rare}` any more: RARE need not speak of {caller}");
    }
    Ok(())
}

/// Something that an account may do.
#[derive(Debug)]
struct Right {
    program: Program,
    /// Empty is everywhere.
    namespace: String,
    /// Whether a role of the same account gives it in Velero's namespace: then the wider one must be needed elsewhere.
    is_wider_than_in: Option<String>,
    verb: String,
    group: String,
    resource: String,
    name: Option<String>,
}

impl Right {
    fn allows(&self, request: &Request) -> bool {
        request.program == self.program
            && request.code != 403
            && (&request.verb, &request.group, &request.resource) == (&self.verb, &self.group, &self.resource)
            && self.name.as_ref().is_none_or(|name| *name == request.name)
            && (self.namespace.is_empty() || self.namespace == request.namespace)
            && self.is_wider_than_in.as_ref().is_none_or(|namespace| *namespace != request.namespace)
    }

    fn told(&self) -> String {
        let name = self.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        let place = if self.namespace.is_empty() { "everywhere" } else { "in Velero's namespace" };
        let dot = if self.group.is_empty() { "" } else { "." };
        format!("{:?}: {} {}{dot}{}{name} {place}", self.program, self.verb, self.resource, self.group)
    }
}

/// What the roles in the cluster give to both programs: those that the chart has made.
async fn rights(world: &World) -> Result<Vec<Right>> {
    let roles: Api<Role> = Api::namespaced(world.client(), world.velero());
    let wide: Api<ClusterRole> = Api::all(world.client());
    let mut all = Vec::new();
    for (program, account, of_cluster) in [
        (Program::Driver, names::DRIVER, "velero-vsphere:backup-driver"),
        (Program::DataManagers, names::DATA_MANAGER, "velero-vsphere:data-manager"),
    ] {
        let here = roles.get(account).await?.rules.context("rules")?;
        let here: Vec<_> = here.iter().flat_map(|rule| of_rule(program, world.velero(), rule)).collect();
        let mut everywhere = wide.get(of_cluster).await?.rules.context("rules")?;
        everywhere.retain(|rule| rule.resources.is_some());
        for mut right in everywhere.iter().flat_map(|rule| of_rule(program, "", rule)) {
            let is_here = |other: &Right| {
                other.name.is_none()
                    && (&other.verb, &other.group, &other.resource) == (&right.verb, &right.group, &right.resource)
            };
            right.is_wider_than_in = here.iter().any(is_here).then(|| world.velero().to_owned());
            all.push(right);
        }
        all.extend(here);
    }
    Ok(all)
}

fn of_rule(program: Program, namespace: &str, rule: &PolicyRule) -> Vec<Right> {
    let names = rule.resource_names.clone().unwrap_or_default();
    let names: Vec<_> = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
    let mut rights = Vec::new();
    for verb in &rule.verbs {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                rights.extend(names.iter().map(|name| Right {
                    program,
                    namespace: namespace.to_owned(),
                    is_wider_than_in: None,
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                }));
            }
        }
    }
    rights
}

/// A backup to a location of its own, a restore of a claim that waits for its first pod, the deletion; then the location goes.
async fn through_velero(world: &World, shop: &Namespace) -> Result<()> {
    let claim = shop.claim("late").mib(2).class("vsphere-wffc").node("node-a").create().await?;
    claim.fill_random(401)?;
    claim.attach("node-a").await?;
    let (name, velero) = (shop.name(), world.velero_server());
    let config = [("s3Url", world.var("S3_ENDPOINT").to_owned()), ("profile", "lab".to_owned())];
    let location = Location::create(world, name, &Keys::of_lab(world), &config, json!({})).await?;
    velero.back_up(name, name, &["--storage-location", name]).await?;
    velero.backup_is(name, "Completed").await?;
    let before = claim.digest()?;
    claim.detach().await?;
    claim.delete().await?;
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    ensure!(Claim::bound(world, name, "late").await?.digest()? == before, "it came back different");

    let claims: Api<BackupRepositoryClaim> = Api::namespaced(world.client(), world.velero());
    let of_location = |claim: &&BackupRepositoryClaim| {
        claim.repository_parameters.get("storagePrefix").is_some_and(|found| *found == prefix(name))
    };
    let all = claims.list(&ListParams::default()).await?.items;
    let unasked = all.iter().find(of_location).context("the plugin made a claim for the location")?;
    location.remove(world, shop).await?;
    let clones = shop.clones();
    for clone in clones.list(&ListParams::default()).await?.items {
        delete_if_there(&clones, &clone.name_any()).await?; // the driver's sweep comes once a second
    }
    let downloads: Api<Download> = Api::namespaced(world.client(), world.velero());
    for download in downloads.list(&ListParams::default()).await?.items {
        delete_if_there(&downloads, &download.name_any()).await?;
    }
    forget_requests(world, shop, unasked.backup_repository.as_deref().context("it was answered")?).await?;
    until("the claim of the location is gone", || async { Ok(claims.get_opt(&unasked.name_any()).await?.is_none()) })
        .await
}

/// An Upload and a DeleteSnapshot of their own, which mean the storage location `default`.
async fn without_a_repository(world: &World, shop: &Namespace) -> Result<()> {
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(402)?;
    // the driver makes the repository; here for the same bucket
    shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
    let local = shop.snapshot_of(&claim.name, "").await?.wait_for(SnapshotPhase::Snapshotted).await?;
    let id = local.status.and_then(|status| status.snapshot_id).context("an id")?;
    let taken = id.parse::<PvcSnapshotId>()?.disk_snapshot;
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let spec = UploadSpec {
        snapshot_id: Some(DiskEntity::from(taken.clone()).to_string()),
        snapshot_reference: Some(format!("{}/nobody", shop.name())),
        ..UploadSpec::default()
    };
    let upload = names::upload(&taken.snapshot);
    uploads.create(&PostParams::default(), &Upload::new(&upload, spec)).await?;
    wait_until(&uploads, &upload, DEADLINE, "is in the location default", |upload| {
        upload.and_then(Upload::phase) == Some(&UploadPhase::Completed)
    })
    .await?;
    let deletes: Api<DeleteSnapshot> = Api::namespaced(world.client(), world.velero());
    let warned = async || anyhow::Ok(world.logs("backup-driver").await?.matches("a deletion was not noted").count());
    let before = warned().await?;
    let spec = DeleteSnapshotSpec { snapshot_id: id, backup_repository: WITHOUT_BACKUP_REPOSITORY.to_owned() };
    let name = names::delete_snapshot(uuid::Uuid::new_v4());
    deletes.create(&PostParams::default(), &DeleteSnapshot::new(&name, spec)).await?;
    wait_until(&deletes, &name, DEADLINE, "is done", |delete| {
        delete.and_then(DeleteSnapshot::phase) == Some(&DeletePhase::Completed)
    })
    .await?;
    ensure!(warned().await? == before, "the log warns that a deletion was not noted, which no object could note");
    nothing_left(world, shop, 1).await
}

/// Objects in a namespace where nobody reads their kinds.
async fn what_lies_elsewhere_says_so(world: &World, shop: &Namespace) -> Result<()> {
    let asked =
        json!({"metadata": {"name": "astray"}, "spec": {"snapshotID": "ivd:d:s", "backupRepository": "br-gone"}});
    let claim = json!({"metadata": {"name": "astray"}, "repositoryDriver": "x", "repopsitoryParameters": {}, "allowedNamespaces": []});
    says_where_it_lies::<Upload>(world, shop, asked.clone()).await?;
    says_where_it_lies::<Download>(world, shop, asked.clone()).await?;
    says_where_it_lies::<DeleteSnapshot>(world, shop, asked).await?;
    says_where_it_lies::<BackupRepositoryClaim>(world, shop, claim).await
}

/// A kind of ours whose objects lie in namespaces.
trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + Serialize
    + DeserializeOwned
    + Send
    + 'static
{
}
impl Kind for Snapshot {}
impl Kind for CloneFromSnapshot {}
impl Kind for Upload {}
impl Kind for Download {}
impl Kind for DeleteSnapshot {}
impl Kind for BackupRepositoryClaim {}

async fn says_where_it_lies<K: Kind>(world: &World, shop: &Namespace, object: Value) -> Result<()> {
    let api: Api<K> = Api::namespaced(world.client(), shop.name());
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    let says_so = |object: Option<&K>| {
        let told = object.and_then(|object| serde_json::to_value(object).ok()).unwrap_or_default();
        told["status"]["conditions"][0]["reason"] == Reason::WrongNamespace.as_str()
    };
    wait_until(&api, "astray", DEADLINE, "says where it lies", says_so).await?;
    delete_if_there(&api, "astray").await
}

/// Makes an object of each kind that ended two days ago, and waits until they are gone.
async fn what_has_ended_goes(world: &World, shop: &Namespace) -> Result<()> {
    let ended = json!({"phase": "Completed", "completionTimestamp": "2026-01-01T00:00:00Z"});
    let spec = SnapshotSpec { backup_repository: "br-gone".to_owned(), ..SnapshotSpec::default() };
    let snapshot = json!({"metadata": {"name": "old"}, "spec": spec, "status": {
        "phase": "Uploaded", "completionTimestamp": ended["completionTimestamp"]}});
    ended_long_ago::<Snapshot>(world, shop.name(), snapshot).await?;
    let asked = json!({
        "snapshotID": "ivd:d:s", "backupRepository": "br-gone", "apiGroup": "", "kind": "PersistentVolumeClaim", "cloneCancel": false,
    });
    let object = |spec: &Value| json!({"metadata": {"name": "old"}, "spec": spec, "status": ended});
    ended_long_ago::<CloneFromSnapshot>(world, shop.name(), object(&asked)).await?;
    ended_long_ago::<DeleteSnapshot>(world, world.velero(), object(&asked)).await?;
    ended_long_ago::<Upload>(world, world.velero(), object(&json!({"snapshotID": "ivd:d:s"}))).await?;
    ended_long_ago::<Download>(world, world.velero(), object(&json!({"snapshotID": "ivd:d:s"}))).await
}

async fn ended_long_ago<K: Kind>(world: &World, namespace: &str, object: Value) -> Result<()> {
    let api: Api<K> = Api::namespaced(world.client(), namespace);
    let status = Patch::Merge(json!({"status": object["status"]}));
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    match api.patch_status("old", &PatchParams::default(), &status).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {} // its status is a part of the object, and was written with it
        patched => drop(patched?),
    }
    let gone = |object: Option<&K>| object.is_none();
    wait_until(&api, "old", DEADLINE, "is gone: it ended long ago", gone).await.map(drop)
}

/// A lease whose transfer is gone, and a BackupRepository whose claim is deleted.
async fn what_nobody_owns_goes(world: &World, shop: &Namespace) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(world.client(), world.velero());
    for name in [names::upload_lease("gone"), names::download_lease("gone")] {
        let lease = json!({
            "metadata": {"name": name, "labels": labels::ours()},
            "spec": {"holderIdentity": "a-node", "leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00.000000Z"},
        });
        leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
        wait_until(&leases, &name, DEADLINE, "is gone", |lease: Option<&Lease>| lease.is_none()).await?;
    }
    let described = shop.repository_with(&[]).await?;
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(world.client(), world.velero());
    let all = claims.list(&ListParams::default()).await?.items;
    let of_it = all.iter().find(|claim| claim.backup_repository.as_deref() == Some(&described)).context("its claim")?;
    claims.delete(&of_it.name_any(), &DeleteParams::default()).await?;
    let repositories: Api<BackupRepository> = Api::all(world.client());
    let gone = |found: Option<&BackupRepository>| found.is_none();
    wait_until(&repositories, &described, DEADLINE, "is gone with its claim", gone).await.map(drop)
}
