//! How much of nodes and datastores the user lets transfers have.

use anyhow::{Result, ensure};
use api::{ClonePhase, Reason, SnapshotPhase, Upload, UploadPhase, conditions, names};
use e2e::{Claim, DEADLINE, Disks, Namespace, Snapshot, World, nothing_left, put_right, wait_until};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::{DATA_MANAGERS, back_up};

crate::scenarios![
    a_limit_holds_an_upload_up_says_so_and_may_be_lifted_meanwhile,
    uploads_of_one_datastore_take_turns_where_the_user_says_so,
    uploads_of_one_host_take_turns_until_a_machine_moves_away,
    a_restore_takes_room_from_uploads_and_waits_for_none,
    a_node_with_as_many_uploads_as_it_may_have_takes_a_restore,
];

/// Without the limit this disk takes a second, with it eight minutes.
async fn a_limit_holds_an_upload_up_says_so_and_may_be_lifted_meanwhile(world: World) -> Result<()> {
    let shop = world.namespace("limited").await?;
    let claim = shop.claim("data").mib(53).create().await?;
    claim.fill_random(76)?;
    world.set(names::CONFIG, &json!({"transfer-rate-limit": "100KiB/s"})).await?;
    let asked = shop.snapshot(&claim).await?;
    let outcome = async {
        let name = asked.upload_when_made().await?.name_any();
        let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
        let is_held_up = |upload: Option<&Upload>| {
            let ready = upload.and_then(|u| conditions::get(&u.status.as_ref()?.conditions, conditions::READY));
            ready.is_some_and(|c| c.reason == Reason::RateLimited.as_str() && c.message.contains("100KiB/s"))
        };
        wait_until(&uploads, &name, DEADLINE, "says what holds it up", is_held_up).await?;
        world.set(names::CONFIG, &json!({"transfer-rate-limit": "50MB per second"})).await?; // as good as none
        asked.wait_for(SnapshotPhase::Uploaded).await
    }
    .await;
    world.set(names::CONFIG, &json!({"transfer-rate-limit": null})).await?;
    outcome?;
    nothing_left(&world, &shop, 1).await
}

async fn uploads_of_one_datastore_take_turns_where_the_user_says_so(world: World) -> Result<()> {
    let shop = world.namespace("turns").await?;
    let mut claims = Vec::new();
    for (name, seed) in [("first", 81), ("second", 82), ("third", 83)] {
        let claim = shop.claim(name).mib(48).create().await?; // more than a minute, as long as it is slow
        claim.fill_random(seed)?;
        world.control().slow(claim.disk.as_str(), "Read").await?;
        claims.push(claim);
    }
    world.set(names::CONFIG, &json!({"uploads-per-datastore": "1"})).await?;
    let outcome = take_turns(&world, &shop, &claims).await;
    world.set(names::CONFIG, &json!({"uploads-per-datastore": null})).await?;
    for claim in &claims {
        world.control().heal(claim.disk.as_str()).await?;
    }
    for asked in outcome? {
        asked.wait_for(SnapshotPhase::Uploaded).await?;
    }
    nothing_left(&world, &shop, 3).await
}

async fn take_turns(world: &World, shop: &Namespace, claims: &[Claim]) -> Result<[Snapshot; 3]> {
    let first = shop.snapshot(&claims[0]).await?;
    first.copying().await?;
    let second = shop.snapshot(&claims[1]).await?;
    waits_for(&second, Reason::DatastoreBusy, "as uploads-per-datastore allows (1)").await?;

    world.set(names::CONFIG, &json!({"uploads-per-datastore": "2"})).await?;
    second.copying().await?;
    ensure!(first.upload().await?.phase() == Some(&UploadPhase::InProgress), "the first one reads still");
    let third = shop.snapshot(&claims[2]).await?;
    waits_for(&third, Reason::DatastoreBusy, "as uploads-per-datastore allows (2)").await?;
    ensure!(third.upload().await?.phase() == Some(&UploadPhase::New), "nobody may take it");

    world.control().heal(claims[0].disk.as_str()).await?;
    first.wait_for(SnapshotPhase::Uploaded).await?;
    third.copying().await?;
    Ok([first, second, third])
}

/// Waits until a Snapshot says that it waits for others of its datastore or host.
async fn waits_for(asked: &Snapshot, reason: Reason, words: &str) -> Result<()> {
    let says_so = |seen: Option<&api::Snapshot>| {
        let ready = seen.and_then(|s| conditions::get(&s.status.as_ref()?.conditions, conditions::READY));
        ready.is_some_and(|c| c.reason == reason.as_str() && c.message.contains(words))
    };
    wait_until(&asked.api(), &asked.name, DEADLINE, "says what it waits for", says_so).await?;
    Ok(())
}

/// Two nodes, one host: their disks take turns, whichever datastore they lie on, and one that no node has does not. When
/// vMotion takes a node away, its disk waits no longer.
async fn uploads_of_one_host_take_turns_until_a_machine_moves_away(world: World) -> Result<()> {
    let shop = world.namespace("hosts").await?;
    world.nodes_name_their_machines().await?;
    let (shared, other) = (world.host_of("node-a").await?, world.host_of("node-b").await?);
    world.vmotion("node-b", &shared).await?;
    let mut claims = Vec::new();
    for (name, seed, node) in [("on-a", 86, Some("node-a")), ("on-b", 87, Some("node-b")), ("idle", 88, None)] {
        let claim = shop.claim(name).mib(48).create().await?;
        claim.fill_random(seed)?;
        if let Some(node) = node {
            claim.attach(node).await?;
        }
        claims.push(claim);
    }
    world.control().slow(claims[0].disk.as_str(), "Read").await?;
    world.control().slow(claims[1].disk.as_str(), "Read").await?;
    world.set(names::CONFIG, &json!({"uploads-per-host": "1"})).await?;
    let outcome = follow_a_machine(&world, &shop, &claims, &shared, &other).await;
    world.set(names::CONFIG, &json!({"uploads-per-host": null})).await?;
    for claim in &claims {
        world.control().heal(claim.disk.as_str()).await?;
    }
    world.vmotion("node-b", &other).await?;
    for asked in outcome? {
        asked.wait_for(SnapshotPhase::Uploaded).await?;
    }
    for claim in &claims[..2] {
        claim.detach().await?;
    }
    nothing_left(&world, &shop, 3).await
}

async fn follow_a_machine(
    world: &World,
    shop: &Namespace,
    claims: &[Claim],
    shared: &str,
    other: &str,
) -> Result<[Snapshot; 3]> {
    let on_a = shop.snapshot(&claims[0]).await?;
    on_a.copying().await?;
    let on_b = shop.snapshot(&claims[1]).await?;
    waits_for(&on_b, Reason::HostBusy, &format!("host {shared} has as many uploads as uploads-per-host")).await?;
    let idle = shop.snapshot(&claims[2]).await?;
    idle.wait_for(SnapshotPhase::Uploaded).await?;
    ensure!(on_b.upload().await?.phase() == Some(&UploadPhase::New), "nobody may take it");

    world.vmotion("node-b", other).await?;
    on_b.copying().await?;
    ensure!(on_a.upload().await?.phase() == Some(&UploadPhase::InProgress), "the first one reads still");
    Ok([on_a, on_b, idle])
}

/// A restore that is being written is counted, and begins however many uploads read.
async fn a_restore_takes_room_from_uploads_and_waits_for_none(world: World) -> Result<()> {
    let shop = world.namespace("room").await?;
    let (claim, size) = (shop.claim("data").mib(54).create().await?, Disks::OfMib(54));
    claim.fill_random(89)?;
    let backed_up = back_up(&shop, &claim).await?;
    world.set(names::CONFIG, &json!({"uploads-per-datastore": "1"})).await?;
    let outcome = async {
        world.control().slow(size.clone(), "Write").await?;
        let restore = shop.clone_as(&backed_up, "back").await?;
        restore.copying().await?;
        let upload = shop.snapshot(&claim).await?;
        waits_for(&upload, Reason::DatastoreBusy, "has as many uploads and restores as").await?;
        world.control().heal(size.clone()).await?;
        world.control().slow(claim.disk.as_str(), "Read").await?;
        restore.wait_for(ClonePhase::Completed).await?;

        upload.copying().await?;
        shop.clone_as(&backed_up, "again").await?.wait_for(ClonePhase::Completed).await?;
        ensure!(upload.upload().await?.phase() == Some(&UploadPhase::InProgress), "the upload reads still");
        anyhow::Ok(upload)
    }
    .await;
    world.set(names::CONFIG, &json!({"uploads-per-datastore": null})).await?;
    world.control().heal(size).await?;
    world.control().heal(claim.disk.as_str()).await?;
    outcome?.wait_for(SnapshotPhase::Uploaded).await?;
    nothing_left(&world, &shop, 2).await
}

/// W-15: with the slots that it has unless it is told otherwise.
async fn a_node_with_as_many_uploads_as_it_may_have_takes_a_restore(world: World) -> Result<()> {
    let shop = world.namespace("slots").await?;
    let stored = shop.claim("stored").mib(1).create().await?;
    let backed_up = back_up(&shop, &stored).await?;
    let mut claims = Vec::new();
    for (name, seed) in [("first", 91), ("second", 92), ("third", 93)] {
        let claim = shop.claim(name).mib(96).create().await?;
        claim.fill_random(seed)?;
        world.control().slow(claim.disk.as_str(), "Read").await?;
        claims.push(claim);
    }
    let outcome = async {
        world.kill(DATA_MANAGERS[1]).await?;
        let (first, second) = (shop.snapshot(&claims[0]).await?, shop.snapshot(&claims[1]).await?);
        first.copying().await?;
        second.copying().await?;
        let third = shop.snapshot(&claims[2]).await?;
        third.upload_when_made().await?;
        shop.clone_as(&backed_up, "back").await?.wait_for(ClonePhase::Completed).await?;
        let waits = third.upload().await?;
        ensure!(waits.phase() == Some(&UploadPhase::New), "a node copies more than two at a time: {:#?}", waits.status);
        for asked in [&first, &second] {
            let phase = asked.upload().await?.phase().cloned();
            ensure!(phase == Some(UploadPhase::InProgress), "it was over before the restore, which shows nothing");
        }
        anyhow::Ok([first, second, third])
    };
    let outcome = outcome.await;
    let mut acts = vec![world.start_process(DATA_MANAGERS[1]).await]; // one that runs goes on
    for claim in &claims {
        acts.push(world.control().heal(claim.disk.as_str()).await);
    }
    for asked in put_right(outcome, acts)? {
        asked.wait_for(SnapshotPhase::Uploaded).await?;
    }
    nothing_left(&world, &shop, 4).await
}
