//! Velero in a lab of its own: the real server and command, its S3 plugin, and the scheduler.
#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use lab::{Lab, NewClaim, Options, Processes, SECOND_BUCKET, SECOND_PREFIX, State, peer, until, wait_for};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn velero_backs_up_and_restores_a_namespace_and_a_pod_waits_for_its_volume() {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut lab = Lab::start(Options::in_folder(folder.path()).with_velero()).await.unwrap();
    println!("the lab with Velero was ready after {:.1} s", start.elapsed().as_secs_f32());

    both_locations_can_be_used(&lab).await;
    a_pod_without_a_node_is_scheduled_once_its_volume_is_there(&lab).await;
    a_namespace_comes_back(&lab, "default").await;
    velero_that_was_killed_takes_its_plugins_along_and_comes_back(&mut lab).await;
    a_namespace_comes_back(&lab, "second").await;
    let below = folder.path().join("s3").join(SECOND_BUCKET).join(SECOND_PREFIX).join("backups");
    assert!(below.is_dir(), "the second location's backups are below its prefix");

    let records = lab.processes().unwrap();
    lab.stop().await.unwrap();
    assert!(records.iter().all(|record| record.state() == State::Ended), "no process is left");
    assert_eq!(running_below(folder.path()), Vec::<PathBuf>::new(), "no plugin is left");
    assert!(Processes::new(folder.path()).all().unwrap().is_empty(), "no record is left");
}

async fn both_locations_can_be_used(lab: &Lab) {
    let said = velero(lab, &["backup-location", "get"]).await;
    let available = said.lines().filter(|line| line.contains("Available") && !line.contains("Unavailable")).count();
    assert_eq!(available, 2, "{said}");
    let plugins = velero(lab, &["plugin", "get"]).await;
    assert!(plugins.contains("velero.io/aws") && plugins.contains("ObjectStore"), "{plugins}");
}

async fn a_pod_without_a_node_is_scheduled_once_its_volume_is_there(lab: &Lab) {
    let shop = lab.create_namespace("shop").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(lab.client().clone(), &shop);
    let pod = |name: &str, claim: &str| {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "containers": [{"name": "app", "image": "app"}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
            },
        }))
        .unwrap()
    };
    let waits = pod("waits", "later");
    pods.create(&PostParams::default(), &waits).await.unwrap();
    let deadline = Duration::from_secs(30);
    let waiting = wait_for(&pods, "waits", deadline, "it waits", |pod| scheduled(pod) == Some("False")).await.unwrap();
    assert_eq!(waiting.spec.unwrap().node_name, None);
    NewClaim::new(&shop, "later").create(lab.client()).await.unwrap();
    wait_for(&pods, "waits", deadline, "it is scheduled", |pod| scheduled(pod) == Some("True")).await.unwrap();

    // the class that waits for its first pod: it is the scheduler that names the node
    pods.create(&PostParams::default(), &pod("first", "on-demand")).await.unwrap();
    NewClaim::new(&shop, "on-demand").class("vsphere-wffc").create(lab.client()).await.unwrap();
    wait_for(&pods, "first", deadline, "it is scheduled", |pod| scheduled(pod) == Some("True")).await.unwrap();
}

fn scheduled(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "PodScheduled").map(|condition| condition.status.as_str())
}

async fn a_namespace_comes_back(lab: &Lab, location: &str) {
    let shop = lab.create_namespace("shop").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(lab.client().clone(), &shop);
    let map = serde_json::from_value(json!({"metadata": {"name": "menu"}, "data": {"soup": location}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let (namespaces, place) = (format!("--include-namespaces={shop}"), format!("--storage-location={location}"));
    let begin = Instant::now();
    let said = velero(lab, &["backup", "create", &shop, &namespaces, &place, "--wait"]).await;
    assert!(said.contains("Backup completed with status: Completed"), "{said}");
    println!("backup to {location}: {:.1} s", begin.elapsed().as_secs_f32());

    let all: Api<Namespace> = Api::all(lab.client().clone());
    let uid = all.get(&shop).await.unwrap().metadata.uid.unwrap();
    all.delete(&shop, &DeleteParams::default()).await.unwrap();
    let gone = kube::runtime::wait::await_condition(all, &shop, kube::runtime::wait::conditions::is_deleted(&uid));
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the namespace goes within 60 s").unwrap();

    let begin = Instant::now();
    let said = velero(lab, &["restore", "create", &shop, "--from-backup", &shop, "--wait"]).await;
    assert!(said.contains("Restore completed with status: Completed"), "{said}");
    println!("restore from {location}: {:.1} s", begin.elapsed().as_secs_f32());
    assert_eq!(maps.get("menu").await.unwrap().data.unwrap()["soup"], location);
    let log = velero(lab, &["backup", "logs", &shop]).await;
    assert!(log.contains("Backed up a total of"), "the log can be fetched by the link that Velero hands out: {log}");
}

async fn velero_that_was_killed_takes_its_plugins_along_and_comes_back(lab: &mut Lab) {
    let plugins = lab.place().folder.join("pods/velero/plugins");
    let in_use = until(Duration::from_secs(30), "a plugin is in use", async || {
        Ok((!running_below(&plugins).is_empty()).then_some(()))
    });
    let (_, in_use) = tokio::join!(velero(lab, &["backup", "create", "killed"]), in_use);
    in_use.unwrap();
    lab.kill("velero").await.unwrap();
    let gone = async || Ok(running_below(&plugins).is_empty().then_some(()));
    until(Duration::from_secs(5), "no plugin is left", gone).await.unwrap();
    lab.start_process("velero", &BTreeMap::new()).await.unwrap();
    assert!(lab.logs("velero").unwrap().matches("--- velero started").count() == 2, "both lives are in the log");
}

/// The programs below a folder that run now.
fn running_below(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let programs = processes.filter_map(|process| std::fs::read_link(process.path().join("exe")).ok());
    programs.filter(|program| program.starts_with(&folder)).collect()
}

/// Runs the real command and returns what it said.
async fn velero(lab: &Lab, words: &[&str]) -> String {
    let program = peer("velero").unwrap().path(&lab.place().root).unwrap();
    let run = tokio::process::Command::new(program)
        .args(words)
        .env("KUBECONFIG", lab.kubeconfig())
        .env("HOME", lab.place().folder.join("home"))
        .kill_on_drop(true)
        .output();
    let out = tokio::time::timeout(Duration::from_secs(120), run).await.expect("velero ends within 120 s").unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "velero {words:?}: {said}");
    said
}
