//! Leases and statuses against a real API server: what happens when a holder dies, is robbed, or gives back; and that a
//! status which says nothing new is not written. One lab serves them all.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use api::conditions::{READY, Status};
use api::{Reason, Snapshot, SnapshotSpec, SnapshotStatus, Timestamp, conditions};
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease as Record;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use operator::{Guard, Leases, Metrics, Publisher, Taken};
use serde_json::json;

/// Longest wait for anything in these tests.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long the leases in these tests last.
const LASTS: Duration = Duration::from_secs(3);

async fn in_time<T>(what: &str, waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, waited).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

fn leases(client: &Client, namespace: &str, holder: &str) -> Leases {
    Leases::new(client.clone(), namespace, holder, LASTS)
}

async fn taken(leases: &Leases, name: &str) -> operator::Lease {
    match leases.take(name).await.unwrap() {
        Taken::Ours(lease) => lease,
        Taken::Busy { holder, .. } => panic!("{name} is held by {holder}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_statuses_on_a_real_api_server() {
    let folder = tempfile::tempdir().unwrap();
    let lab = lab::Lab::start(lab::Options::in_folder(folder.path())).await.unwrap();
    let namespace = lab.create_namespace("operator").await.unwrap();
    let client = lab.client();
    tokio::join!(
        a_dead_holder_is_followed_and_not_before_its_lease_ended(client, &namespace),
        a_holder_that_restarts_goes_on_at_once(client, &namespace),
        a_robbed_holder_learns_it_before_it_does_harm(client, &namespace),
        a_lease_that_is_given_back_is_gone(client, &namespace),
        a_watched_lease_is_held_while_it_is_shown(client, &namespace),
        an_old_picture_of_the_leases_takes_nothing_from_anybody(client, &namespace),
        a_status_that_says_nothing_new_is_not_written(client, &namespace),
    );
    lab.stop().await.unwrap();
}

async fn a_dead_holder_is_followed_and_not_before_its_lease_ended(client: &Client, namespace: &str) {
    let (dead, heir) = (leases(client, namespace, "node-a"), leases(client, namespace, "node-b"));
    let lease = taken(&dead, "dies").await;
    let died = Instant::now();
    drop(lease); // not given back: the holder is killed
    let stop = tokio_util::sync::CancellationToken::new();
    let next = in_time("the heir takes over", heir.wait_for("dies", &stop)).await.unwrap();
    assert!(died.elapsed() >= LASTS * 2 / 3, "the dead holder's lease still ran: {:?}", died.elapsed());
    let api: Api<Record> = Api::namespaced(client.clone(), namespace);
    let spec = api.get("dies").await.unwrap().spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("node-b"), Some(1)));
    next.release().await;
}

async fn a_holder_that_restarts_goes_on_at_once(client: &Client, namespace: &str) {
    drop(taken(&leases(client, namespace, "node-a"), "restarts").await);
    taken(&leases(client, namespace, "node-a"), "restarts").await.release().await;
}

async fn a_robbed_holder_learns_it_before_it_does_harm(client: &Client, namespace: &str) {
    let lease = taken(&leases(client, namespace, "node-a"), "robbed").await;
    let api: Api<Record> = Api::namespaced(client.clone(), namespace);
    let robbed = Patch::Merge(json!({"spec": {"holderIdentity": "node-b"}}));
    api.patch("robbed", &PatchParams::default(), &robbed).await.unwrap();
    in_time("the holder notices", lease.lost().cancelled()).await;
    lease.release().await;
    assert!(api.get_opt("robbed").await.unwrap().is_some(), "what is another's is not deleted");
}

async fn a_lease_that_is_given_back_is_gone(client: &Client, namespace: &str) {
    let other = leases(client, namespace, "node-b");
    let lease = taken(&leases(client, namespace, "node-a"), "returned").await;
    assert!(other.held_by_another("returned").await.unwrap().is_some());
    lease.release().await;
    let api: Api<Record> = Api::namespaced(client.clone(), namespace);
    assert!(api.get_opt("returned").await.unwrap().is_none(), "leases do not pile up");
    taken(&other, "returned").await.release().await;
}

async fn a_watched_lease_is_held_while_it_is_shown(client: &Client, namespace: &str) {
    let (seeing, watching) = leases(client, namespace, "node-b").watched(&Metrics::new("data-manager"));
    let watching = tokio::spawn(watching.for_each(|()| std::future::ready(())));
    let other = leases(client, namespace, "node-a");
    let lease = taken(&other, "shown").await;
    let held = |want: bool| {
        let seeing = &seeing;
        async move {
            while seeing.held_by_another("shown").await.unwrap().is_some() != want {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    in_time("the watch shows who has it", held(true)).await;
    lease.release().await;
    in_time("the watch shows that it is free", held(false)).await;
    taken(&seeing, "shown").await.release().await;
    watching.abort();
}

async fn an_old_picture_of_the_leases_takes_nothing_from_anybody(client: &Client, namespace: &str) {
    let (blind, watching) = leases(client, namespace, "node-b").watched(&Metrics::new("data-manager"));
    let until_it_shows = async {
        let lease = taken(&leases(client, namespace, "node-a"), "before").await;
        let begun = Instant::now();
        while blind.held_by_another("before").await.unwrap().is_none() {
            assert!(begun.elapsed() < DEADLINE, "it is never shown");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        lease.release().await;
    };
    tokio::select! {
        () = watching.for_each(|()| std::future::ready(())) => unreachable!("it watches until it is dropped"),
        () = until_it_shows => {}
    }
    // nobody watches any more: what is taken from now on is not shown
    let other = leases(client, namespace, "node-a");
    let lease = taken(&other, "unseen").await;
    assert!(matches!(blind.take("unseen").await.unwrap(), Taken::Busy { .. }), "the API server has the last word");
    assert!(blind.held_by_another("unseen").await.unwrap().is_some(), "what was just lost is not tried again at once");
    assert!(!lease.lost().is_cancelled());
    lease.release().await;
}

async fn a_status_that_says_nothing_new_is_not_written(client: &Client, namespace: &str) {
    let api: Api<Snapshot> = Api::namespaced(client.clone(), namespace);
    let made = api.create(&PostParams::default(), &Snapshot::new("s", SnapshotSpec::default())).await.unwrap();
    let publisher = Publisher::new(client.clone(), "test", "here", Metrics::new("test"));
    let mut status = SnapshotStatus { phase: Some("SnapshotFailed".into()), ..SnapshotStatus::default() };
    let message = "find the claim: there is none";
    conditions::set(&mut status.conditions, READY, Status::False, Reason::ClaimNotFound, message, Timestamp::now());
    let written = publisher.publish(&made, &status, Guard::Unchanged).await.unwrap().expect("it is new");
    assert!(publisher.publish(&written, &status, Guard::Unchanged).await.unwrap().is_none(), "nothing new");
    assert_eq!(api.get("s").await.unwrap().resource_version(), written.resource_version());

    status.message = Some("decided on what was read before".to_owned());
    let stale = publisher.publish(&made, &status, Guard::Unchanged).await;
    assert!(stale.is_err_and(|e| e.is_conflict()), "a decision on an old reading is refused");

    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let said = events.list(&ListParams::default()).await.unwrap();
    let ours: Vec<_> = said.items.iter().filter(|e| e.reason.as_deref() == Some("ClaimNotFound")).collect();
    assert_eq!(ours.len(), 1, "one event for one change");
    assert_eq!((ours[0].type_.as_deref(), ours[0].note.as_deref()), (Some("Warning"), Some(message)));
}
