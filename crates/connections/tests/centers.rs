//! Two vCenters in one Secret, against a real API server and two vCenter doubles: what a user would lose is work on the disks of one
//! while the other is away, and disks that are taken for gone because nobody asked where they are.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use api::{Reason, Snapshot, SnapshotSpec, names};
use connections::Vcenters;
use connections::leftovers::{Disks, disk_snapshots};
use disk::{DiskId, DiskSnapshot};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{PersistentVolume, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};
use lab::{Control, Lab, Options, VELERO_NAMESPACE};
use lifecycle::Problem;
use lifecycle::orphans::Installation;
use serde_json::json;
use vsphere::{ClusterFlavor, Deleted, NewVolume, Vcenter};

const SECOND: &str = "second-vcenter";
const INSTALLATION: Installation<'_> = Installation { cluster: "lab", namespace: VELERO_NAMESPACE };
/// Longest time for one thing that vCenter does.
const WITHIN: Duration = Duration::from_secs(60);

struct Stage {
    lab: Lab,
    vcenters: Vcenters,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut lab = Lab::start(Options::in_folder(folder.path())).await.unwrap();
        lab.start_process(SECOND, &BTreeMap::new()).await.unwrap();
        let vcenters = Vcenters::new(lab.client().clone(), VELERO_NAMESPACE);
        let stage = Self { lab, vcenters, _folder: folder };
        let [first, second] = ["vcenter", SECOND].map(|name| stage.section(name));
        stage.configure(&format!("{first}{second}")).await;
        stage
    }

    /// What the Secret says of one of the vCenters; both have the same certificate and account, under two names.
    fn section(&self, name: &str) -> String {
        let first = self.lab.csi_configuration().unwrap();
        let port = |name| self.lab.facts().port(name).unwrap();
        match name {
            SECOND => {
                let section = &first[first.find("[VirtualCenter").unwrap()..];
                let ports = (port("vcenter").to_string(), port(SECOND).to_string());
                section.replace("127.0.0.1", "localhost").replace(&ports.0, &ports.1)
            }
            _ => first,
        }
    }

    async fn configure(&self, text: &str) {
        let secrets: Api<Secret> = Api::namespaced(self.lab.client().clone(), VELERO_NAMESPACE);
        let patch = json!({"data": {"csi-vsphere.conf": ByteString(text.as_bytes().to_vec())}});
        secrets.patch(names::VCENTER_SECRET, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// The vCenters, once that many are known: a watch tells of the Secret.
    async fn all(&self, count: usize) -> Vec<Vcenter> {
        let ends = Instant::now() + WITHIN;
        loop {
            let centers = self.vcenters.centers().await.unwrap();
            if centers.all().len() == count {
                return centers.all().map(|center| center.client().unwrap()).collect();
            }
            assert!(Instant::now() < ends, "{count} vCenters never became known");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn disk_on(&self, vcenter: &Vcenter, name: &str) -> DiskId {
        let volume = NewVolume {
            name: name.to_owned(),
            capacity_bytes: 1 << 20,
            datastores: Vec::new(),
            storage_policy: None,
            cluster_id: "lab".to_owned(),
            cluster_flavor: ClusterFlavor::Vanilla,
        };
        vcenter.create_volume(&volume, WITHIN).await.unwrap().id
    }

    async fn server_of(&self, disk: &DiskId) -> Result<String, Problem> {
        self.vcenters.of_disk(disk).await.map(|vcenter| vcenter.config().server())
    }

    /// Where a disk is found in the end: a vCenter that was silent is not asked again at once.
    async fn server_in_the_end(&self, disk: &DiskId) -> String {
        let ends = Instant::now() + WITHIN;
        loop {
            match self.server_of(disk).await {
                Ok(server) => return server,
                Err(problem) => assert!(Instant::now() < ends, "{problem}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The disks whose snapshots nobody owns, and why disks could not be looked at.
    async fn unowned(&self, disks: &[&DiskId]) -> (Vec<DiskId>, Vec<Reason>) {
        let disks: Disks = disks.iter().map(|disk| ((*disk).clone(), PersistentVolume::default())).collect();
        let centers = self.vcenters.centers().await.unwrap();
        let looked = disk_snapshots(self.lab.client(), &centers, &disks, INSTALLATION).await;
        let (taken, problems) = looked.unwrap();
        let mut on: Vec<_> = taken.into_iter().map(|taken| taken.disk_snapshot.disk).collect();
        on.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        (on, problems.into_iter().map(|problem| problem.reason).collect())
    }

    /// A disk snapshot as the driver takes it for a Snapshot that is gone since.
    async fn leave_one(&self, disk: &DiskId) -> DiskSnapshot {
        let spec = SnapshotSpec { backup_repository: "br-1".to_owned(), ..SnapshotSpec::default() };
        let mut gone = Snapshot::new("snap-1", spec);
        gone.metadata.uid = Some("5e0c6f3e-0000-4000-8000-000000000001".to_owned());
        let vcenter = self.vcenters.of_disk(disk).await.unwrap();
        let snapshot = vcenter.create_snapshot(disk, &INSTALLATION.token(&gone), WITHIN).await.unwrap();
        DiskSnapshot { disk: disk.clone(), snapshot }
    }

    fn signal(&self, process: &str, signal: &str) {
        let pid = self.lab.processes().unwrap().into_iter().find(|record| record.name == process).unwrap().pid;
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    }

    async fn calls(&self) -> u64 {
        let calls = self.lab.control().unwrap().calls(None).await.unwrap();
        calls.as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum()
    }

    fn control_of_second(&self) -> Control {
        let port = self.lab.facts().port(&format!("{SECOND}-control")).unwrap();
        Control::new(&format!("http://127.0.0.1:{port}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn m7_10_each_disk_is_worked_on_where_it_is_and_none_is_given_up_while_a_vcenter_is_silent() {
    let mut stage = Stage::start().await;
    let servers = stage.all(2).await;
    let (near, far) = (stage.disk_on(&servers[0], "near").await, stage.disk_on(&servers[1], "far").await);
    let [first, second] = [&servers[0], &servers[1]].map(|vcenter| vcenter.config().server());
    assert!(first.starts_with("127.0.0.1:") && second.starts_with("localhost:"), "{first}, {second}");
    let (nowhere, snapshot): (DiskId, _) =
        ("2b6d0f5e-1c3a-4a55-9d0e-8c5f6a1b2c3d".parse().unwrap(), "9a2b".parse().unwrap());
    let lost = DiskSnapshot { disk: nowhere.clone(), snapshot };

    // each where it is
    assert_eq!(stage.server_of(&near).await, Ok(first.clone()));
    assert_eq!(stage.server_of(&far).await, Ok(second.clone()));
    let missing = stage.server_of(&nowhere).await.unwrap_err();
    assert_eq!(missing.reason, Reason::DiskMissing);
    assert!(missing.cause.contains(&first) && missing.cause.contains(&second), "{missing}");
    assert_eq!(stage.vcenters.delete_snapshot("delete", &lost, WITHIN).await, Ok(Deleted::AlreadyGone));
    let (taken, on_first) = (stage.leave_one(&far).await, stage.leave_one(&near).await);
    let mut both = vec![near.clone(), far.clone()];
    both.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    assert_eq!(stage.unowned(&[&near, &far, &nowhere]).await, (both, vec![]));

    // one answers nothing: the other's disks are worked on, also one that is looked for, and nothing that may be there is gone
    let new = stage.disk_on(&servers[0], "new").await;
    stage.signal(SECOND, "-STOP");
    for disk in [&near, &new] {
        let asked = Instant::now();
        assert_eq!(stage.server_of(disk).await, Ok(first.clone()));
        assert!(asked.elapsed() < Duration::from_secs(8), "it waited for the silent one: {:?}", asked.elapsed());
    }
    for disk in [&far, &nowhere] {
        let problem = stage.server_of(disk).await.unwrap_err();
        assert_eq!(problem.reason, Reason::VCenterUnreachable, "{problem}");
    }
    let of_the_rest = (vec![near.clone()], vec![Reason::VCenterUnreachable]);
    assert_eq!(stage.unowned(&[&near, &far, &nowhere]).await, of_the_rest, "the sweep of the others' disks goes on");
    for snapshot in [&taken, &lost] {
        let deleted = stage.vcenters.delete_snapshot("delete", snapshot, WITHIN).await;
        assert_eq!(deleted.map_err(|problem| problem.reason), Err(Reason::VCenterUnreachable), "{snapshot}");
    }
    stage.signal(SECOND, "-CONT");
    assert_eq!(stage.server_in_the_end(&far).await, second);
    assert_eq!(stage.vcenters.delete_snapshot("delete", &taken, WITHIN).await, Ok(Deleted::Now));
    assert_eq!(stage.vcenters.delete_snapshot("delete", &on_first, WITHIN).await, Ok(Deleted::Now));
    assert!(stage.control_of_second().disk(far.as_str()).await.unwrap().unwrap().snapshots.is_empty());

    // the other way round
    stage.lab.kill("vcenter").await.unwrap();
    assert_eq!(stage.server_of(&far).await, Ok(second.clone()));
    assert_eq!(stage.server_of(&near).await.unwrap_err().reason, Reason::VCenterUnreachable);

    // a disk that has moved is found anew
    stage.lab.kill(SECOND).await.unwrap();
    let store = |name: &str| stage.lab.place().folder.join(name).join(far.as_str());
    std::fs::rename(store(SECOND), store("vcenter")).unwrap();
    for name in [SECOND, "vcenter"] {
        stage.lab.start_process(name, &BTreeMap::new()).await.unwrap();
    }
    assert_eq!(stage.server_in_the_end(&far).await, first);

    // one vCenter alone is asked for nothing
    let alone = stage.section("vcenter");
    stage.configure(&alone).await;
    stage.all(1).await;
    let before = stage.calls().await;
    for disk in [&near, &far, &nowhere] {
        assert_eq!(stage.server_of(disk).await, Ok(first.clone()));
    }
    assert_eq!(stage.calls().await, before, "questions that one vCenter need not be asked");
    stage.vcenters.close().await;
}
