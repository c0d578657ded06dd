//! The program as a manifest of the original starts it, before an API server that is away: it lives, logs and serves metrics.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
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

/// M-7-13, W-49.
#[test]
fn a_manifest_of_the_original_starts_and_what_it_says_is_read_by_programs() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, NOBODY).unwrap();
    let flags = "-v=4 --logtostderr server --use-secret=false --vcenter-address vc.example --vcenter-user me \
                 --vcenter-port 443 --cluster-id lab --insecure-Flag=true --client-qps=100 --client-burst 100 \
                 --profiler-address localhost:6060 --stderrthreshold ERROR --log-level info --log-format json";
    let mut started = Command::new(env!("CARGO_BIN_EXE_datamgr"));
    started.args(flags.split_whitespace()).arg("--kubeconfig").arg(&kubeconfig);
    let environment = [("NODE_NAME", "node-a"), ("VELERO_NAMESPACE", "backups"), ("METRICS_ADDRESS", "127.0.0.1:0")];
    started.env_clear().envs(environment).env("VELERO_SCRATCH_DIR", folder.path()).env("LD_LIBRARY_PATH", "/vddkLibs");
    let mut running = Running(started.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());

    let (tell, told) = mpsc::channel();
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).all(|line| tell.send(line).is_ok()));
    let line = || -> Value {
        let line = told.recv_timeout(DEADLINE).unwrap();
        k8s_openapi::serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    let first = line();
    assert_eq!((&first["level"], &first["message"]), (&"INFO".into(), &"the data-manager starts".into()), "{first}");
    assert_eq!(first["node"], "node-a");
    let warned = line();
    assert_eq!(warned["level"], "WARN");
    assert!(warned["message"].as_str().unwrap().contains("--use-secret=false"), "{warned}");

    let address = first["address"].as_str().unwrap();
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200"));
    let metrics = get(address, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("component=\"data-manager\""), "{metrics}");
}
