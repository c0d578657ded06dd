//! Where vCenter is: two of them in one Secret, that of a Supervisor, and none in a guest cluster.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use api::conditions::{self, READY};
use api::{ClonePhase, DeletePhase, DeleteSnapshot, DeleteSnapshotSpec, Reason, SnapshotPhase, names};
use e2e::{
    Claim, DEADLINE, Namespace, SECOND_VCENTER, World, delete_if_there, explained, nothing_left, put_right, wait_until,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use uuid::Uuid;

use super::peers::{configuration, configure, secret_elsewhere, with};
use super::{DATA_MANAGERS, back_up};

crate::scenarios![
    a_claim_is_backed_up_from_whichever_vcenter_has_its_disk_and_waits_for_no_other,
    a_supervisor_has_its_secret_elsewhere_and_its_data_manager_outside,
    a_guest_cluster_is_recognised_and_its_claims_are_refused_with_a_reason,
];

const DRIVER: &str = "backup-driver";
/// Where the CSI driver and its Secret are.
const CSI: &str = "vmware-system-csi";
/// The CSI driver's Deployment.
const CSI_DRIVER: &str = "vsphere-csi-controller";

/// Both vCenters have the same certificate and account, under two names.
async fn sections_of_both(world: &World) -> Result<String> {
    let first = configuration(world).await?;
    let section = &first[first.find("[VirtualCenter").context("a section")?..];
    let second = with(section, "port", &world.port(SECOND_VCENTER)?.to_string())?;
    Ok(format!("{first}\n{}", second.replace("127.0.0.1", "localhost")))
}

/// A Snapshot says that it waits for a vCenter that is silent, and that its disk is not given up.
async fn waits_for_its_vcenter(asked: &e2e::Snapshot) -> Result<()> {
    let waits = |seen: Option<&api::Snapshot>| {
        let status = seen.and_then(|snapshot| snapshot.status.as_ref());
        let ready = status.and_then(|status| conditions::get(&status.conditions, READY));
        ready.is_some_and(|ready| ready.reason == Reason::VCenterUnreachable.as_str())
    };
    let seen = wait_until(&asked.api(), &asked.name, DEADLINE, "waits for its vCenter", waits).await?;
    let phase = seen.and_then(|snapshot| snapshot.status?.phase);
    ensure!(phase.as_ref().is_none_or(|phase| !phase.is_terminal()), "it was given up: {phase:?}");
    Ok(())
}

/// While one vCenter is away the claim on the other one is backed up, and the one that is there is waited for.
async fn one_goes_on_without(world: &World, shop: &Namespace, away: &str, on_it: &Claim, other: &Claim) -> Result<()> {
    world.kill(away).await?;
    let work = async {
        let waits = shop.snapshot(on_it).await?;
        waits_for_its_vcenter(&waits).await.with_context(|| format!("claim {} while {away} is away", on_it.name))?;
        back_up(shop, other).await.with_context(|| format!("claim {} while {away} is away", other.name))?;
        Ok(waits)
    };
    let work: Result<_> = work.await;
    let waits = put_right(work, [world.start_process(away).await])?;
    waits.wait_for(SnapshotPhase::Uploaded).await.with_context(|| format!("{away} is there again"))?;
    Ok(())
}

/// M-7-10.
async fn a_claim_is_backed_up_from_whichever_vcenter_has_its_disk_and_waits_for_no_other(world: World) -> Result<()> {
    let shop = world.namespace("twovcs").await?;
    let near = shop.claim("near").mib(8).create().await?;
    let far = shop.claim("far").mib(8).create().await?;
    near.fill_random(81)?;
    far.fill_random(82)?;
    let before = configuration(&world).await?;
    let outcome = async {
        world.second_vcenter_with(&far).await?;
        configure(&world, &sections_of_both(&world).await?).await?;
        back_up(&shop, &near).await?;
        let snapshot = back_up(&shop, &far).await?;
        let taken = world.second_control()?.calls(far.disk.as_str(), "VslmCreateSnapshot_Task").await?;
        ensure!(taken == 1, "{taken} disk snapshots at the vCenter that has the disk");
        let left = world.second_control()?.disk(far.disk.as_str()).await?;
        ensure!(left["snapshots"] == json!([]), "its disk snapshot is left: {left}");
        shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
        let back = Claim::bound(&world, shop.name(), "back").await?;
        ensure!(back.digest()? == far.digest()?, "it came back different");
        one_goes_on_without(&world, &shop, SECOND_VCENTER, &far, &near).await?;
        one_goes_on_without(&world, &shop, "vcenter", &near, &far).await?;
        let told = world.output("vsphere-backup", &["doctor", "--velero-namespace", world.velero()]).await?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        for server in
            [format!("127.0.0.1:{}", world.port("vcenter")?), format!("localhost:{}", world.port(SECOND_VCENTER)?)]
        {
            let words = format!("vCenter {server} answers");
            ensure!(told.contains(&words), "doctor does not say `{words}`:\n{told}");
        }
        // a lab may hold volumes of other scenarios whose disks are gone
        for claim in [&near, &far, &back] {
            let words = format!("vCenter knows no disk {}", claim.disk);
            ensure!(!told.contains(&words), "doctor says that {words}:\n{told}");
        }
        anyhow::Ok(())
    };
    let outcome = outcome.await;
    let acts = [configure(&world, &before).await, world.without_second_vcenter(&far).await];
    put_right(outcome, acts)?;
    back_up(&shop, &far).await.context("a disk that was given back to the first vCenter")?;
    nothing_left(&world, &shop, 7).await
}

/// The CSI driver's controller, as far as it says that the cluster is a Supervisor.
fn csi_driver_of_a_supervisor() -> Result<Deployment> {
    let pods = json!({"labels": {"app": "csi"}});
    let variable = json!({"name": "CLUSTER_FLAVOR", "value": "WORKLOAD"});
    let container = json!({"name": CSI_DRIVER, "image": "driver", "env": [variable]});
    let deployment = json!({"metadata": {"name": CSI_DRIVER}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"app": "csi"}},
        "template": {"metadata": pods, "spec": {"containers": [container]}}}});
    Ok(serde_json::from_value(deployment)?)
}

/// M-11-1 and the detection of M-7-2: the CSI driver's Deployment says what the cluster is, the Secret lies where it keeps its own, and
/// the one data-manager runs as on a virtual machine, with vCenter's address and account from its flags.
async fn a_supervisor_has_its_secret_elsewhere_and_its_data_manager_outside(world: World) -> Result<()> {
    let shop = world.namespace("supervisor").await?;
    let claim = shop.claim("data").mib(8).create().await?;
    claim.fill_random(83)?;
    let before = configuration(&world).await?;
    let name = names::CSI_SECRETS[0];
    let deployments: Api<Deployment> = Api::namespaced(world.client(), CSI);
    let outcome = async {
        secret_elsewhere(&world, CSI, name, &before).await?;
        configure(&world, "[Global]\n").await?;
        deployments.create(&PostParams::default(), &csi_driver_of_a_supervisor()?).await?;
        let setting = |key: &str| {
            let line = before.lines().find(|line| line.trim_start().starts_with(key)).map(|line| line.split_once('='));
            let value = line.flatten().map(|(_, value)| value.trim().trim_matches('"').to_owned());
            value.with_context(|| format!("the configuration has no {key}"))
        };
        let flags = [
            "--use-secret=false".to_owned(),
            "--vcenter-address=127.0.0.1".to_owned(),
            format!("--vcenter-port={}", setting("port")?),
            format!("--vcenter-user={}", setting("user")?),
            format!("--vcenter-thumbprint={}", setting("thumbprint")?),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let password = setting("password")?;
        let env = [("NODE_NAME", "vm-1"), ("VC_PASSWORD", password.as_str()), ("METRICS_ADDRESS", "127.0.0.1:0")];
        let _outside = world.beside_with(DATA_MANAGERS[0], &flags, &env).await?;
        for inside in DATA_MANAGERS {
            world.kill(inside).await?;
        }
        world.kill(DRIVER).await?; // it looks for the flavor once in ten minutes
        world.start_process(DRIVER).await?;
        let asked = shop.snapshot(&claim).await?;
        let snapshot = asked.wait_for(SnapshotPhase::Uploaded).await?;
        let node = asked.upload().await?.status.and_then(|status| status.processing_node);
        ensure!(node.as_deref() == Some("vm-1"), "copied by {node:?}");
        shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
        let back = Claim::bound(&world, shop.name(), "back").await?;
        ensure!(back.digest()? == claim.digest()?, "it came back different");
        let log = world.logs(DRIVER).await?;
        ensure!(log.contains("cluster flavor SUPERVISOR"), "the driver does not say of what flavor the cluster is");
        let told = world.output("vsphere-backup", &["doctor", "--velero-namespace", world.velero()]).await?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let words = "cluster flavor SUPERVISOR: Deployment vmware-system-csi/vsphere-csi-controller has CLUSTER_FLAVOR `WORKLOAD`";
        ensure!(told.contains(words), "doctor does not say `{words}`:\n{told}");
        anyhow::Ok(())
    };
    let outcome = outcome.await;
    let mut acts = vec![
        delete_if_there(&deployments, CSI_DRIVER).await,
        delete_if_there(&Api::<Secret>::namespaced(world.client(), CSI), name).await,
        delete_if_there(&Api::<Role>::namespaced(world.client(), CSI), name).await,
        delete_if_there(&Api::<RoleBinding>::namespaced(world.client(), CSI), name).await,
        configure(&world, &before).await,
    ];
    for program in DATA_MANAGERS.into_iter().chain([DRIVER]) {
        let _ = world.kill(program).await; // it may not run
        acts.push(world.start_process(program).await);
    }
    put_right(outcome, acts)?;
    back_up(&shop, &claim).await.context("an ordinary cluster again")?;
    nothing_left(&world, &shop, 2).await
}

/// The first Snapshot that fails: a setting is followed within a moment, and not by what was asked in that moment.
async fn first_refused(shop: &Namespace, claim: &Claim) -> Result<(e2e::Snapshot, api::Snapshot)> {
    let due = Instant::now() + DEADLINE;
    while Instant::now() < due {
        let asked = shop.snapshot(claim).await?;
        let ended = |seen: Option<&api::Snapshot>| seen.and_then(|s| s.phase()).is_some_and(SnapshotPhase::is_terminal);
        let seen = wait_until(&asked.api(), &asked.name, DEADLINE, "ends", ended).await?.context("it is there")?;
        if seen.phase() == Some(&SnapshotPhase::SnapshotFailed) {
            return Ok((asked, seen));
        }
    }
    bail!("nothing was refused within {} s", DEADLINE.as_secs());
}

/// M-11-2: nothing is done in a guest cluster yet, and every request says so.
async fn a_guest_cluster_is_recognised_and_its_claims_are_refused_with_a_reason(world: World) -> Result<()> {
    let shop = world.namespace("guest").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(84)?;
    let snapshot = back_up(&shop, &claim).await?;
    let reason = Reason::GuestCluster;
    let words = ["this is a guest cluster", "setting cluster_flavor says so", reason.fix()];
    let outcome = async {
        world.set(names::CONFIG, &json!({"cluster_flavor": "GUEST"})).await?;
        let (asked, seen) = first_refused(&shop, &claim).await?;
        let conditions = seen.status.context("status")?.conditions;
        explained(&world, shop.name(), &asked.name, &conditions, reason, &words).await?;
        let clone = shop.clone_as(&snapshot, "back").await?;
        let seen = clone.wait_for(ClonePhase::Failed).await?;
        let conditions = seen.status.context("status")?.conditions;
        explained(&world, shop.name(), &clone.name, &conditions, reason, &words).await?;
        let deletes: Api<DeleteSnapshot> = Api::namespaced(world.client(), world.velero());
        let spec = DeleteSnapshotSpec {
            snapshot_id: snapshot.status.as_ref().and_then(|s| s.snapshot_id.clone()).context("an id")?,
            backup_repository: snapshot.spec.backup_repository.clone(),
        };
        let delete = DeleteSnapshot::new(&Uuid::new_v4().to_string(), spec);
        deletes.create(&PostParams::default(), &delete).await?;
        let name = delete.name_any();
        let ended = |seen: Option<&DeleteSnapshot>| seen.and_then(|d| d.phase()).is_some_and(DeletePhase::is_terminal);
        let seen = wait_until(&deletes, &name, DEADLINE, "ends", ended).await?.context("it is there")?;
        ensure!(seen.phase() == Some(&DeletePhase::Failed), "{:?}", seen.status);
        let conditions = seen.status.context("status")?.conditions;
        explained(&world, world.velero(), &name, &conditions, reason, &words).await?;
        world.locations_are_available().await?;
        let (velero, backup) = (world.velero_server(), shop.name());
        velero.back_up(backup, backup, &[]).await?;
        velero.backup_is(backup, "PartiallyFailed").await?;
        let log = velero.log(backup).await?;
        ensure!(log.contains(&format!("{reason}: ")), "the backup's log does not say {reason}:\n{log}");
        anyhow::Ok(())
    };
    let outcome = outcome.await;
    put_right(outcome, [world.set(names::CONFIG, &json!({"cluster_flavor": null})).await])?;
    back_up(&shop, &claim).await.context("the setting is followed without a restart")?;
    nothing_left(&world, &shop, 2).await
}
