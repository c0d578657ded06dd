//! A storm: customers back up, restore, delete and cancel, one of them through Velero, while all that they need is killed, paused and slowed, one thing
//! after the other, by chance. Two strikes are aimed: one at an Upload of Velero's, one at Velero itself, so that backups are met that it calls
//! *PartiallyFailed* and *Failed*. After it every backup that was called `Uploaded`, or *Completed*, comes back byte for byte, every other job
//! says why not, and nothing is left.
//!
//! `STORM_ROUNDS` says how many strikes there are, `STORM_SEED` brings those of an earlier run back: the same strikes for the same
//! moments, whose times are still the machine's.

mod customer;
mod days;
mod secrets;
mod velero_user;
mod weather;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::names;
use e2e::{DiskFault, Disks, World, disks_without_volume, insist, nothing_left_at_all, put_right, unended};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use customer::Customer;
use velero_user::VeleroUser;
use weather::Weather;

crate::scenarios![in_a_storm_every_claim_comes_back_or_its_object_says_why_not];

/// Strikes, unless `STORM_ROUNDS` says otherwise: as many as every run of all tests has time for.
const ROUNDS: u64 = 10;
/// Customers, each with a namespace and a claim; the last one uses Velero.
const CUSTOMERS: u64 = 5;
/// How often an upload is tried again: three waits are seven minutes at most.
const TRIES_AGAIN: &str = "3";
/// Pause between two looks for a program that has ended.
const KUBELET: Duration = Duration::from_secs(1);

async fn in_a_storm_every_claim_comes_back_or_its_object_says_why_not(world: World) -> Result<()> {
    let rounds = number("STORM_ROUNDS")?.unwrap_or(ROUNDS);
    let seed = number("STORM_SEED")?.unwrap_or_else(rand::random);
    println!("a storm of {rounds} rounds, STORM_SEED={seed}");
    world.set(names::CONFIG, &json!({"upload-cr-retry-max": TRIES_AGAIN})).await?;
    world.control().tell("/tracking", &json!({"on": true})).await?;
    let outcome = storm(&world, rounds, seed).await.with_context(|| format!("in the storm with STORM_SEED={seed}"));
    let acts = [
        world.control().tell("/tracking", &json!({"on": false})).await,
        world.set(names::CONFIG, &json!({"upload-cr-retry-max": null})).await,
    ];
    put_right(outcome, acts) // a lab in which it failed is started anew
}

/// Who lived through it.
enum Somebody {
    ByHand(Customer),
    ThroughVelero(VeleroUser),
}

async fn storm(world: &World, rounds: u64, seed: u64) -> Result<()> {
    let before = at_loose_ends(world).await?; // what scenarios before this one have left on purpose
    let mut customers = JoinSet::<Result<Somebody>>::new();
    let (calm, is_calm) = watch::channel(false);
    for number in 0..CUSTOMERS - 1 {
        let customer = Customer::new(world, number, seed).await?;
        let is_calm = is_calm.clone();
        customers.spawn(async { Ok(Somebody::ByHand(days::live(customer, is_calm).await?)) });
    }
    let mut user = VeleroUser::new(world, CUSTOMERS - 1, seed).await?;
    customers.spawn(async {
        user.is_struck().await?;
        Ok(Somebody::ThroughVelero(days::live(user, is_calm).await?))
    });
    slow_disks(world).await?;
    let mut weather = Weather::new(world, seed);
    tokio::select! {
        struck = async {
            secrets::stand_in_no_process(world).await?; // while all of them are at work
            weather.strikes(rounds).await
        } => struck?,
        Some(ended) = customers.join_next() => { ended??; } // only trouble ends one before the storm
    }
    calm.send(true)?;
    let mut all = Vec::new();
    loop {
        tokio::select! {
            ended = customers.join_next() => match ended {
                Some(customer) => all.push(customer??),
                None => break,
            },
            () = tokio::time::sleep(KUBELET) => {
                insist("start what has ended", || async { world.revive().await }).await?;
            }
        }
    }
    world.control().heal(Disks::OfMib(days::MIB)).await?;
    weather.tells();
    for customer in all {
        match customer {
            Somebody::ByHand(customer) => customer.comes_out_whole().await?,
            Somebody::ThroughVelero(user) => user.comes_out_whole().await?,
        }
    }
    nothing_left_at_all(world).await?;
    insist("look whether all has ended", || async {
        let mut left = at_loose_ends(world).await?;
        left.retain(|it| !before.contains(it));
        ensure!(left.is_empty(), "left after the storm: {left:?}");
        Ok(())
    })
    .await?;
    secrets::are_told_nowhere(world).await?;
    weather.has_struck_everybody(rounds)
}

/// Jobs that have not ended, disks without a volume and volumes without their disk.
async fn at_loose_ends(world: &World) -> Result<Vec<String>> {
    let mut all = unended(world).await?;
    all.extend(disks_without_volume(world).await?);
    Ok(all)
}

/// Disks so slow that a strike meets transfers in the middle; a vCenter double that was started again has forgotten it.
async fn slow_disks(world: &World) -> Result<()> {
    for function in ["Read", "Write"] {
        let slow = DiskFault { delay_ms: 100, ..DiskFault::new(Disks::OfMib(days::MIB), function, "slow") };
        world.control().disk_fault(&slow).await?;
    }
    Ok(())
}

fn number(variable: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{variable} should be a number; it is {text:?}"))
}
