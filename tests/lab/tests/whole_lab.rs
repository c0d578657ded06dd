//! A lab of its own, on real peers: what it promises to people and to other tests.
#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use lab::{Lab, NewClaim, Options, Place, Processes, SharedS3, State, VELERO_NAMESPACE, until};

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_both_classes_are_bound_and_nothing_outlives_the_lab() {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut lab = Lab::start(Options::in_folder(folder.path())).await.unwrap();
    println!("the lab was ready after {:.1} s", start.elapsed().as_secs_f32());

    let shop = lab.create_namespace("shop").await.unwrap();
    let at_once = NewClaim::new(&shop, "at-once").mib(17).create(lab.client()).await.unwrap();
    let later = NewClaim::new(&shop, "later").class("vsphere-wffc").mounted_on("node-a");
    let later = later.create(lab.client()).await.unwrap();
    let disk = lab.disk_of(&shop, &at_once).await.unwrap();
    assert_eq!(std::fs::metadata(&disk.path).unwrap().len(), 17 << 20, "the raw file is as large as the claim");
    assert!(lab.disk_of(&shop, &later).await.unwrap().snapshots.is_empty());
    let error = lab.disk_of(&shop, "no-such-claim").await.unwrap_err().to_string();
    assert!(error.contains("no-such-claim"), "{error}");

    content_survives_a_restart_of_vcenter(&mut lab, &shop, &at_once).await;
    the_accounts_of_our_programs_have_their_roles_only(&lab).await;
    a_second_lab_shares_the_s3_server(&lab).await;

    let records = lab.processes().unwrap();
    assert!(records.len() >= 6, "{records:?}");
    lab.stop().await.unwrap();
    assert!(records.iter().all(|record| record.state() == State::Ended), "no process is left");
    assert!(Processes::new(folder.path()).all().unwrap().is_empty(), "no record is left");
}

async fn content_survives_a_restart_of_vcenter(lab: &mut Lab, namespace: &str, claim: &str) {
    let before = lab.disk_of(namespace, claim).await.unwrap();
    std::fs::write(before.path.with_file_name("disk.raw"), vec![7; 17 << 20]).unwrap();
    lab.kill("vcenter").await.unwrap();
    assert!(lab.kill("vcenter").await.is_err(), "what is dead cannot be killed");
    lab.start_process("vcenter", &BTreeMap::new()).await.unwrap();
    let after = lab.disk_of(namespace, claim).await.unwrap();
    assert_eq!(after.path, before.path);
    assert!(std::fs::read(&after.path).unwrap().iter().all(|byte| *byte == 7));
    assert!(lab.logs("vcenter").unwrap().matches("--- vcenter started").count() == 2, "both lives are in the log");
    assert!(lab.start_process("velero-server", &BTreeMap::new()).await.is_err(), "an unknown process is refused");
}

async fn the_accounts_of_our_programs_have_their_roles_only(lab: &Lab) {
    let reviews: Api<SubjectAccessReview> = Api::all(lab.client().clone());
    let cases = [
        ("backup-driver", "patch", "datamover.cnsdp.vmware.com", "uploads", Some(VELERO_NAMESPACE), true),
        ("datamgr-for-vsphere-plugin", "patch", "datamover.cnsdp.vmware.com", "uploads", Some(VELERO_NAMESPACE), true),
        ("datamgr-for-vsphere-plugin", "create", "", "persistentvolumeclaims", None, false),
        ("backup-driver", "list", "", "secrets", None, false),
    ];
    for (account, verb, group, resource, namespace, allowed) in cases {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{VELERO_NAMESPACE}:{account}")),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    namespace: namespace.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
        assert_eq!(answer.allowed, allowed, "{account} {verb} {resource}: {:?}", answer.reason);
    }
}

async fn a_second_lab_shares_the_s3_server(first: &Lab) {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::in_folder(folder.path());
    options.s3 = SharedS3::Of(first.place().folder.clone());
    let second = Lab::start(options).await.unwrap();
    assert_eq!(second.facts().s3.endpoint, first.facts().s3.endpoint);
    assert_eq!(second.facts().restic_password, first.facts().restic_password, "it can open the first one's backups");
    assert_ne!(second.vcenter_url().unwrap(), first.vcenter_url().unwrap());
    assert!(second.kill("s3").await.is_err(), "the server is not the second lab's to end");
    let records = second.processes().unwrap();
    drop(second); // as when a test panics
    until(Duration::from_secs(20), "the second lab's processes end", async || {
        Ok(records.iter().all(|record| record.state() == State::Ended).then_some(()))
    })
    .await
    .unwrap();
    assert!(Processes::new(&first.place().folder).runs("s3").unwrap(), "the first lab lives on");
}

#[test]
fn the_command_line_says_what_is_wrong_and_fails() {
    let root = Place::from_environment().unwrap().root;
    let lab = |arguments: &[&str], name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(arguments).env("LAB", name).env("LAB_ROOT", &root).output().unwrap()
    };
    let cases: [(&[&str], &str, &str); 4] = [
        (&["kill", "etcd"], "never-started", "never started"),
        (&["logs", "etcd"], "never-started", "log of etcd"),
        (&["peer", "minio"], "never-started", "there is no peer"),
        (&["ps"], "../elsewhere", "name"),
    ];
    for (arguments, name, says) in cases {
        let out = lab(arguments, name);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(says), "{arguments:?}: {said}");
    }
    assert!(lab(&["down"], "never-started").status.success(), "stopping what does not run is fine");
    assert!(lab(&["clean"], "never-started").status.success());
}

#[test]
fn the_raw_file_of_a_claim_is_asked_for_in_vain_without_a_lab() {
    let root = Place::from_environment().unwrap().root;
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab-disk"));
    let out = command.args(["path", "shop/data"]).env("LAB", "never-started").env("LAB_ROOT", &root).output().unwrap();
    assert!(!out.status.success() && out.stdout.is_empty());
    assert!(String::from_utf8_lossy(&out.stderr).contains("there is no lab"));
}
