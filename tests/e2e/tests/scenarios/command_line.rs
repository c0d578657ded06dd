//! The command line on a cluster: what runs, and what can be restored.

use anyhow::{Context as _, Result, ensure};
use api::SnapshotPhase;
use e2e::World;
use serde_json::Value;

crate::scenarios![the_command_line_tells_what_a_cluster_is_doing, the_command_line_finds_every_restore_point];

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
    let arguments = ["list", "--path", &path, "--velero-namespace", world.velero(), "--output", "json"];
    // other scenarios break their repositories: that is told beside, and does not hide this one
    let told: Value = serde_json::from_slice(&world.output("vsphere-backup", &arguments).await?.stdout)?;
    let found = told.as_array().or_else(|| told["restorePoints"].as_array()).context("a list of restore points")?;
    ensure!(found.len() == 1, "one restore point: {found:?}");
    ensure!(found[0]["backupRepository"] == snapshot.spec.backup_repository.as_str(), "it says {}", found[0]);
    let table = world.output("kubectl", &["vsphere-backup", "list", "--path", &path]).await?;
    let table = String::from_utf8(table.stdout)?;
    ensure!(table.contains(&path[1..]) && table.contains(&snapshot.spec.backup_repository), "it shows\n{table}");
    ensure!(found[0]["tags"]["claim"] == path[1..], "the restore point names its claim: {}", found[0]);
    Ok(())
}
