//! `tracking` against a real API server and the vCenter double: what a user would lose is pods that start.
#![allow(clippy::unwrap_used, missing_docs)] // a panic is how a test fails

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use connections::Vcenters;
use disk::{DiskId, DiskSnapshot};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use lab::{Lab, NewClaim, Options, VELERO_NAMESPACE};
use serde_json::{Value, json};
use vsphere::Vcenter;

/// How vCenter is asked for a disk's snapshots.
const LIST: &str = "VslmRetrieveSnapshotInfo";

/// How a disk's tracking is switched on, and off.
const SWITCH: &str = "VslmSetVStorageObjectControlFlags";
const BACK: &str = "VslmClearVStorageObjectControlFlags";

/// Longest time for one call to the double.
const WITHIN: Duration = Duration::from_secs(60);

/// A cluster with two nodes and two volumes.
struct Cluster {
    lab: Lab,
    vcenter: Vcenter,
    /// Nobody uses it.
    idle: DiskId,
    /// A pod on node-a uses it.
    used: DiskId,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::start(Options::in_folder(folder.path())).await.unwrap();
        let shop = lab.create_namespace("shop").await.unwrap();
        let mut disks = Vec::new();
        for name in ["idle", "used"] {
            let claim = NewClaim::new(&shop, name).mib(1).create(lab.client()).await.unwrap();
            disks.push(lab.disk_of(&shop, &claim).await.unwrap().id.parse().unwrap());
        }
        let centers = Vcenters::new(lab.client().clone(), VELERO_NAMESPACE).centers().await.unwrap();
        let vcenter = centers.only().unwrap().unwrap();
        let [idle, used] = disks.try_into().unwrap();
        let cluster = Self { lab, vcenter, idle, used, _folder: folder };
        assert!(cluster.attach(&cluster.used, "node-a"));
        cluster
    }

    /// A request to the double's control address: its status and its answer.
    fn control(&self, path: &str, body: Option<Value>) -> (String, Value) {
        self.ask(path, body.iter().flat_map(|body| ["--data".to_owned(), body.to_string()]))
    }

    fn ask(&self, path: &str, arguments: impl IntoIterator<Item = String>) -> (String, Value) {
        let url = format!("{}{path}", self.lab.facts().control_url().unwrap());
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "30", "--write-out", "\n%{http_code}", &url]);
        let output = curl.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (answer, status) = text.rsplit_once('\n').unwrap();
        (status.to_owned(), serde_json::from_str(answer).unwrap_or_default())
    }

    fn tell(&self, path: &str, body: Value) {
        let (status, answer) = self.control(path, Some(body));
        assert!(status.starts_with('2'), "{path}: {status} {answer}");
    }

    /// What happens when a pod starts: whether it can.
    fn attach(&self, disk: &DiskId, node: &str) -> bool {
        let (status, answer) = self.control("/attach", Some(json!({"disk": disk, "vm": node})));
        assert!(status.starts_with('2') || status == "409", "{status} {answer}");
        status != "409"
    }

    fn forget_faults(&self) {
        let (status, answer) = self.ask("/faults", ["--request", "DELETE"].map(str::to_owned));
        assert!(status.starts_with('2'), "{status} {answer}");
    }

    fn detach(&self, disk: &DiskId) {
        self.tell("/detach", json!({"disk": disk}));
    }

    /// How many sessions vCenter has: ours, and that of who makes volumes.
    fn sessions(&self) -> usize {
        self.control("/sessions", None).1.as_array().unwrap().len()
    }

    fn called(&self, method: &str) -> u64 {
        self.control("/calls", None).1[method].as_u64().unwrap_or_default()
    }

    /// As the vSphere cloud provider does; node-b's by the UUID that vCenter gave it.
    async fn nodes_name_their_machines(&self) {
        let nodes: Api<Node> = Api::all(self.lab.client().clone());
        for machine in self.control("/machines", None).1.as_array().unwrap() {
            let which = if machine["name"] == "node-b" { "instanceUuid" } else { "uuid" };
            let id = format!("vsphere://{}", machine[which].as_str().unwrap());
            let named = Patch::Merge(json!({"spec": {"providerID": id}}));
            nodes.patch(machine["name"].as_str().unwrap(), &PatchParams::default(), &named).await.unwrap();
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vsphere-backup"));
        command.arg("tracking").args(arguments).arg("--kubeconfig").arg(self.lab.kubeconfig());
        command.args(["--velero-namespace", VELERO_NAMESPACE]);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it and expects this exit code; gives its one document.
    fn document(&self, arguments: &[&str], code: i32) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("one document")
    }

    /// Of a document: what became of nodes a and b, of the idle disk and of the used one.
    fn steps(&self, document: &Value) -> [String; 4] {
        let line = |list: &str, field: &str, name: &str| {
            let lines = document[list].as_array().unwrap();
            let line = lines.iter().find(|line| line[field] == name).unwrap_or_else(|| panic!("{name} in {document}"));
            line["step"].as_str().unwrap_or_default().to_owned()
        };
        let (idle, used) = (self.idle.as_str(), self.used.as_str());
        [
            line("nodes", "node", "node-a"),
            line("nodes", "node", "node-b"),
            line("disks", "disk", idle),
            line("disks", "disk", used),
        ]
    }

    /// What vCenter says: of nodes a and b, of the idle disk and of the used one.
    async fn tracked(&self) -> [bool; 4] {
        let machines = self.control("/machines", None).1;
        let of_disk = async |disk: &DiskId| self.vcenter.retrieve_disk(disk).await.unwrap().tracking;
        let of_machine = |at: usize| machines[at]["tracking"].as_bool().unwrap();
        [of_machine(0), of_machine(1), of_disk(&self.idle).await, of_disk(&self.used).await]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracking_is_switched_on_and_off_without_a_pod_that_cannot_start() {
    let cluster = Cluster::start().await;
    cluster.vcenter.log_in().await.unwrap();
    let sessions = cluster.sessions();
    nothing_is_switched_while_anything_speaks_against_it(&cluster).await;
    nodes_go_first_and_a_run_that_failed_is_run_again(&cluster).await;
    a_disk_of_which_a_snapshot_may_have_been_taken_meanwhile_is_switched_back(&cluster).await;
    disks_follow_and_pods_start_on_every_node(&cluster).await;
    the_way_back_lets_pods_start_again(&cluster).await;
    assert_eq!(cluster.sessions(), sessions, "every run ended its own");
    cluster.vcenter.logout().await;
    cluster.lab.stop().await.unwrap();
}

async fn nothing_is_switched_while_anything_speaks_against_it(cluster: &Cluster) {
    let unnamed = cluster.run(&["enable", "--yes"]);
    let (told, failed) = (String::from_utf8(unnamed.stdout).unwrap(), String::from_utf8(unnamed.stderr).unwrap());
    assert_eq!(unnamed.status.code(), Some(2), "{failed}");
    assert!(
        told.contains("names no virtual machine") && failed.contains("not while a node is refused (2)"),
        "{told}{failed}"
    );

    cluster.nodes_name_their_machines().await;
    let status = cluster.document(&["status"], 0);
    assert_eq!((&status["nodes"][0]["tracking"], &status["dangers"]), (&json!(false), &json!([])), "{status}");
    let dry = cluster.run(&["enable"]);
    let told = String::from_utf8(dry.stdout).unwrap();
    assert!(dry.status.success() && told.matches("to switch on").count() == 2, "{told}");
    assert!(told.contains("nothing was changed; --yes does it") && told.contains("the template of nodes"), "{told}");

    let taken = cluster.vcenter.create_snapshot(&cluster.used, "a backup that runs", WITHIN).await.unwrap();
    let refused = cluster.document(&["enable", "--yes"], 2);
    assert_eq!(cluster.steps(&refused), ["left", "left", "left", "refused"], "{refused}");
    let snapshot = DiskSnapshot { disk: cluster.used.clone(), snapshot: taken };
    cluster.vcenter.delete_snapshot(&snapshot, WITHIN).await.unwrap();
    assert_eq!(cluster.called("ReconfigVM_Task"), 0);
    assert_eq!(cluster.tracked().await, [false; 4]);
}

async fn nodes_go_first_and_a_run_that_failed_is_run_again(cluster: &Cluster) {
    let lacking = json!({
        "method": "ReconfigVM_Task", "fault": "NoPermission", "skip": 1, "count": 1,
        "fields": {"privilegeId": "VirtualMachine.Config.ChangeTracking"},
    });
    cluster.tell("/faults", lacking);
    let half = cluster.document(&["enable", "--yes"], 1);
    assert_eq!(cluster.steps(&half), ["switched", "failed", "left", "left"], "{half}");
    assert!(half["error"].as_str().unwrap().contains("privilege `VirtualMachine.Config.ChangeTracking`"), "{half}");
    assert!(half["dangers"][0].as_str().unwrap().contains("cannot be attached to node-b any more"), "{half}");

    let rest = cluster.document(&["enable", "--yes"], 0);
    assert_eq!(cluster.steps(&rest), ["already", "switched", "left", "left"], "{rest}");
    assert_eq!(cluster.tracked().await, [true, true, false, false], "disks wait for another run");
}

/// Of a disk whose tracking begins while it has snapshots vCenter would tell untrue changes.
async fn a_disk_of_which_a_snapshot_may_have_been_taken_meanwhile_is_switched_back(cluster: &Cluster) {
    let refused = |method: &str, skip: u64| {
        json!({
            "method": method, "disk": cluster.idle, "fault": "NoPermission", "skip": skip,
            "fields": {"privilegeId": "Datastore.FileManagement"},
        })
    };
    let failed = |document: &Value, words: &str| {
        assert_eq!(cluster.steps(document), ["already", "already", "failed", "left"], "{document}");
        assert!(document.to_string().contains(words), "{document}");
    };
    // the first look is for the plan, the second right before the switch, the third right after it
    cluster.tell("/faults", refused(LIST, 2));
    failed(&cluster.document(&["enable", "--yes"], 1), "switched off again; run again when no backup runs");
    assert_eq!(cluster.tracked().await, [true, true, false, false]);

    cluster.forget_faults();
    cluster.tell("/faults", refused(LIST, 2));
    cluster.tell("/faults", refused(BACK, 0));
    failed(&cluster.document(&["enable", "--yes"], 1), "run `tracking disable` when no pod uses it");
    assert_eq!(cluster.tracked().await, [true, true, true, false], "this is what it told");
    cluster.forget_faults();
    cluster.vcenter.track_disk(&cluster.idle, false, WITHIN).await.unwrap();

    let switched = cluster.called(SWITCH);
    cluster.tell("/faults", json!({"method": SWITCH, "disk": cluster.idle, "delayMs": 5000, "count": 1}));
    let mut enable = cluster.command(&["enable", "--yes", "--output", "json"]);
    let running = enable.stdout(Stdio::piped()).spawn().unwrap();
    let due = Instant::now() + WITHIN;
    while cluster.called(SWITCH) == switched {
        assert!(Instant::now() < due, "nothing was switched");
        std::thread::sleep(Duration::from_millis(20));
    }
    let taken = cluster.vcenter.create_snapshot(&cluster.idle, "a backup that begins", WITHIN).await.unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    failed(&serde_json::from_slice(&output.stdout).unwrap(), "a snapshot was taken meanwhile");
    assert_eq!(cluster.tracked().await, [true, true, false, false]);
    cluster.forget_faults();
    let snapshot = DiskSnapshot { disk: cluster.idle.clone(), snapshot: taken };
    cluster.vcenter.delete_snapshot(&snapshot, WITHIN).await.unwrap();
}

async fn disks_follow_and_pods_start_on_every_node(cluster: &Cluster) {
    let disks = cluster.document(&["enable", "--yes"], 0);
    assert_eq!(cluster.steps(&disks), ["already", "already", "switched", "left"], "{disks}");

    cluster.detach(&cluster.used);
    for disk in [&cluster.used, &cluster.idle] {
        assert!(cluster.attach(disk, "node-b"), "pods start on every node");
        cluster.detach(disk);
    }
    assert!(cluster.attach(&cluster.used, "node-b"));
    assert_eq!(cluster.tracked().await, [true; 4], "the used one followed by itself");
}

async fn the_way_back_lets_pods_start_again(cluster: &Cluster) {
    // such as a new node whose template was forgotten
    cluster.tell("/machines", json!({"vm": "node-a", "tracking": false}));
    assert!(!cluster.attach(&cluster.idle, "node-a"), "the pod does not start");
    let told = String::from_utf8(cluster.run(&["status"]).stdout).unwrap();
    assert!(told.contains("danger: disks that are tracked (2) cannot be attached to node-a"), "{told}");

    let dry = cluster.document(&["disable"], 0);
    assert_eq!(cluster.steps(&dry), ["already", "left", "toSwitch", "left"], "{dry}");
    let back = cluster.document(&["disable", "--yes"], 0);
    assert_eq!(cluster.steps(&back), ["already", "left", "switched", "left"], "{back}");
    assert!(cluster.attach(&cluster.idle, "node-a"), "the pod starts");
    cluster.detach(&cluster.idle);
    assert_eq!(cluster.tracked().await, [false, true, false, true], "a disk in use keeps its tracking, and its node");

    cluster.detach(&cluster.used);
    let all = cluster.document(&["disable", "--yes"], 0);
    assert_eq!(cluster.steps(&all), ["already", "switched", "already", "switched"], "{all}");
    assert_eq!(cluster.tracked().await, [false; 4]);
    assert_eq!(cluster.document(&["status"], 0)["dangers"], json!([]));
}
