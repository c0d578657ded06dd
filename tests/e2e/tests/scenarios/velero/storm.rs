//! Many small claims in one backup: how long it takes, what the plugin holds, and what the API server is asked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{Claim, Namespace, Program, Request, World, nothing_left, tally};
use futures::{StreamExt as _, TryStreamExt as _};

crate::scenarios![many_small_claims_in_one_backup_cost_little];

/// How many, unless the variable says otherwise; a hundred take too long for every run of all tests.
const CLAIMS: usize = 12;
/// The variable.
const STORM: &str = "E2E_STORM_CLAIMS";
/// Claims of the backup whose requests are what all claims of a backup share, and little more.
const FEW: usize = 2;
/// The label that says which claims those are.
const IS_OF_FEW: &str = "storm";
/// Requests that each further claim of a backup costs plugin, driver and data-managers together, without watches, renewals
/// of leases, and polls. It takes 16; one more is for two nodes that want the same Upload at once.
const EACH: usize = 17;
/// Requests that all claims of a backup share, about 50: every process reads settings, Secrets and repository once, and Velero
/// starts the plugin anew for each poll.
const SHARED: usize = 60;
/// Most memory of a plugin process in MiB.
const MEMORY: u64 = 30;

async fn many_small_claims_in_one_backup_cost_little(world: World) -> Result<()> {
    let claims = std::env::var(STORM).map_or(Ok(CLAIMS), |text| text.parse()).context("a number of claims")?;
    ensure!(claims > FEW, "{STORM} is more than {FEW}");
    let shop = world.namespace("vstorm").await?;
    made(&shop, claims).await?;
    let (few, _) = backed_up(&world, &shop, "few", &["--selector", &format!("{IS_OF_FEW}=few")]).await?;
    let peak = tokio::spawn(watched(world.clone()));
    let backed_up = backed_up(&world, &shop, "all", &[]).await;
    peak.abort();
    let (all, took) = backed_up?;
    let peak = PEAK.load(std::sync::atomic::Ordering::Relaxed);
    nothing_left(&world, &shop, FEW + claims).await?;
    told(claims, took, peak, &all);
    ensure!(peak > 0 && peak <= MEMORY * 1024, "the plugin held {peak} KiB");
    let (shared, counted) = (count(&few), count(&all));
    ensure!(shared <= EACH * FEW + SHARED, "{shared} requests for {FEW} claims: {:#?}", tally(&few));
    let further = counted.saturating_sub(shared);
    let allowed = EACH * (claims - FEW);
    ensure!(further <= allowed, "{further} requests more for {} more, not {allowed}: {:#?}", claims - FEW, tally(&all));
    one_get_a_poll(&all)
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

async fn made(shop: &Namespace, claims: usize) -> Result<()> {
    let make = |number: usize| async move {
        let batch = if number < FEW { "few" } else { "rest" };
        let claim = shop.claim(&format!("data-{number:03}")).mib(1).label(IS_OF_FEW, batch);
        let claim: Claim = claim.create().await?;
        claim.fill_random(300 + number as u64)
    };
    futures::stream::iter((0..claims).map(make)).buffer_unordered(8).try_collect().await
}

/// Whether a request counts: no watch, no renewal of a lease, and no poll of an operation.
fn counts(request: &Request) -> bool {
    request.verb != "watch" && !is_renewal(request) && !is_poll(request)
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

/// Velero starts the plugin anew for each poll. A process reads its settings once, right after the first Snapshot that it is
/// asked about; so what was asked between two looks at the settings, that one included, was asked by one process.
fn one_get_a_poll(asked: &[Request]) -> Result<()> {
    let gets = asked.iter().filter(|r| r.program == Program::Plugin && r.verb == "get");
    let mut order: Vec<&str> = Vec::new(); // names of Snapshots; empty where a process begins
    for get in gets {
        if get.name == api::names::CONFIG {
            let first = order.pop_if(|last| !last.is_empty());
            order.extend(std::iter::once("").chain(first));
        } else if is_poll(get) {
            order.push(&get.name);
        }
    }
    ensure!(order.iter().any(|name| !name.is_empty()), "nobody asked how far it is");
    for process in order.split(|name| name.is_empty()) {
        let once: BTreeSet<_> = process.iter().collect();
        ensure!(once.len() == process.len(), "a process asked for a Snapshot twice: {process:?} of {order:#?}");
    }
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
