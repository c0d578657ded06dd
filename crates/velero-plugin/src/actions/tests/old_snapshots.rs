//! The VolumeSnapshotter for backups of plugin 1.0.2, while nobody does what it asks for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::{AT_THE_LATEST, ApiServer, reads, with_location};
use crate::actions::patience::Patience;
use crate::actions::snapshotter::{OldSnapshots, take_over};
use crate::protocol::kinds::{ActionError, VolumeInfo, VolumeSnapshotter};

const ID: &str = "ivd:disk-1:snap-1";
const SHORT: Duration = Duration::from_millis(300);

fn snapshots(server: &ApiServer) -> OldSnapshots {
    let reads = Arc::new(reads(server, Patience::new(SHORT, SHORT)));
    OldSnapshots {
        made_within: SHORT,
        written_within: SHORT,
        patience: Patience::new(SHORT, SHORT),
        ..OldSnapshots::new(reads)
    }
}

async fn restored(of: &OldSnapshots) -> Result<String, ActionError> {
    let asked = tokio::time::timeout(AT_THE_LATEST, of.create_volume(ID, "", &VolumeInfo::default())).await;
    asked.expect("Velero's restore waits for ever")
}

fn owner(download: &Value) -> &Value {
    &download["metadata"]["annotations"]["velero-plugin-for-vsphere/new-disk"]
}

#[tokio::test]
async fn a_disk_that_does_not_come_in_time_is_given_up_and_never_told_as_restored() {
    let server = with_location();
    let why = restored(&snapshots(&server)).await.unwrap_err();
    assert!(why.message().contains("Queued") && why.message().contains("not there in time"), "{why}");
    let made = server.all("downloads");
    let [download] = &made[..] else { panic!("one Download, not {made:?}") };
    assert_eq!((owner(download), &download["spec"]["snapshotID"]), (&json!("given-up"), &json!(ID)));
    assert_eq!(download["spec"]["backupRepositoryName"], "without-backup-repository");
    assert!(download["spec"]["protectedEntityID"].is_null(), "the driver makes the disk");
    assert!(!download["status"]["nextRetryTimestamp"].is_null(), "the original's programs crash without it");
}

#[tokio::test]
async fn an_api_server_that_is_away_for_a_moment_keeps_no_disk() {
    let server = with_location();
    let of = snapshots(&server);
    let failing = server.clone();
    let asking = tokio::spawn(async move { restored(&of).await });
    while server.all("downloads").is_empty() {
        tokio::task::yield_now().await;
    }
    failing.fails("downloads", StatusCode::SERVICE_UNAVAILABLE);
    failing.fails("downloads", StatusCode::SERVICE_UNAVAILABLE);
    asking.await.unwrap().unwrap_err();
    assert_eq!(owner(&server.all("downloads")[0]), "given-up");
}

#[tokio::test]
async fn a_snapshot_location_that_names_a_bucket_is_looked_for_there() {
    let server = with_location();
    server.driver_answers("br-7");
    let of = snapshots(&server);
    let config = [("region", "there"), ("bucket", "old-backups"), ("LocalMode", "false")];
    of.init(&config.map(|(key, value)| (key.to_owned(), value.to_owned())).into()).await.unwrap();
    restored(&of).await.unwrap_err();
    assert_eq!(server.all("downloads")[0]["spec"]["backupRepositoryName"], "br-7");
    let asked = &server.all("backuprepositoryclaims")[0]["repopsitoryParameters"];
    assert_eq!((&asked["bucket"], &asked["region"]), (&json!("old-backups"), &json!("there")));
}

#[tokio::test]
async fn the_duty_to_delete_an_old_snapshot_is_written_down_and_waited_for_a_moment_only() {
    let server = with_location();
    let of = snapshots(&server);
    of.init(&HashMap::new()).await.unwrap();
    of.delete_snapshot(ID).await.unwrap();
    let made = server.all("deletesnapshots");
    let [duty] = &made[..] else { panic!("one DeleteSnapshot, not {made:?}") };
    assert_eq!(duty["spec"], json!({"snapshotID": ID, "backupRepository": "without-backup-repository"}));
    let asks = &duty["metadata"]["annotations"]["velero-plugin-for-vsphere/snapshotter"];
    assert_eq!(asks, &duty["metadata"]["name"], "who asks so need not find it: what is gone counts as deleted");
    server.fails("deletesnapshots", StatusCode::FORBIDDEN);
    let why = of.delete_snapshot(ID).await.unwrap_err();
    assert!(why.message().contains("make a DeleteSnapshot"), "Velero keeps the backup then: {why}");
}

const DOWNLOAD: &str = "/apis/datamover.cnsdp.vmware.com/v1alpha1/namespaces/velero/downloads/download-1";

/// A Download whose disk is written, and who answers for it.
fn written(owner: &str) -> Value {
    json!({
        "apiVersion": "datamover.cnsdp.vmware.com/v1alpha1", "kind": "Download",
        "metadata": {"name": "download-1", "namespace": "velero", "resourceVersion": "2",
            "annotations": {"velero-plugin-for-vsphere/new-disk": owner}},
        "spec": {"protectedEntityID": "ivd:disk-2"},
    })
}

/// Takes the disk over from a server that has it so.
async fn taken(server: &ApiServer, within: Duration) -> Result<(), ActionError> {
    let downloads = kube::Api::namespaced(server.client(), "velero");
    let taking = take_over(&downloads, serde_json::from_value(written("awaited")).unwrap(), within);
    tokio::time::timeout(AT_THE_LATEST, taking).await.expect("Velero's restore waits for ever")
}

#[tokio::test]
async fn a_disk_whose_take_over_was_written_and_the_answer_lost_is_velero_s() {
    // the second: the time for it is over when it is looked at again
    for within in [AT_THE_LATEST, Duration::ZERO] {
        let server = ApiServer::default();
        server.put(DOWNLOAD, written("awaited"));
        server.loses_an_answer("downloads");
        taken(&server, within).await.unwrap();
        assert_eq!(owner(&server.all("downloads")[0]), "taken");
    }
}

#[tokio::test]
async fn a_download_that_somebody_changes_all_the_time_ends_the_restore_and_says_so() {
    let server = ApiServer::default();
    server.put(DOWNLOAD, written("awaited"));
    server.changes_always("downloads");
    let why = taken(&server, SHORT).await.unwrap_err();
    assert!(why.message().contains("take over the disk of Download download-1: somebody else changed it"), "{why}");
    assert!(why.message().contains("managedFields"), "it does not say what helps: {why}");
}

#[tokio::test]
async fn a_disk_is_velero_s_only_when_nobody_removes_it_and_a_late_word_of_its_node_loses_none() {
    for (said, wanted) in [("awaited", "taken"), ("removing", "removing")] {
        let server = ApiServer::default();
        server.put(DOWNLOAD, written(said));
        // it changed since the plugin has seen it completed
        server.fails("downloads", StatusCode::CONFLICT);
        let taken = taken(&server, AT_THE_LATEST).await;
        assert_eq!(taken.is_ok(), said == "awaited", "{taken:?}");
        assert_eq!(owner(&server.all("downloads")[0]), wanted);
    }
}
