//! The delete action while nobody does what it asks for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use lifecycle::velero::blob;
use serde_json::{Value, json};

use super::{AT_THE_LATEST, ApiServer, reads, with_location};
use crate::Item;
use crate::actions::claim_delete::ClaimDelete;
use crate::actions::patience::Patience;
use crate::protocol::kinds::{ActionError, DeleteItemAction};

const ID: &str = "pvc:shop/data-0:aXZkOmRpc2s6c25hcA";
const LONG: Duration = Duration::from_secs(3);
const SHORT: Duration = Duration::from_millis(500);

/// The action with times that a test can wait for.
fn deleter(server: &ApiServer) -> ClaimDelete {
    let reads = Arc::new(reads(server, Patience::new(LONG, SHORT)));
    let patience = Patience::new(LONG, SHORT);
    ClaimDelete { patience, looked_for: SHORT, starts_within: LONG, ..ClaimDelete::new(reads) }
}

/// A claim of a backup that went into BackupRepository `br-1`.
fn claim() -> Item {
    let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-0", "namespace": "shop"}});
    let snapshot = json!({"apiVersion": "backupdriver.cnsdp.vmware.com/v1alpha1", "kind": "Snapshot",
        "metadata": {"name": "snap-1"}, "status": {"snapshotID": ID}, "spec": {"backupRepository": "br-1",
            "resourceHandle": {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "data-0"}}});
    let snapshot = serde_json::from_value(snapshot).unwrap();
    let record = blob::write(&snapshot, &serde_json::from_value(claim.clone()).unwrap()).unwrap();
    claim["metadata"]["annotations"] = json!({api::labels::SNAPSHOT_BLOB: record});
    Item::parse(claim.to_string().as_bytes()).unwrap()
}

/// How long Velero's deletion is kept by one claim.
async fn kept(deleter: &ClaimDelete) -> Result<Duration, ActionError> {
    let backup = json!({"metadata": {"name": "nightly"}, "spec": {"storageLocation": "default"}});
    let begun = Instant::now();
    let executed = tokio::time::timeout(AT_THE_LATEST, deleter.execute(claim(), &backup)).await;
    executed.expect("Velero's deletion waits for ever")?;
    Ok(begun.elapsed())
}

fn duties(server: &ApiServer) -> Vec<(Value, Value)> {
    let of = |duty: &Value| (duty["spec"]["snapshotID"].clone(), duty["spec"]["backupRepository"].clone());
    server.all("deletesnapshots").iter().map(of).collect()
}

/// P-14, V-09: Velero drops the backup after that time whatever we answer, so by then the duty is written down.
#[tokio::test]
async fn p14_v09_a_deletion_that_takes_longer_returns_in_time_and_its_duty_stays() {
    let server = with_location();
    server.driver_answers("br-9");
    let deleter = deleter(&server);
    let first = kept(&deleter).await.unwrap();
    assert!(first >= LONG, "{first:?}: a deletion that is done in time is told as done");
    assert_eq!(duties(&server), [(json!(ID), json!("br-9"))]);
    let second = kept(&deleter).await.unwrap();
    assert!(second < LONG, "{second:?}: a hundred claims do not keep Velero for an hour");
    assert_eq!(duties(&server).len(), 2);
}

#[tokio::test]
async fn what_a_deletion_waits_for_by_default() {
    let server = ApiServer::default();
    let reads = Arc::new(reads(&server, Patience::new(LONG, SHORT)));
    let shipped = ClaimDelete::new(reads);
    assert_eq!(shipped.patience.lasts(), Duration::from_secs(30));
    assert_eq!(shipped.looked_for, Duration::from_secs(20));
    assert_eq!(shipped.starts_within, Duration::from_secs(10));
}

#[tokio::test]
async fn a_driver_that_does_not_run_keeps_no_duty_from_being_written_down() {
    let server = with_location(); // and nobody answers the claim of a repository there
    kept(&deleter(&server)).await.unwrap();
    assert_eq!(server.all("backuprepositoryclaims").len(), 1, "the location's own repository was asked for");
    assert_eq!(duties(&server), [(json!(ID), json!("br-1"))], "then the one of the backup's record");
}

/// V-09: what is not written down now stays in the bucket for ever.
#[tokio::test]
async fn v09_an_api_server_that_is_away_for_a_moment_loses_no_duty() {
    let server = with_location();
    server.driver_answers("br-9");
    for plural in ["configmaps", "deletesnapshots", "deletesnapshots"] {
        server.fails(plural, StatusCode::SERVICE_UNAVAILABLE);
    }
    kept(&deleter(&server)).await.unwrap();
    assert_eq!(duties(&server), [(json!(ID), json!("br-9"))]);
}

#[tokio::test]
async fn v09_an_api_server_that_knows_nobody_yet_loses_no_duty() {
    let server = with_location();
    server.driver_answers("br-9");
    for code in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
        server.fails("deletesnapshots", code);
    }
    kept(&deleter(&server)).await.unwrap();
    assert_eq!(duties(&server), [(json!(ID), json!("br-9"))]);
}

/// Why nothing was written down; the claim was not asked about again.
async fn why_not(server: &ApiServer, deleter: &ClaimDelete) -> ActionError {
    let why = kept(deleter).await.unwrap_err();
    assert!(why.message().starts_with("make a DeleteSnapshot for the claim: "), "{why}");
    assert!(duties(server).is_empty());
    why
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_at_once() {
    let server = with_location();
    server.driver_answers("br-9");
    server.fails("deletesnapshots", StatusCode::UNPROCESSABLE_ENTITY);
    why_not(&server, &deleter(&server)).await;
}

#[tokio::test]
async fn a_right_that_we_do_not_have_keeps_a_deletion_once() {
    let server = with_location();
    server.driver_answers("br-9");
    let deleter = ClaimDelete { starts_within: SHORT, ..deleter(&server) };
    for _ in 0..9 {
        server.fails("deletesnapshots", StatusCode::FORBIDDEN);
    }
    why_not(&server, &deleter).await;
    let left = server.faults_left();
    why_not(&server, &deleter).await;
    assert_eq!(server.faults_left() + 1, left, "the second claim asks once");
}
