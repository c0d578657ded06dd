//! Many small claims in one backup: how long it takes, what the plugin holds, and what the API server is asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::names;
use e2e::{Claim, DiskFault, Namespace, Program, Request, World, nothing_left, tally};
use futures::{StreamExt as _, TryStreamExt as _};

crate::scenarios![many_small_claims_in_one_backup_cost_little];

/// How many, unless the variable says otherwise; a hundred take too long for every run of all tests.
const CLAIMS: usize = 12;
/// The variable.
const CLAIMS_VARIABLE: &str = "E2E_CLAIMS";
/// Claims of the backup whose requests are what all claims of a backup share, and little more.
const FEW: usize = 2;
/// The label that says which claims those are.
const IS_OF_FEW: &str = "batch";
/// Requests that each further claim of a backup costs plugin, driver and data-managers together, without watches, renewals
/// of leases, and polls. It takes 16; one more is for two nodes that want the same Upload at once.
const EACH: usize = 17;
/// Requests that all claims of a backup share, about 40: every process reads Secrets and repository once.
const SHARED: usize = 55;
/// How long the first upload of the few is held up, in milliseconds: Velero polls every second, and is seen to do it.
const HELD_UP: u64 = 6_000;
/// How often the slowest upload is asked after at least; fewer polls would show nothing.
const POLLS: usize = 3;
/// Most memory of a plugin process in MiB.
const MEMORY: u64 = 30;

async fn many_small_claims_in_one_backup_cost_little(world: World) -> Result<()> {
    let claims =
        std::env::var(CLAIMS_VARIABLE).map_or(Ok(CLAIMS), |text| text.parse()).context("a number of claims")?;
    ensure!(claims > FEW, "{CLAIMS_VARIABLE} is more than {FEW}");
    let shop = world.namespace("vmany").await?;
    let held = made(&shop, claims).await?;
    let slow = DiskFault { delay_ms: HELD_UP, count: 1, ..DiskFault::new(held.disk.as_str(), "Read", "slow") };
    world.control().disk_fault(&slow).await?;
    let (few, _) = backed_up(&world, &shop, "few", &["--selector", &format!("{IS_OF_FEW}=few")]).await?;
    world.control().heal(held.disk.as_str()).await?;
    let peak = tokio::spawn(watched(world.clone()));
    let backed_up = backed_up(&world, &shop, "all", &[]).await;
    peak.abort();
    let (all, took) = backed_up?;
    let peak = PEAK.load(std::sync::atomic::Ordering::Relaxed);
    nothing_left(&world, &shop, FEW + claims).await?;
    told(claims, took, peak, &few, &all);
    ensure!(peak > 0 && peak <= MEMORY * 1024, "the plugin held {peak} KiB");
    let (shared, counted) = (count(&few), count(&all));
    ensure!(shared <= EACH * FEW + SHARED, "{shared} requests for {FEW} claims: {:#?}", tally(&few));
    let further = counted.saturating_sub(shared);
    let allowed = EACH * (claims - FEW);
    ensure!(further <= allowed, "{further} requests more for {} more, not {allowed}: {:#?}", claims - FEW, tally(&all));
    ensure!(one_get_a_poll(&few)? >= POLLS, "held up for {HELD_UP} ms, and hardly polled: {:#?}", tally(&few));
    one_get_a_poll(&all).map(drop)
}

/// What a backup asked of the API server, and how long it took.
async fn backed_up(world: &World, shop: &Namespace, name: &str, words: &[&str]) -> Result<(Vec<Request>, Duration)> {
    let (velero, name) = (world.velero_server(), format!("{}-{name}", shop.name()));
    let (mark, begin) = (world.mark()?, Instant::now());
    velero.back_up(&name, shop.name(), words).await?;
    velero.backup_is(&name, "Completed").await?;
    Ok((world.requests_since(mark)?, begin.elapsed()))
}

/// What the plugin holds at most; a poll of a process that may end at any moment sees a little less.
static PEAK: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

async fn watched(world: World) {
    loop {
        if let Ok(now) = world.plugin_memory_kib() {
            PEAK.fetch_max(now, std::sync::atomic::Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Makes that many, and returns the first.
async fn made(shop: &Namespace, claims: usize) -> Result<Claim> {
    let make = |number: usize| async move {
        let batch = if number < FEW { "few" } else { "rest" };
        let claim = shop.claim(&format!("data-{number:03}")).mib(1).label(IS_OF_FEW, batch);
        let claim: Claim = claim.create().await?;
        claim.fill_random(300 + number as u64)?;
        anyhow::Ok(claim)
    };
    let made: Vec<Claim> = futures::stream::iter((0..claims).map(make)).buffered(8).try_collect().await?;
    made.into_iter().next().context("more than none")
}

/// Whether a request counts: no watch, no renewal of a lease, and nothing of a poll.
fn counts(request: &Request) -> bool {
    request.verb != "watch" && !is_renewal(request) && !is_poll(request) && !is_look_at_settings(request)
}

fn count(asked: &[Request]) -> usize {
    asked.iter().filter(|request| counts(request)).count()
}

fn is_renewal(request: &Request) -> bool {
    request.verb == "update" && request.resource == "leases"
}

fn is_poll(request: &Request) -> bool {
    request.program == Program::Plugin && request.verb == "get" && request.resource == "snapshots"
}

/// Each process of the plugin reads both ConfigMaps once, and Velero starts one for each round of polls.
fn is_look_at_settings(request: &Request) -> bool {
    let settings = [names::CONFIG, names::FEATURES];
    request.program == Program::Plugin && request.verb == "get" && settings.contains(&request.name.as_str())
}

/// A round of polls is a process, which asks once for each Snapshot that is not done and reads the settings once; the first
/// round is of the process that began the backup. So the Snapshot that is done last was asked for as often as there were
/// rounds, and as often as the settings were read. Returns how many rounds there were.
fn one_get_a_poll(asked: &[Request]) -> Result<usize> {
    let mut gets: BTreeMap<&str, usize> = BTreeMap::new();
    for poll in asked.iter().filter(|request| is_poll(request)) {
        *gets.entry(&poll.name).or_default() += 1;
    }
    let rounds = gets.values().copied().max().context("nobody asked how far it is")?;
    let looks = asked.iter().filter(|r| is_look_at_settings(r) && r.name == names::CONFIG).count();
    println!("{rounds} rounds of polls, the settings were read {looks} times");
    ensure!(rounds <= looks, "{looks} processes asked {rounds} times for one Snapshot: {gets:#?}");
    ensure!(looks <= rounds + 1, "in {rounds} rounds of polls the settings were read {looks} times");
    Ok(rounds)
}

fn told(claims: usize, took: Duration, peak: u64, few: &[Request], asked: &[Request]) {
    println!("{claims} claims in one backup: {:.1} s, the plugin held at most {peak} KiB", took.as_secs_f32());
    println!("{FEW} claims in one before: {} requests", count(few));
    for program in [Program::Plugin, Program::Driver, Program::DataManagers] {
        let of = |r: &&Request| r.program == program && counts(r);
        let count = asked.iter().filter(of).count();
        println!("{program:?}: {count} requests, {:.1} a claim", count as f64 / claims as f64);
    }
    for (what, count) in tally(asked.iter().filter(|r| counts(r))) {
        println!("  {count:6}  {what}");
    }
}
