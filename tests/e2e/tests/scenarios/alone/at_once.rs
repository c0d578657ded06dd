//! Many Snapshots at once: how soon each is answered, what they cost API server and vCenter, and how much memory that takes.
//!
//! Costs are asserted, times and memory are printed (docs/performance.md); `E2E_SNAPSHOTS` says how many. How soon they are answered is
//! asserted of [`MANY`] and more alone: of a few on a machine with other work it says nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::{Snapshot, SnapshotPhase};
use e2e::{Claim, Namespace, Program, Request, World, nothing_left, tally};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};

crate::scenarios![many_snapshots_at_once_are_all_answered_and_cost_little];

/// How many, unless the variable says otherwise.
const SNAPSHOTS: usize = 24;
const VARIABLE: &str = "E2E_SNAPSHOTS";
/// From so many on the time of an answer is asserted.
const MANY: usize = 1000;
/// Within this 99 of 100 must be answered where all are asked for at once.
const SOON_AT_ONCE: Duration = Duration::from_secs(5);
/// And at the pace of the second half.
const SOON_PACED: Duration = Duration::from_secs(1);
/// Requests to the API server that a Snapshot may cost driver and nodes, without watches and renewals of leases.
const REQUESTS: usize = 20;
/// Calls that it may cost vCenter.
const CALLS: u64 = 15;
/// Of both, what all share: Secrets, settings, the repository, a login.
const SHARED: usize = 40;
/// How long all of them may take.
const DUE: Duration = Duration::from_secs(1800);
/// The pace of the second half: 50 a second.
const PACE: Duration = Duration::from_millis(20);

/// When a Snapshot was seen new, with a condition, and at its end.
#[derive(Debug, Default, Clone)]
struct Answered {
    new: Option<Instant>,
    told: Option<Instant>,
    ended: Option<(Instant, SnapshotPhase)>,
}

type Seen = Arc<Mutex<HashMap<String, Answered>>>;

async fn many_snapshots_at_once_are_all_answered_and_cost_little(world: World) -> Result<()> {
    let count = std::env::var(VARIABLE).map_or(Ok(SNAPSHOTS), |text| text.parse()).context("a number of Snapshots")?;
    let shop = world.namespace("at-once").await?;
    let claims = made(&shop, count).await?;
    let seen = Seen::default();
    let watching = tokio::spawn(watched(Api::namespaced(world.client(), shop.name()), seen.clone()));
    burst(&world, &shop, &claims, &seen).await?;
    paced(&shop, &claims, &seen).await?;
    watching.abort();
    for process in ["backup-driver", "data-manager-node-a", "data-manager-node-b"] {
        println!("{process} held at most {} MiB", world.peak_memory_mib(process).await?);
    }
    nothing_left(&world, &shop, 2 * count).await
}

/// All at once; what they cost is counted.
async fn burst(world: &World, shop: &Namespace, claims: &[Claim], seen: &Seen) -> Result<()> {
    let name = "burst";
    let (mark, calls) = (world.mark()?, world.control().all_calls().await?);
    let begin = Instant::now();
    let ask = |claim: Claim| async move { anyhow::Ok(shop.snapshot(&claim).await?.name) };
    let asked = futures::stream::iter(claims.iter().cloned().map(ask)).buffer_unordered(64);
    let asked: Vec<String> = asked.try_collect().await?;
    println!("{name}: {} asked for in {:.1} s", asked.len(), begin.elapsed().as_secs_f32());
    let answers = tell(name, seen, &asked, begin).await?;
    let requests: Vec<Request> = world.requests_since(mark)?.into_iter().filter(counts).collect();
    let of = |program| requests.iter().filter(|r| r.program == program).count();
    let calls = world.control().all_calls().await? - calls;
    let each = |all: usize| all as f64 / claims.len() as f64;
    println!(
        "{name}: {:.1} requests a Snapshot ({:.1} driver, {:.1} nodes), {:.1} calls of vCenter",
        each(requests.len()),
        each(of(Program::Driver)),
        each(of(Program::DataManagers)),
        calls as f64 / claims.len() as f64
    );
    let allowed = REQUESTS * claims.len() + SHARED;
    ensure!(requests.len() <= allowed, "{} requests, not {allowed}: {:#?}", requests.len(), tally(&requests));
    let allowed = CALLS * claims.len() as u64 + SHARED as u64;
    ensure!(calls <= allowed, "{calls} calls of vCenter, not {allowed}");
    soon_enough(name, &answers, SOON_AT_ONCE)
}

/// Whether 99 of 100 came in time, where there are many.
fn soon_enough(name: &str, answers: &[Duration], limit: Duration) -> Result<()> {
    let late = of_100(answers, 99);
    ensure!(answers.len() < MANY || late < limit, "{name}: 99 of 100 were answered within {late:?}, not {limit:?}");
    Ok(())
}

/// Within what so many of a hundred were answered; `answers` are in order.
fn of_100(answers: &[Duration], percent: usize) -> Duration {
    answers[(answers.len() * percent / 100).min(answers.len() - 1)]
}

/// Fifty a second.
async fn paced(shop: &Namespace, claims: &[Claim], seen: &Seen) -> Result<()> {
    let begin = Instant::now();
    let mut pace = tokio::time::interval(PACE);
    let mut asking = Vec::new();
    for claim in claims {
        pace.tick().await;
        let (shop, claim) = (shop.clone(), claim.clone());
        asking.push(tokio::spawn(async move { anyhow::Ok(shop.snapshot(&claim).await?.name) }));
    }
    let mut asked = Vec::new();
    for name in asking {
        asked.push(name.await??);
    }
    let name = "50 a second";
    println!("{name}: {} asked for in {:.1} s", asked.len(), begin.elapsed().as_secs_f32());
    let answers = tell(name, seen, &asked, begin).await?;
    soon_enough(name, &answers, SOON_PACED)
}

/// Waits until all have ended well, and prints how soon they were answered; gives these times, in order.
async fn tell(name: &str, seen: &Seen, asked: &[String], begin: Instant) -> Result<Vec<Duration>> {
    let due = Instant::now() + DUE;
    let all = loop {
        let all = seen.lock().unwrap().clone();
        let ended = asked.iter().filter(|name| all.get(*name).is_some_and(|a| a.ended.is_some())).count();
        if ended == asked.len() {
            break all;
        }
        ensure!(Instant::now() < due, "{ended} of {} have ended after {} s", asked.len(), DUE.as_secs());
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    let mut answers = Vec::new();
    for name in asked {
        let it = all.get(name).context("an end was seen")?;
        let (_, phase) = it.ended.clone().context("an end was seen")?;
        ensure!(phase == SnapshotPhase::Uploaded, "{name} is {phase}");
        let (new, told) = (it.new.context("its phase New was seen")?, it.told.context("a condition was seen")?);
        answers.push(told.saturating_duration_since(new));
    }
    answers.sort();
    let at = |percent: usize| of_100(&answers, percent).as_secs_f32();
    println!(
        "{name}: from New to the first condition {:.2} s (half), {:.2} s (99 of 100), {:.2} s (all); all uploaded after {:.0} s",
        at(50),
        at(99),
        at(100),
        begin.elapsed().as_secs_f32()
    );
    Ok(answers)
}

async fn watched(snapshots: Api<Snapshot>, seen: Seen) {
    let mut objects =
        std::pin::pin!(watcher(snapshots, watcher::Config::default()).default_backoff().applied_objects());
    while let Some(object) = objects.next().await {
        let Ok(snapshot) = object else { continue }; // the watcher begins anew
        let (name, status, now) = (snapshot.name_any(), snapshot.status.unwrap_or_default(), Instant::now());
        let mut all = seen.lock().unwrap();
        let it = all.entry(name).or_default();
        if status.phase.is_some() {
            it.new.get_or_insert(now);
        }
        if !status.conditions.is_empty() {
            it.told.get_or_insert(now);
        }
        if let Some(phase) = status.phase.filter(SnapshotPhase::is_terminal) {
            it.ended.get_or_insert((now, phase));
        }
    }
}

/// Makes that many small claims.
async fn made(shop: &Namespace, count: usize) -> Result<Vec<Claim>> {
    let make = |number: usize| async move {
        let claim = shop.claim(&format!("data-{number:04}")).mib(1).create().await?;
        claim.write_random(500 + number as u64, 0, 64 << 10)?;
        anyhow::Ok(claim)
    };
    futures::stream::iter((0..count).map(make)).buffered(32).try_collect().await
}

fn counts(request: &Request) -> bool {
    let renewal = request.verb == "update" && request.resource == "leases";
    request.verb != "watch" && !renewal && request.program != Program::Plugin
}
