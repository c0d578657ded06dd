//! The program as a manifest of the original starts it, before an API server that is away: it lives, logs and serves metrics.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use k8s_openapi::serde_json::Value;

/// Longest wait for a line; two busy cores are slow.
const DEADLINE: Duration = Duration::from_secs(60);

const NOBODY: &str = "apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
";

/// A process that goes with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// The program with the original's flags, and what it logs, line by line.
fn start(use_secret: &str, password: Option<&str>, folder: &Path) -> (Running, mpsc::Receiver<String>) {
    let kubeconfig = folder.join("kubeconfig");
    std::fs::write(&kubeconfig, NOBODY).unwrap();
    let flags = "--vcenter-address vc.example --vcenter-user me --vcenter-port 443 --cluster-id lab --insecure-Flag=true \
                 --client-qps=100 --client-burst 100 --profiler-address localhost:6060 --stderrthreshold ERROR \
                 --log-level info --log-format json";
    let mut started = Command::new(env!("CARGO_BIN_EXE_datamgr"));
    started.args(["-v=4", "--logtostderr", "server", use_secret]).args(flags.split_whitespace());
    started.arg("--kubeconfig").arg(&kubeconfig);
    let environment = [("NODE_NAME", "node-a"), ("VELERO_NAMESPACE", "backups"), ("METRICS_ADDRESS", "127.0.0.1:0")];
    started.env_clear().envs(environment).env("VELERO_SCRATCH_DIR", folder).env("LD_LIBRARY_PATH", "/vddkLibs");
    started.envs(password.map(|password| ("VC_PASSWORD", password)));
    let started = started.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut running = Running(started.unwrap());
    let (tell, told) = mpsc::channel();
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).all(|line| tell.send(line).is_ok()));
    (running, told)
}

fn line(told: &mpsc::Receiver<String>) -> Value {
    let line = told.recv_timeout(DEADLINE).unwrap();
    k8s_openapi::serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// M-7-13, W-49.
#[test]
fn a_manifest_of_the_original_starts_and_what_it_says_is_read_by_programs() {
    let folder = tempfile::tempdir().unwrap();
    let (_running, told) = start("--use-secret=true", None, folder.path());
    let first = line(&told);
    assert_eq!((&first["level"], &first["message"]), (&"INFO".into(), &"the data-manager starts".into()), "{first}");
    assert_eq!(first["node"], "node-a");
    let warned = line(&told);
    assert_eq!(warned["level"], "WARN");
    assert!(warned["message"].as_str().unwrap().contains("--use-secret=false"), "{warned}");

    let address = first["address"].as_str().unwrap();
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200"));
    let metrics = get(address, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("component=\"data-manager\""), "{metrics}");
}

/// M-11-1: as on a virtual machine beside a Supervisor.
#[test]
fn the_originals_flags_for_a_data_manager_outside_of_the_cluster_start_it_and_a_missing_password_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (_running, told) = start("--use-secret=false", Some("hunter2"), folder.path());
    let first = line(&told);
    assert_eq!(first["message"], "the data-manager starts");
    assert!(get(first["address"].as_str().unwrap(), "/healthz").starts_with("HTTP/1.1 200"));

    let (mut running, _told) = start("--use-secret=false", None, folder.path());
    let mut said = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!running.0.wait().unwrap().success() && said.contains("VC_PASSWORD"), "{said}");
}
