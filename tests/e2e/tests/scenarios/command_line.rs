//! The command line on a cluster: what runs, and what can be restored.

use anyhow::{Context as _, Result, ensure};
use api::{
    BackupRepository, DeletePhase, DeleteSnapshot, DeleteSnapshotSpec, SnapshotPhase, Upload, UploadPhase, conditions,
    labels, names,
};
use e2e::{DEADLINE, World, asked, nothing_left, put_right, wait_until};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use uuid::Uuid;

crate::scenarios![
    the_command_line_tells_what_a_cluster_is_doing,
    the_command_line_finds_every_restore_point,
    a_backup_through_the_repository_of_another_namespace_is_found_deleted_and_its_space_freed,
    a_backup_whose_snapshot_was_deleted_in_the_middle_is_found_and_deleted,
];

async fn the_command_line_tells_what_a_cluster_is_doing(world: World) -> Result<()> {
    let shop = world.namespace("status").await?;
    let claim = shop.claim("data").mib(48).create().await?;
    claim.fill_random(95)?;
    world.control().slow(claim.disk.as_str(), "Read").await?;
    let asked = shop.snapshot(&claim).await?;
    asked.copying().await?;
    let told = world.run("vsphere-backup", &["status", "--namespace", shop.name()]).await;
    let as_plugin = world.run("kubectl", &["vsphere-backup", "status", "--output", "json"]).await;
    world.control().heal(claim.disk.as_str()).await?;
    let told = told?;
    for word in ["Snapshot", "Upload", "InProgress", "Uploading", "48.00 MiB", "node-"] {
        ensure!(told.contains(word), "it does not say {word}:\n{told}");
    }
    let lines: Vec<Value> = serde_json::from_str(&as_plugin?)?;
    let line = lines.iter().find(|line| line["name"] == asked.name.as_str()).context("a line for the Snapshot")?;
    ensure!(line["namespace"] == shop.name() && line["progress"]["totalBytes"] == 48 << 20, "it says {line}");
    asked.wait_for(SnapshotPhase::Uploaded).await.map(drop)
}

async fn the_command_line_finds_every_restore_point(world: World) -> Result<()> {
    let shop = world.namespace("points").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(96)?;
    let snapshot = shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
    let path = format!("/{}/{}", shop.name(), claim.name);
    let found = the_one_listed(&world, &path).await?;
    ensure!(found["backupRepository"] == snapshot.spec.backup_repository.as_str(), "it says {found}");
    let id = snapshot.status.as_ref().and_then(|s| s.snapshot_id.as_deref()).context("a snapshot id")?;
    ensure!(found["snapshotID"] == id, "a request names it {id}, and it says {found}");
    let table = world.output("kubectl", &["vsphere-backup", "list", "--path", &path]).await?;
    let table = String::from_utf8(table.stdout)?;
    ensure!(table.contains(&path[1..]) && table.contains(&snapshot.spec.backup_repository), "it shows\n{table}");
    ensure!(found["tags"]["claim"] == path[1..], "the restore point names its claim: {found}");
    Ok(())
}

/// Which namespaces a repository allows is recorded and never enforced, as with the original.
async fn a_backup_through_the_repository_of_another_namespace_is_found_deleted_and_its_space_freed(
    world: World,
) -> Result<()> {
    let shop = world.namespace("meant").await?;
    // a namespace that nobody has claimed a repository for
    let name = format!("unclaimed-{}", &Uuid::new_v4().simple().to_string()[..8]);
    let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    Api::<Namespace>::all(world.client()).create(&PostParams::default(), &object).await?;
    let other = world.known_namespace(&name);
    let claim = other.claim("data").mib(2).create().await?;
    claim.fill_random(97)?;
    other.snapshot_of(&claim.name, shop.repository()).await?.wait_for(SnapshotPhase::Uploaded).await?;

    let repositories: Api<BackupRepository> = Api::all(world.client());
    let described = repositories.get(shop.repository()).await?;
    ensure!(described.allowed_namespaces == [shop.name()], "what was asked for stays: {described:#?}");
    ensure!(
        described.namespaces() == [shop.name(), other.name()],
        "it does not say whose backups it has: {described:#?}"
    );

    let found = the_one_listed(&world, &format!("/{name}/{}", claim.name)).await?;
    ensure!(found["backupRepository"] == shop.repository(), "it says {found}");
    delete_listed(&world, &found).await?;
    nothing_left(&world, &other, 0).await?;
    world.maintain(shop.repository(), "now").await?;
    let marked = world.repository_folder(&name).join("maintenance/marked");
    let marks = std::fs::read_dir(&marked).with_context(|| format!("nobody maintained it: no {}", marked.display()))?;
    ensure!(marks.count() > 0, "no pack is marked in {}", marked.display());
    let described = repositories.get(shop.repository()).await?;
    let noted = described.metadata.annotations.as_ref().and_then(|all| all.get(labels::ALSO_FOR));
    ensure!(noted == Some(&name), "maintenance keeps what was noted: {described:#?}");

    // a repository that cannot be opened, before this one in the order
    let broken = world.repository_folder(&format!("broken-{name}"));
    std::fs::create_dir_all(&broken)?;
    std::fs::write(broken.join("config"), "no repository")?;
    std::fs::remove_dir_all(&marked)?;
    let note = |also_for: &str, asked: Value| {
        let annotations = json!({labels::ALSO_FOR: also_for, labels::MAINTAIN: asked});
        Patch::Merge(json!({"metadata": {"annotations": annotations}}))
    };
    let both = note(&format!("broken-{name},{name}"), json!("and again"));
    repositories.patch(shop.repository(), &PatchParams::default(), &both).await?;
    let told = wait_until(&repositories, shop.repository(), DEADLINE, "says that one was not maintained", |seen| {
        let said = seen.and_then(|seen| seen.status.as_ref()).map(|status| &status.conditions);
        said.and_then(|said| conditions::get(said, "Maintenance")).is_some_and(|said| said.status == "False")
    })
    .await;
    let marks = std::fs::read_dir(&marked).map(Iterator::count);
    let all_is_well = note(&name, Value::Null);
    let noted = repositories.patch(shop.repository(), &PatchParams::default(), &all_is_well).await;
    put_right(told, [noted.map(drop).map_err(Into::into), std::fs::remove_dir_all(&broken).map_err(Into::into)])?;
    let marks = marks.with_context(|| format!("one that is broken kept the others: no {}", marked.display()))?;
    ensure!(marks > 0, "one that is broken kept the others: no pack is marked in {}", marked.display());
    Ok(())
}

/// Whoever deletes a Snapshot, or its namespace, forgets the backup and stops nothing.
async fn a_backup_whose_snapshot_was_deleted_in_the_middle_is_found_and_deleted(world: World) -> Result<()> {
    let shop = world.namespace("forgotten").await?;
    let claim = shop.claim("data").mib(48).create().await?;
    claim.fill_random(98)?;
    world.control().slow(claim.disk.as_str(), "Read").await?;
    let asked = shop.snapshot(&claim).await?;
    asked.copying().await?;
    let upload = asked.upload().await?.name_any();
    let deleted = asked.api().delete(&asked.name, &DeleteParams::default()).await;
    world.control().heal(claim.disk.as_str()).await?;
    deleted?;
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    wait_until(&uploads, &upload, DEADLINE, "is Completed", |seen| {
        seen.and_then(Upload::phase) == Some(&UploadPhase::Completed)
    })
    .await?;
    nothing_left(&world, &shop, 1).await?;
    let found = the_one_listed(&world, &format!("/{}/{}", shop.name(), claim.name)).await?;
    delete_listed(&world, &found).await?;
    nothing_left(&world, &shop, 0).await
}

/// The one restore point of a claim that `list` finds.
async fn the_one_listed(world: &World, path: &str) -> Result<Value> {
    let arguments = ["list", "--path", path, "--velero-namespace", world.velero(), "--output", "json"];
    // other scenarios break their repositories: that is told beside, and does not hide this one
    let told: Value = serde_json::from_slice(&world.output("vsphere-backup", &arguments).await?.stdout)?;
    let found = told.as_array().or_else(|| told["restorePoints"].as_array()).context("a list of restore points")?;
    ensure!(found.len() == 1, "one restore point of {path}: {told:#}");
    found.first().cloned().context("one restore point")
}

/// Deletes a backup by what `list` says of it.
async fn delete_listed(world: &World, found: &Value) -> Result<()> {
    let said = |key: &str| found[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {found}"));
    let spec = DeleteSnapshotSpec { snapshot_id: said("snapshotID")?, backup_repository: said("backupRepository")? };
    let deletes: Api<DeleteSnapshot> = Api::namespaced(world.client(), world.velero());
    let name = asked(&deletes, &DeleteSnapshot::new(&names::delete_snapshot(Uuid::new_v4()), spec)).await?;
    wait_until(&deletes, &name, DEADLINE, "is Completed", |seen| {
        seen.and_then(DeleteSnapshot::phase) == Some(&DeletePhase::Completed)
    })
    .await
    .map(drop)
}
