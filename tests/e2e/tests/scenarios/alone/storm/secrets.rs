//! No password and no key stands where others read, or would stand in a core dump.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use api::{BackupRepository, BackupRepositoryClaim, CloneFromSnapshot, DeleteSnapshot, Download, Snapshot, Upload};
use e2e::{BY_HAND, DEADLINE, World};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

/// Variables of the lab that hold secrets.
const SECRETS: [&str; 4] =
    ["AWS_SECRET_ACCESS_KEY", "LAB_S3_SECOND_SECRET_ACCESS_KEY", "VCENTER_PASSWORD", "RESTIC_PASSWORD"];
/// Programs whose logs and arguments are ours to answer for.
const PROGRAMS: [&str; 4] = ["backup-driver", "data-manager-node-a", "data-manager-node-b", "velero"];

/// Programs of ours that know secrets, by the name of their executable.
const EXECUTABLES: [&str; 4] = ["backup-driver", "datamgr", "vddk-helper", "velero-plugin-for-vsphere"];
/// Pause between two looks at the processes: some live for less than a second.
const LOOK: Duration = Duration::from_millis(50);
/// How long a program may take from its start until it has set its limits.
const BEGINS: Duration = Duration::from_secs(2);

/// Looks at processes until each program of ours was seen at work: the process with the disk library and Velero's plugin come and go.
pub(super) async fn stand_in_no_process(world: &World) -> Result<()> {
    let due = tokio::time::Instant::now() + DEADLINE;
    let mut seen = BTreeSet::new();
    loop {
        seen.extend(looked_at(world).await?);
        let missing: Vec<&str> = EXECUTABLES.into_iter().filter(|program| !seen.contains(*program)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        ensure!(
            tokio::time::Instant::now() < due,
            "no process of {missing:?} was seen, so its secrets are not shown safe"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// The executables of those processes of ours that live now; each has no secret among its arguments and variables, and leaves no core dump.
async fn looked_at(world: &World) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let process = process.path();
        let Some(program) = program_of_ours(&process).filter(|_| is_of_lab(world, &process)) else { continue };
        let name = format!("{} {program}", process.display());
        is_clean(world, &format!("the arguments of {name}"), &read(&process, "cmdline"))?;
        is_clean(world, &format!("the environment of {name}"), &read(&process, "environ"))?;
        let since = tokio::time::Instant::now();
        while may_dump(&process) {
            ensure!(since.elapsed() < BEGINS, "{name} may leave a core dump: {}", read(&process, "limits"));
            tokio::time::sleep(LOOK).await;
        }
        if !read(&process, "limits").is_empty() {
            seen.push(program); // else it has ended meanwhile
        }
    }
    Ok(seen)
}

/// Whether it lives and its limit allows a core dump. One that has ended, or ends, shows no limits.
fn may_dump(process: &Path) -> bool {
    let limits = read(process, "limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let allowed: Vec<&str> = core.unwrap_or_default().split_whitespace().skip(4).take(2).collect();
    let is_none = allowed.len() == 2 && allowed.iter().all(|bytes| ["0", "1"].contains(bytes));
    !limits.is_empty() && !is_none
}

/// Whether it, or what has started it, belongs to the lab: the process with the disk library has variables of its own.
fn is_of_lab(world: &World, process: &Path) -> bool {
    let folder = world.folder().to_string_lossy().into_owned();
    let status = read(process, "status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default().trim();
    read(process, "environ").contains(&folder) || read(&Path::new("/proc").join(parent), "environ").contains(&folder)
}

/// A file of a process; empty when that has ended.
fn read(process: &Path, file: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(process.join(file)).unwrap_or_default()).into_owned()
}

/// Looks through logs and arguments of our programs, and through the events and jobs of the whole cluster.
pub(super) async fn are_told_nowhere(world: &World) -> Result<()> {
    for program in PROGRAMS {
        let log = world.logs(program).await?;
        ensure!(!log.is_empty(), "{program} has logged nothing: is this its log?");
        is_clean(world, &format!("the log of {program}"), &log)?;
    }
    let running = looked_at(world).await?.len();
    ensure!(running >= 3, "{running} of our programs were found: a driver and two data-managers run");
    let (client, all) = (world.client(), ListParams::default());
    // those that scenarios made hold keys in clear, as the original's; what our programs made of them as well
    let mut claims = Api::<BackupRepositoryClaim>::all(client.clone()).list(&all).await?.items;
    claims.retain(|claim| !claim.name_any().starts_with(BY_HAND));
    let mut repositories = Api::<BackupRepository>::all(client.clone()).list(&all).await?.items;
    repositories.retain(|repository| !repository.backup_repository_claim.contains(BY_HAND));
    let told = [
        serde_json::to_string(&claims)?,
        serde_json::to_string(&repositories)?,
        serde_json::to_string(&Api::<Event>::all(client.clone()).list(&all).await?)?,
        serde_json::to_string(&Api::<Snapshot>::all(client.clone()).list(&all).await?)?,
        serde_json::to_string(&Api::<CloneFromSnapshot>::all(client.clone()).list(&all).await?)?,
        serde_json::to_string(&Api::<DeleteSnapshot>::all(client.clone()).list(&all).await?)?,
        serde_json::to_string(&Api::<Upload>::all(client.clone()).list(&all).await?)?,
        serde_json::to_string(&Api::<Download>::all(client).list(&all).await?)?,
    ];
    told.iter().try_for_each(|objects| is_clean(world, "an event, a job or what describes a repository", objects))
}

/// The name of its executable, where that is one of ours that knows secrets.
fn program_of_ours(process: &Path) -> Option<String> {
    let program = std::fs::read_link(process.join("exe")).ok()?;
    let name = program.file_name()?.to_string_lossy().into_owned();
    EXECUTABLES.contains(&name.as_str()).then_some(name)
}

fn is_clean(world: &World, what: &str, text: &str) -> Result<()> {
    for secret in SECRETS {
        let value = world.var(secret);
        let at = text.find(value);
        let line = at.and_then(|at| text[..at].lines().last()).unwrap_or_default();
        ensure!(at.is_none(), "{what} holds {secret}, behind {line:?}");
    }
    Ok(())
}
