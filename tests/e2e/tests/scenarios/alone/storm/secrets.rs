//! No password and no key stands where others read, or would stand in a core dump.

use std::path::Path;

use anyhow::{Result, ensure};
use api::{BackupRepository, BackupRepositoryClaim, CloneFromSnapshot, DeleteSnapshot, Download, Snapshot, Upload};
use e2e::{BY_HAND, World};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

/// Variables of the lab that hold secrets.
const SECRETS: [&str; 4] =
    ["AWS_SECRET_ACCESS_KEY", "LAB_S3_SECOND_SECRET_ACCESS_KEY", "VCENTER_PASSWORD", "RESTIC_PASSWORD"];
/// Programs whose logs and arguments are ours to answer for.
const PROGRAMS: [&str; 4] = ["backup-driver", "data-manager-node-a", "data-manager-node-b", "velero"];

/// Looks through logs and arguments of our programs, and through the events and jobs of the whole cluster.
pub(super) async fn are_told_nowhere(world: &World) -> Result<()> {
    for program in PROGRAMS {
        let log = world.logs(program).await?;
        ensure!(!log.is_empty(), "{program} has logged nothing: is this its log?");
        is_clean(world, &format!("the log of {program}"), &log)?;
    }
    let mut looked_at = 0;
    for process in std::fs::read_dir("/proc")?.flatten() {
        let read = |file: &str| {
            String::from_utf8_lossy(&std::fs::read(process.path().join(file)).unwrap_or_default()).into_owned()
        };
        let of_lab = read("environ").contains(&*world.folder().to_string_lossy());
        if of_lab && is_program_of_ours(&process.path()) {
            let name = format!("process {}, {}", process.path().display(), read("comm").trim());
            is_clean(world, &format!("the arguments of {name}"), &read("cmdline"))?;
            let limits = read("limits");
            if limits.is_empty() {
                continue; // it has ended meanwhile
            }
            looked_at += 1;
            let core = limits.lines().find(|line| line.starts_with("Max core file size"));
            let core: Vec<&str> = core.unwrap_or_default().split_whitespace().skip(4).collect();
            let none = core.len() > 1 && core[..2].iter().all(|bytes| ["0", "1"].contains(bytes));
            ensure!(none, "{name} may leave a core dump: {core:?}");
        }
    }
    ensure!(looked_at >= 3, "{looked_at} of our programs were found: a driver and two data-managers run");
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

/// Whether the process is a program of ours that knows secrets, by the name of its executable.
fn is_program_of_ours(process: &Path) -> bool {
    let program = std::fs::read_link(process.join("exe")).unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ["backup-driver", "datamgr", "vddk-helper"].contains(&name.as_str())
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
