//! What strikes whom, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use api::{CloneFromSnapshot, DeleteSnapshot, Download, Snapshot, Upload};
use e2e::{World, insist};
use kube::Api;
use kube::api::ListParams;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

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
    /// All sessions end.
    SessionsEnded,
}

/// Processes that a backup needs. An end of theirs is the kubelet's or an administrator's to mend.
const PROCESSES: [&str; 7] =
    ["backup-driver", "data-manager-node-a", "data-manager-node-b", "s3", "vcenter", "kube-apiserver", "etcd"];
/// Phases that a strike waits for, so that short ones are met, too.
const MOMENTS: [&str; 9] = [
    "Snapshot New",
    "Snapshot Snapshotted",
    "Upload New",
    "Upload InProgress",
    "Upload Canceling",
    "Clone New",
    "Download New",
    "Download InProgress",
    "Deletion New",
];
/// How long a strike waits for its moment.
const WAIT: Duration = Duration::from_secs(3);
/// Pause between two looks whether the moment has come.
const LOOK: Duration = Duration::from_millis(100);

/// The weather of one storm.
pub(super) struct Weather {
    world: World,
    chance: StdRng,
    /// What each kind of strike has met: phases, and how often.
    met: BTreeMap<(&'static str, Harm), BTreeMap<String, u32>>,
}

impl Weather {
    pub(super) fn new(world: &World, seed: u64) -> Self {
        Self { world: world.clone(), chance: StdRng::seed_from_u64(seed), met: BTreeMap::new() }
    }

    /// That many strikes, each healed before the next.
    pub(super) async fn strikes(&mut self, rounds: u64) -> Result<()> {
        for round in 1..=rounds {
            let process = *PROCESSES.choose(&mut self.chance).expect("there are some");
            let harm = self.harm_to(process);
            let lasts = self.lasts(harm);
            let moment = *MOMENTS.choose(&mut self.chance).expect("there are some");
            let calm = Duration::from_millis(self.chance.random_range(0..2_000));
            tokio::time::sleep(calm).await;
            let met = self.wait_for(moment).await;
            println!("round {round}: {process} {harm:?} for {:.1} s; {}", lasts.as_secs_f32(), met.join(", "));
            let seen = self.met.entry((process, harm)).or_default();
            met.into_iter().for_each(|phase| *seen.entry(phase).or_default() += 1);
            self.strike(process, harm, lasts).await?;
            for started in insist("start what has ended", || async { self.world.revive().await }).await? {
                println!("  {started} had ended and was started again");
            }
        }
        Ok(())
    }

    fn harm_to(&mut self, process: &str) -> Harm {
        let own = match process {
            "vcenter" => Some(Harm::SessionsEnded),
            _ if process.starts_with("data-manager") => Some(Harm::HelpersKilled),
            _ => None,
        };
        let all: Vec<Harm> = [Harm::Killed, Harm::Paused, Harm::Slowed].into_iter().chain(own).collect();
        *all.choose(&mut self.chance).expect("there are some")
    }

    /// Pauses are now and then longer than every lease.
    fn lasts(&mut self, harm: Harm) -> Duration {
        let most = match harm {
            Harm::HelpersKilled | Harm::SessionsEnded => return Duration::ZERO,
            Harm::Paused if self.chance.random_ratio(1, 10) => return Duration::from_secs(75),
            Harm::Killed | Harm::Paused | Harm::Slowed => 8_000,
        };
        Duration::from_millis(self.chance.random_range(200..most))
    }

    async fn strike(&self, process: &str, harm: Harm, lasts: Duration) -> Result<()> {
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
            Harm::Paused => {
                if let Err(ended) = world.pause(process, lasts).await {
                    println!("  not paused: {ended:#}"); // it has just ended by itself
                }
            }
            Harm::Slowed => {
                if let Err(ended) = world.slow_down(process, lasts).await {
                    println!("  not slowed: {ended:#}"); // as above
                }
            }
            Harm::HelpersKilled => world.kill_helpers().await.map(drop)?,
            Harm::SessionsEnded => world.control().expire_sessions().await?,
        }
        Ok(())
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

    /// Prints what each kind of strike has met.
    pub(super) fn tells(&self) {
        for ((process, harm), met) in &self.met {
            println!("{process} {harm:?}: {met:?}");
        }
    }
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
    met.sort();
    met.dedup();
    Ok(met)
}
