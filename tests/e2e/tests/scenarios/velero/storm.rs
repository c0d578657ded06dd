//! Many small claims in one backup: how long it takes, what the plugin holds, and what the API server is asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{Claim, Namespace, Program, Request, World, nothing_left, tally};
use futures::{StreamExt as _, TryStreamExt as _};

crate::scenarios![many_small_claims_in_one_backup_cost_little];

/// How many, unless the variable says otherwise; a hundred take too long for every run of all tests.
const CLAIMS: usize = 12;
/// The variable.
const STORM: &str = "E2E_STORM_CLAIMS";
/// Requests for one claim by plugin, driver and data-managers together, without watches, renewals of leases, and polls. It
/// takes 16; one more is for two nodes that want the same Upload at once. The issue allows 20 with a hundred claims.
const EACH: usize = 17;
/// Requests that all claims of a backup share, about 50: every process reads settings, Secrets and repository once, and Velero
/// starts the plugin anew for each poll. With twelve claims they weigh four a claim, with a hundred a half.
const SHARED: usize = 60;
/// Most memory of a plugin process in MiB.
const MEMORY: u64 = 30;

async fn many_small_claims_in_one_backup_cost_little(world: World) -> Result<()> {
    let claims = std::env::var(STORM).map_or(Ok(CLAIMS), |text| text.parse()).context("a number of claims")?;
    let shop = world.namespace("vstorm").await?;
    made(&shop, claims).await?;
    let velero = world.velero_server();
    let name = shop.name();
    let mark = world.mark()?;
    let peak = tokio::spawn(watched(world.clone()));
    let begin = Instant::now();
    velero.back_up(name, name, &[]).await?;
    let ended = velero.backup_is(name, "Completed").await;
    let took = begin.elapsed();
    peak.abort();
    ended?;
    let asked = world.requests_since(mark)?;
    let peak = PEAK.load(std::sync::atomic::Ordering::Relaxed);
    nothing_left(&world, &shop, claims).await?;
    told(claims, took, peak, &asked);
    let counted = asked.iter().filter(|r| counts(r)).count();
    ensure!(peak > 0 && peak <= MEMORY * 1024, "the plugin held {peak} KiB");
    let allowed = EACH * claims + SHARED;
    ensure!(counted <= allowed, "{counted} requests for {claims} claims, not {allowed}: {:#?}", tally(&asked));
    one_get_a_poll(&asked)
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

async fn made(shop: &Namespace, claims: usize) -> Result<()> {
    let make = |number: usize| async move {
        let claim: Claim = shop.claim(&format!("data-{number:03}")).mib(1).create().await?;
        claim.fill_random(300 + number as u64)
    };
    futures::stream::iter((0..claims).map(make)).buffer_unordered(8).try_collect().await
}

/// Whether a request counts: no watch, no renewal of a lease, and no poll of an operation.
fn counts(request: &Request) -> bool {
    request.verb != "watch" && !is_renewal(request) && !is_poll(request)
}

fn is_renewal(request: &Request) -> bool {
    request.verb == "update" && request.resource == "leases"
}

fn is_poll(request: &Request) -> bool {
    request.program == Program::Plugin && request.verb == "get" && request.resource == "snapshots"
}

/// A process of the plugin reads its settings once and asks for each operation that is open once: so there are no more
/// questions about one Snapshot than there were processes.
fn one_get_a_poll(asked: &[Request]) -> Result<()> {
    let plugin = || asked.iter().filter(|r| r.program == Program::Plugin && r.verb == "get");
    let processes = plugin().filter(|r| r.name == api::names::CONFIG).count();
    let mut polls: BTreeMap<&str, usize> = BTreeMap::new();
    for poll in plugin().filter(|r| is_poll(r)) {
        *polls.entry(&poll.name).or_default() += 1;
    }
    let most = polls.values().copied().max().unwrap_or_default();
    ensure!(most <= processes, "{most} questions about one Snapshot by {processes} processes: {polls:#?}");
    Ok(())
}

fn told(claims: usize, took: Duration, peak: u64, asked: &[Request]) {
    println!("{claims} claims in one backup: {:.1} s, the plugin held at most {peak} KiB", took.as_secs_f32());
    for program in [Program::Plugin, Program::Driver, Program::DataManagers] {
        let of = |r: &&Request| r.program == program && counts(r);
        let count = asked.iter().filter(of).count();
        println!("{program:?}: {count} requests, {:.1} a claim", count as f64 / claims as f64);
    }
    for (what, count) in tally(asked.iter().filter(|r| counts(r))) {
        println!("  {count:6}  {what}");
    }
}
