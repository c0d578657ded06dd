//! Chosen per volume: which claims of a namespace a backup takes, and whether it says why it left the others.

use anyhow::{Context as _, Result, ensure};
use e2e::{DEADLINE, Namespace, World, nothing_left, wait_until};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{digests, filled, lose, same};

crate::scenarios![
    each_claim_of_a_namespace_is_taken_or_left_as_its_owner_says,
    where_file_system_backup_takes_all_the_opted_out_claim_is_ours,
    a_backup_of_claims_and_nothing_else_holds_their_data,
];

/// The policies of P-17: first match wins.
const POLICIES: &str = "version: v1
volumePolicies:
- conditions: {pvcLabels: {tier: cache}}
  action: {type: skip}
- conditions: {pvcLabels: {tier: files}}
  action: {type: fs-backup}
- conditions: {pvcLabels: {tier: disks}}
  action: {type: snapshot}
";

/// P-17: one backup of claims that are excluded by label, opted in to file-system backup, under policies, of another
/// driver and unbound: two are taken, each other is left alone, and the log says of each why.
async fn each_claim_of_a_namespace_is_taken_or_left_as_its_owner_says(world: World) -> Result<()> {
    let shop = world.namespace("vchoice").await?;
    let name = shop.name();
    config_map(&world, name, "menu", json!({"soup": "leek"})).await?;
    config_map(&world, name, "hours", json!({"monday": "closed"})).await?;
    let taken = shop.claim("data").mib(3).create().await?;
    taken.fill_random(201)?;
    shop.claim("excluded").mib(1).label("velero.io/exclude-from-backup", "true").create().await?;
    shop.claim("cache").mib(1).label("tier", "cache").create().await?;
    shop.claim("files").mib(1).label("tier", "files").create().await?;
    shop.claim("opted-in").mib(1).create().await?;
    // a policy has the last word, whatever the pod says
    let disks = shop.claim("disks").mib(2).label("tier", "disks").create().await?;
    disks.fill_random(202)?;
    mounted(&world, &shop, "disks", json!({"backup.velero.io/backup-volumes": "disks"}), &["disks"]).await?;
    mounted(&world, &shop, "opted-in", json!({"backup.velero.io/backup-volumes": "opted-in"}), &["opted-in"]).await?;
    shop.claim("pending").mib(1).class("vsphere-wffc").create_unbound().await?;
    let foreign = foreign(&world, &shop).await?;
    let policies = format!("{name}-policies");
    config_map(&world, world.velero(), &policies, json!({"policies": POLICIES})).await?;

    let velero = world.velero_server();
    velero.back_up(name, name, &["--resource-policies-configmap", &policies]).await?;
    // no node agent runs in a lab, so what is Velero's own to copy is an error of Velero's
    velero.backup_is(name, "PartiallyFailed").await?;
    let log = velero.log(name).await?;
    for (claim, why) in [
        ("files", "a volume policy gives it to Velero's file-system backup"),
        ("opted-in", "Velero's file-system backup copies it as volume opted-in of pod opted-in-user"),
        ("foreign", "is left alone"),
        ("pending", "is Pending and has no volume; it is backed up without data"),
    ] {
        says(&log, &[&format!("claim {name}/{claim}"), why])?;
    }
    // these two never come to us: it is Velero that says why
    says(&log, &["Excluding item because it has label velero.io/exclude-from-backup=true"])?;
    says(&log, &["velero.io/vsphere-pvc-backupper", &format!("{name}/cache for the matched resource policies")])?;
    let asked = world.snapshots_of(name).await?;
    ensure!(asked.len() == 2, "{} disks were snapshotted", asked.len());
    only_the_node_agent_is_missing(&log, "opted-in")?;
    nothing_left(&world, &shop, 2).await?;

    let taken = [taken, disks];
    let before = digests(&taken)?;
    // a claim that a pod uses is not deleted
    let pods: Api<Pod> = Api::namespaced(world.client(), name);
    pods.delete("disks-user", &DeleteParams::default().grace_period(0)).await?;
    lose(&taken).await?;
    velero.restore(name, name, &["--include-resources", "persistentvolumeclaims,configmaps"]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &before).await?;
    Api::<PersistentVolume>::all(world.client()).delete(&foreign, &DeleteParams::default()).await?;
    let maps: Api<ConfigMap> = Api::namespaced(world.client(), world.velero());
    maps.delete(&policies, &DeleteParams::default()).await?;
    nothing_left(&world, &shop, 2).await
}

/// Velero's error lines are about the volume that only a node agent could copy.
fn only_the_node_agent_is_missing(log: &str, volume: &str) -> Result<()> {
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("level=error")).collect();
    let meant = |line: &&str| line.contains("node-agent") || line.contains("daemonset pod");
    ensure!(!errors.is_empty() && errors.iter().all(meant), "errors about {volume}:\n{errors:#?}");
    Ok(())
}

/// A line of a log has all these words.
pub(crate) fn says(log: &str, words: &[&str]) -> Result<()> {
    let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    let ours: Vec<_> = log.lines().filter(|l| l.contains("pluginName=velero-plugin-for-vsphere")).collect();
    ensure!(found, "no line of the log says {words:?}; ours are {ours:#?}");
    Ok(())
}

async fn where_file_system_backup_takes_all_the_opted_out_claim_is_ours(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "voptout").await?;
    let name = shop.name();
    let opt_out = json!({"backup.velero.io/backup-volumes-excludes": "data-0"});
    mounted(&world, &shop, "data-0", opt_out, &["data-0", "data-1"]).await?;
    let velero = world.velero_server();

    let without = format!("{name}-without");
    velero.back_up(&without, name, &["--snapshot-volumes=false"]).await?;
    velero.backup_is(&without, "Completed").await?;
    let log = velero.log(&without).await?;
    for claim in &claims {
        says(&log, &[&format!("claim {name}/{}", claim.name), "the backup was made with --snapshot-volumes=false"])?;
    }
    nothing_left(&world, &shop, 0).await?;

    velero.back_up(name, name, &["--default-volumes-to-fs-backup"]).await?;
    velero.backup_is(name, "PartiallyFailed").await?;
    let log = velero.log(name).await?;
    says(&log, &[&format!("claim {name}/data-1"), "file-system backup copies it as volume data-1"])?;
    only_the_node_agent_is_missing(&log, "data-1")?;
    nothing_left(&world, &shop, 1).await?;
    let told = velero.describe(name).await?;
    ensure!(told.contains("velero.io/vsphere-pvc-backupper"), "the other one is ours:\n{told}");
    Ok(())
}

/// P-11: our action asks for no additional items, so no rule of a backup can take our data away, no error in another
/// item can fail a claim, and nothing has to be marked as *must include*.
async fn a_backup_of_claims_and_nothing_else_holds_their_data(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vclaims").await?;
    let before = digests(&claims)?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &["--include-resources", "persistentvolumeclaims"]).await?;
    let status = velero.backup_is(name, "Completed").await?;
    ensure!((status.errors, status.warnings) == (0, 0), "nothing was missing: {status:?}");
    nothing_left(&world, &shop, 2).await?;
    let tarball = world.folder().join("s3").join(world.var("S3_BUCKET")).join(format!("backups/{name}/{name}.tar.gz"));
    let path = format!("resources/persistentvolumeclaims/namespaces/{name}/data-0.json");
    let stored = world.run("tar", &["xzOf", tarball.to_str().context("a path in UTF-8")?, &path]).await?;
    let stored: Value = serde_json::from_str(&stored)?;
    let marks = stored["metadata"]["annotations"].as_object().context("the record is an annotation")?;
    ensure!(!marks.contains_key("backup.velero.io/must-include-additional-items"), "it is marked: {marks:?}");
    lose(&claims).await?;
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &before).await?;
    nothing_left(&world, &shop, 2).await
}

pub(super) async fn config_map(world: &World, namespace: &str, name: &str, data: Value) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(world.client(), namespace);
    let map = serde_json::from_value(json!({"metadata": {"name": name}, "data": data}))?;
    maps.create(&PostParams::default(), &map).await?;
    Ok(())
}

/// A pod that mounts claims, each as a volume of its name, and that runs as far as Velero can see.
async fn mounted(world: &World, shop: &Namespace, name: &str, annotations: Value, claims: &[&str]) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(world.client(), shop.name());
    let volume = |claim: &&str| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
    let name = format!("{name}-user");
    let pod = serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "nodeName": "node-a",
            "containers": [{"name": "app", "image": "app"}],
            "volumes": claims.iter().map(volume).collect::<Vec<_>>(),
        },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let runs = Patch::Merge(json!({"status": {"phase": "Running"}})); // what a kubelet would say
    pods.patch_status(&name, &PatchParams::default(), &runs).await?;
    Ok(())
}

/// A claim that is bound to a volume of another driver; returns the volume's name.
pub(super) async fn foreign(world: &World, shop: &Namespace) -> Result<String> {
    let volume = format!("{}-foreign", shop.name());
    let size = json!({"storage": "1Mi"});
    let volumes: Api<PersistentVolume> = Api::all(world.client());
    let object = serde_json::from_value(json!({
        "metadata": {"name": volume},
        "spec": {
            "capacity": size, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": shop.name(), "name": "foreign"},
            "csi": {"driver": "disks.example.io", "volumeHandle": "4711"},
        },
    }))?;
    volumes.create(&PostParams::default(), &object).await?;
    let claim = serde_json::from_value(json!({
        "metadata": {"name": "foreign"},
        "spec": {
            "storageClassName": "", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": size}, "volumeName": volume,
        },
    }))?;
    shop.claims().create(&PostParams::default(), &claim).await?;
    wait_until(&shop.claims(), "foreign", DEADLINE, "is Bound", |c: Option<&PersistentVolumeClaim>| {
        c.and_then(|c| c.status.as_ref()?.phase.as_deref()) == Some("Bound")
    })
    .await?;
    Ok(volume)
}
