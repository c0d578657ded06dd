//! What strikes whom, and when.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::{Result, ensure};
use api::{CloneFromSnapshot, DeleteSnapshot, Download, Snapshot, Upload};
use e2e::{VeleroStatus, World, insist};
use kube::Api;
use kube::api::ListParams;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

use super::super::DATA_MANAGERS;

/// What is done to a process, or to what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    /// SIGKILL, and a start some time later.
    Killed,
    /// SIGSTOP, and SIGCONT some time later.
    Paused,
    /// A tenth of its time.
    Slowed,
    /// Its processes with the disk library are killed.
    HelpersKilled,
    /// SIGSTOP for its processes with the disk library, and SIGCONT some time later.
    HelpersPaused,
    /// A tenth of their time for its processes with the disk library.
    HelpersSlowed,
    /// All sessions end.
    SessionsEnded,
}

/// One of the lab's data-managers, whichever.
const A_DATA_MANAGER: &str = "data-manager";
/// Velero, whose plugins die with it.
const VELERO: &str = "velero";
/// Processes that a backup needs. An end of theirs is the kubelet's or an administrator's to mend.
const PROCESSES: [&str; 7] = ["backup-driver", A_DATA_MANAGER, "s3", "vcenter", "kube-apiserver", "etcd", VELERO];
/// Phases that a strike waits for, so that short ones are met, too.
const MOMENTS: &[&str] = &[
    "Snapshot New",
    "Snapshot Snapshotted",
    "Upload New",
    "Upload InProgress",
    "Upload Canceling",
    "Upload UploadError",
    "Upload CleanupFailed",
    "Clone New",
    "Clone InProgress",
    "Clone Canceling",
    "Download New",
    "Download InProgress",
    "Download Retry",
    "Deletion New",
];
/// Those in which Velero has something to do.
const MOMENTS_OF_VELERO: &[&str] = &[
    "Backup InProgress",
    "Backup WaitingForPluginOperations",
    "Backup Deleting",
    "Restore InProgress",
    "Restore WaitingForPluginOperations",
    "Restore Finalizing",
];
/// Those in which a process with the disk library is at work.
const MOMENTS_OF_HELPERS: &[&str] =
    &["Upload InProgress", "Upload Canceling", "Clone Canceling", "Download InProgress"];
/// How long a strike waits for its moment.
const WAIT: Duration = Duration::from_secs(3);
/// Pause between two looks whether the moment has come.
const LOOK: Duration = Duration::from_millis(100);

/// A process, what is done to it, and when.
type Strike = (&'static str, Harm, &'static str);

/// What is done to whom, each with its moments: 296 strikes, all of which a storm of 300 rounds deals.
fn harms() -> Vec<(&'static str, Harm, &'static [&'static str])> {
    let mut all = Vec::new();
    for process in PROCESSES {
        let moments = if process == VELERO { MOMENTS_OF_VELERO } else { MOMENTS };
        all.extend([Harm::Killed, Harm::Paused, Harm::Slowed].map(|harm| (process, harm, moments)));
    }
    all.push(("vcenter", Harm::SessionsEnded, MOMENTS));
    let to_helpers = [Harm::HelpersKilled, Harm::HelpersPaused, Harm::HelpersSlowed];
    all.extend(to_helpers.map(|harm| (A_DATA_MANAGER, harm, MOMENTS_OF_HELPERS)));
    all
}

/// All strikes in an order by chance, dealt so that each harm comes once before one comes again: a short storm meets as many as it has
/// rounds.
fn deck(chance: &mut StdRng) -> VecDeque<Strike> {
    let mut suits = Vec::new();
    for (process, harm, moments) in harms() {
        let mut moments = moments.to_vec();
        moments.shuffle(chance);
        suits.push((process, harm, moments));
    }
    let mut deck = VecDeque::new();
    while !suits.is_empty() {
        suits.shuffle(chance);
        for (process, harm, moments) in &mut suits {
            deck.extend(moments.pop().map(|moment| (*process, *harm, moment)));
        }
        suits.retain(|(_, _, moments)| !moments.is_empty());
    }
    deck
}

/// The weather of one storm.
pub(super) struct Weather {
    world: World,
    chance: StdRng,
    /// The strikes to come; dealt anew when all were made.
    deck: VecDeque<Strike>,
    /// What each kind of strike has met: phases, and how often.
    met: BTreeMap<(&'static str, Harm), BTreeMap<String, u32>>,
}

impl Weather {
    pub(super) fn new(world: &World, seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let deck = deck(&mut chance);
        Self { world: world.clone(), chance, deck, met: BTreeMap::new() }
    }

    /// That many strikes, each healed before the next.
    pub(super) async fn strikes(&mut self, rounds: u64) -> Result<()> {
        for round in 1..=rounds {
            if self.deck.is_empty() {
                self.deck = deck(&mut self.chance);
            }
            let (kind, harm, moment) = self.deck.pop_front().expect("it was dealt");
            let node = *DATA_MANAGERS.choose(&mut self.chance).expect("there are some");
            let process = if kind == A_DATA_MANAGER { node } else { kind };
            let lasts = self.lasts(harm);
            let calm = Duration::from_millis(self.chance.random_range(0..1_500));
            tokio::time::sleep(calm).await;
            let met = self.wait_for(moment).await;
            let came = if met.iter().any(|phase| phase == moment) { "at" } else { "without" };
            let seconds = lasts.as_secs_f32();
            println!("round {round}: {process} {harm:?} for {seconds:.1} s, {came} {moment}; {}", met.join(", "));
            if self.strike(process, harm, lasts).await? {
                let seen = self.met.entry((kind, harm)).or_default();
                met.into_iter().for_each(|phase| *seen.entry(phase).or_default() += 1);
            } else {
                println!("  there was nobody to strike");
            }
            for started in insist("start what has ended", || async { self.world.revive().await }).await? {
                println!("  {started} had ended and was started again");
            }
        }
        Ok(())
    }

    /// Pauses are now and then longer than every lease.
    fn lasts(&mut self, harm: Harm) -> Duration {
        let most = match harm {
            Harm::HelpersKilled | Harm::SessionsEnded => return Duration::ZERO,
            Harm::Paused | Harm::HelpersPaused if self.chance.random_ratio(1, 10) => return Duration::from_secs(75),
            Harm::Killed | Harm::Paused | Harm::Slowed | Harm::HelpersPaused | Harm::HelpersSlowed => 8_000,
        };
        Duration::from_millis(self.chance.random_range(200..most))
    }

    /// Whether there was anybody to strike.
    async fn strike(&self, process: &str, harm: Harm, lasts: Duration) -> Result<bool> {
        let world = &self.world;
        match harm {
            Harm::Killed => {
                if world.kill(process).await.is_ok() {
                    tokio::time::sleep(lasts).await;
                } // else it has just ended by itself: as good
                insist("start it again", || async { world.revive().await }).await?;
                if process == "vcenter" {
                    insist("make disks slow again", || async { super::slow_disks(world).await }).await?;
                }
            }
            // else it has just ended by itself
            Harm::Paused => return Ok(was_there(world.pause(process, lasts).await)),
            Harm::Slowed => return Ok(was_there(world.slow_down(process, lasts).await)),
            Harm::HelpersKilled => return Ok(world.kill_helpers().await? > 0),
            Harm::HelpersPaused => return Ok(world.pause_helpers(lasts).await? > 0),
            Harm::HelpersSlowed => return Ok(world.slow_helpers(lasts).await? > 0),
            Harm::SessionsEnded => world.control().expire_sessions().await?,
        }
        Ok(true)
    }

    /// Waits until an object is in that phase, not for ever; returns the phases that objects are in.
    async fn wait_for(&self, moment: &str) -> Vec<String> {
        let until = tokio::time::Instant::now() + WAIT;
        loop {
            let met = match tokio::time::timeout(WAIT, phases(&self.world)).await {
                Ok(Ok(met)) => met,
                _ => vec!["an API server that does not answer".to_owned()],
            };
            if met.iter().any(|phase| phase == moment) || tokio::time::Instant::now() > until {
                return met;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Prints what each kind of strike has met, and which of its moments it never met.
    pub(super) fn tells(&self) {
        let (nothing, mut made, mut all) = (BTreeMap::new(), 0, 0);
        for (process, harm, moments) in harms() {
            let met = self.met.get(&(process, harm)).unwrap_or(&nothing);
            let never: Vec<&str> = moments.iter().copied().filter(|moment| !met.contains_key(*moment)).collect();
            all += moments.len();
            made += moments.len() - never.len();
            println!("{process} {harm:?}: {met:?}; never at {never:?}");
        }
        println!("{made} of {all} harms to a process at a moment were met");
    }

    /// In a storm in which all were dealt, no kind of strike on processes that are always there may have met nobody each time.
    pub(super) fn has_struck_everybody(&self, rounds: u64) -> Result<()> {
        let all: usize = harms().iter().map(|(_, _, moments)| moments.len()).sum();
        let idle: Vec<_> =
            harms().into_iter().filter(|(process, harm, _)| !self.met.contains_key(&(*process, *harm))).collect();
        ensure!(rounds < all as u64 || idle.is_empty(), "never struck anybody: {idle:?}");
        Ok(())
    }
}

/// Whether a strike found its process: one may just have ended by itself.
fn was_there(struck: Result<()>) -> bool {
    if let Err(why) = &struck {
        println!("  not struck: {why:#}");
    }
    struck.is_ok()
}

/// The phases of all jobs that have not ended, each once.
async fn phases(world: &World) -> Result<Vec<String>> {
    let (client, all) = (world.client(), ListParams::default());
    let mut met: Vec<String> = Vec::new();
    for it in Api::<Snapshot>::all(client.clone()).list(&all).await? {
        met.extend(it.phase().filter(|phase| !phase.is_terminal()).map(|phase| format!("Snapshot {phase}")));
    }
    for it in Api::<Upload>::all(client.clone()).list(&all).await? {
        met.extend(it.phase().filter(|phase| !phase.is_terminal()).map(|phase| format!("Upload {phase}")));
    }
    for it in Api::<CloneFromSnapshot>::all(client.clone()).list(&all).await? {
        met.extend(it.phase().filter(|phase| !phase.is_terminal()).map(|phase| format!("Clone {phase}")));
    }
    for it in Api::<Download>::all(client.clone()).list(&all).await? {
        met.extend(it.phase().filter(|phase| !phase.is_terminal()).map(|phase| format!("Download {phase}")));
    }
    for it in Api::<DeleteSnapshot>::all(client).list(&all).await? {
        met.extend(it.phase().filter(|phase| !phase.is_terminal()).map(|phase| format!("Deletion {phase}")));
    }
    let goes_on = |status: &VeleroStatus| !status.phase.is_empty() && !status.has_ended();
    for it in world.velero_server().backups().list(&all).await? {
        met.extend(it.status.filter(goes_on).map(|status| format!("Backup {}", status.phase)));
    }
    for it in world.velero_server().restores().list(&all).await? {
        met.extend(it.status.filter(goes_on).map(|status| format!("Restore {}", status.phase)));
    }
    met.sort();
    met.dedup();
    Ok(met)
}
