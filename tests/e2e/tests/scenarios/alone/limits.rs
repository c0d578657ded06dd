//! How much of nodes and datastores the user lets transfers have.

use anyhow::{Result, ensure};
use api::{Reason, SnapshotPhase, Upload, UploadPhase, conditions, names};
use e2e::{Claim, DEADLINE, Namespace, Snapshot, World, nothing_left, wait_until};
use kube::{Api, ResourceExt as _};
use serde_json::json;

crate::scenarios![
    a_limit_holds_an_upload_up_says_so_and_may_be_lifted_meanwhile,
    uploads_of_one_datastore_take_turns_where_the_user_says_so,
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
    waits_for(&second, "1 upload reads from datastore datastore-").await?;

    world.set(names::CONFIG, &json!({"uploads-per-datastore": "2"})).await?;
    second.copying().await?;
    ensure!(first.upload().await?.phase() == Some(&UploadPhase::InProgress), "the first one reads still");
    let third = shop.snapshot(&claims[2]).await?;
    waits_for(&third, "2 uploads read from datastore datastore-").await?;
    ensure!(third.upload().await?.phase() == Some(&UploadPhase::New), "nobody may take it");

    world.control().heal(claims[0].disk.as_str()).await?;
    first.wait_for(SnapshotPhase::Uploaded).await?;
    third.copying().await?;
    Ok([first, second, third])
}

/// Waits until a Snapshot says that it waits for others of its datastore.
async fn waits_for(asked: &Snapshot, words: &str) -> Result<()> {
    let says_so = |seen: Option<&api::Snapshot>| {
        let ready = seen.and_then(|s| conditions::get(&s.status.as_ref()?.conditions, conditions::READY));
        ready.is_some_and(|c| c.reason == Reason::DatastoreBusy.as_str() && c.message.contains(words))
    };
    wait_until(&asked.api(), &asked.name, DEADLINE, "says what it waits for", says_so).await?;
    Ok(())
}
