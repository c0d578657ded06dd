//! Logging in once, again once, not too often, and out.

use std::time::Duration;

use futures::future::join_all;
use vsphere::{Cause, FaultKind, ReasonKind, Recovery, Vcenter};

use crate::double::{Double, MINUTE, USER, fault};

#[tokio::test]
async fn many_callers_share_one_login_and_leave_no_session() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    double.tell("POST", "/sessions/expire", None).await;
    let reads = join_all((0..20).map(|_| vcenter.retrieve_disk(&disk))).await;
    reads.into_iter().for_each(|read| drop(read.unwrap()));
    assert_eq!(double.logins("ok").await, 2, "one to begin with, one after the session ended");
    assert_eq!(double.sessions().await, 1);
    vcenter.logout().await;
    assert_eq!(double.sessions().await, 0);
}

#[tokio::test]
async fn a_client_that_is_dropped_ends_its_session() {
    let double = Double::start().await;
    double.client().log_in().await.unwrap();
    let ends = std::time::Instant::now() + MINUTE;
    while double.sessions().await > 0 {
        assert!(std::time::Instant::now() < ends, "the session is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_session_that_ended_is_renewed_on_all_three_services() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    for logins in 2..4 {
        double.tell("POST", "/sessions/expire", None).await;
        assert_eq!(vcenter.retrieve_disk(&disk).await.unwrap().capacity_bytes, 2 << 20);
        assert_eq!(double.logins("ok").await, logins);
    }
    double.tell("POST", "/sessions/expire", None).await;
    assert!(vcenter.query_volume(&disk).await.unwrap().is_some());
    assert_eq!(double.logins("ok").await, 4);
}

#[tokio::test]
async fn a_server_that_never_accepts_a_session_is_asked_twice_and_not_for_ever() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    double.rule(fault("VslmRetrieveVStorageObject", "call", "NotAuthenticated", 0)).await;
    let error = vcenter.retrieve_disk(&disk).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Fault(f) if f.kind == FaultKind::NotAuthenticated), "{error:?}");
    assert_eq!(error.recovery(), Recovery::Retry);
    assert_eq!((double.calls("VslmRetrieveVStorageObject").await, double.logins("ok").await), (2, 2));
}

#[tokio::test]
async fn a_session_that_ends_before_the_snapshot_costs_no_second_snapshot() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    double.rule(fault("VslmCreateSnapshot_Task", "call", "NotAuthenticated", 1)).await;
    vcenter.create_snapshot(&disk, "token", MINUTE).await.unwrap();
    assert_eq!(double.snapshots(&disk).await, ["token"]);
    assert!(double.calls("VslmRetrieveSnapshotInfo").await >= 2, "it looked before it asked again");
}

#[tokio::test]
async fn a_session_that_ends_while_the_snapshot_is_taken_costs_no_second_snapshot_and_no_error() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    let late = serde_json::json!({"method": "VslmCreateSnapshot_Task", "where": "task", "delayMs": 1500, "count": 1});
    double.rule(late).await;
    let take = tokio::spawn({
        let (vcenter, disk) = (vcenter.clone(), disk.clone());
        async move { vcenter.create_snapshot(&disk, "token", MINUTE).await }
    });
    while double.calls("VslmQueryInfo").await == 0 {
        assert!(!take.is_finished());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    double.tell("POST", "/sessions/expire", None).await;
    take.await.unwrap().unwrap();
    assert_eq!(double.snapshots(&disk).await, ["token"]);
    assert_eq!((double.calls("VslmCreateSnapshot_Task").await, double.logins("ok").await), (1, 2));
}

#[tokio::test]
async fn a_wrong_password_does_not_lock_the_account() {
    let double = Double::start().await;
    let mut wrong = double.config();
    wrong.password = "wrong".to_owned().into();
    let describe = |error: vsphere::Error| {
        assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::LoginRefused, Recovery::GiveUp));
        let text = error.describe();
        assert!(text.contains(USER) && text.contains("`password`") && !text.contains("wrong`"), "{text}");
        text
    };
    // Every try with a client of its own, as a controller that builds one for each reconcile does, and many at once.
    let ends = std::time::Instant::now() + MINUTE;
    while double.logins("refused").await < 3 {
        assert!(std::time::Instant::now() < ends);
        let tries = join_all((0..4).map(|_| async { Vcenter::new(wrong.clone()).unwrap().log_in().await })).await;
        tries.into_iter().for_each(|refused| drop(describe(refused.unwrap_err())));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(wrong.deadlines.login_pause * 8).await; // longer than any pause between tries
    let stopped = describe(Vcenter::new(wrong).unwrap().log_in().await.unwrap_err());
    assert!(stopped.contains("not tried again before the credentials change"), "{stopped}");
    assert_eq!(double.logins("refused").await, 3);
    double.client().log_in().await.unwrap();
    assert_eq!(double.logins("ok").await, 1, "the right password works at once");
}

#[tokio::test]
async fn nothing_shows_the_password_or_the_session() {
    let double = Double::start().await;
    let vcenter = double.client();
    vcenter.log_in().await.unwrap();
    let session = double.tell("GET", "/sessions", None).await[0]["key"].as_str().unwrap().to_owned();
    let shown = format!("{vcenter:?}");
    assert!(!shown.contains("battery") && !shown.contains(&session), "{shown}");
}

#[tokio::test]
async fn a_call_that_gets_no_answer_ends_at_its_deadline() {
    let double = Double::start().await;
    let mut config = double.config();
    let disk = double.disk(&double.client()).await;
    config.deadlines.call = Duration::from_millis(700);
    let vcenter = Vcenter::new(config).unwrap();
    vcenter.log_in().await.unwrap();
    double.rule(serde_json::json!({"method": "VslmRetrieveVStorageObject", "delayMs": 20_000})).await;
    let began = std::time::Instant::now();
    let error = vcenter.retrieve_disk(&disk).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(matches!(error.cause(), Cause::DeadlinePassed { .. }), "{error:?}");
    assert_eq!((error.recovery(), error.reason_kind()), (Recovery::Retry, ReasonKind::Unreachable));
}

#[tokio::test]
async fn no_more_than_eight_calls_run_at_once() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    double.rule(serde_json::json!({"method": "VslmRetrieveVStorageObject", "delayMs": 300})).await;
    let began = std::time::Instant::now();
    join_all((0..17).map(|_| vcenter.retrieve_disk(&disk))).await.into_iter().for_each(|read| drop(read.unwrap()));
    assert!(began.elapsed() >= Duration::from_millis(900), "17 calls of 300 ms ran in {:?}", began.elapsed());
}
