//! The labs that scenarios play on, and how many play on each at a time.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context as _, Result};
use e2e::{Server, World, nothing_left_at_all};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use crate::Scenario;

/// One lab, started when the first scenario needs it.
pub(crate) struct Lab {
    name: String,
    velero: Server,
    /// `None` before its first scenario, and after one that has left it in disorder.
    world: AsyncMutex<Option<World>>,
}

/// One lab starts at a time: five at once take longer than one after the other on two cores.
static STARTING: AsyncMutex<()> = AsyncMutex::const_new(());

impl Lab {
    /// `E2E_LAB` is for a second run beside the first, on labs of other names.
    pub(crate) fn new(name: &str, velero: Server) -> Arc<Self> {
        let name = std::env::var("E2E_LAB").map_or_else(|_| name.to_owned(), |prefix| format!("{prefix}-{name}"));
        Arc::new(Self { name, velero, world: AsyncMutex::new(None) })
    }

    async fn world(&self) -> Result<World> {
        let mut world = self.world.lock().await;
        if let Some(world) = world.as_ref() {
            return Ok(world.clone());
        }
        let _one = STARTING.lock().await;
        Ok(world.insert(World::start(&self.name, self.velero).await?).clone())
    }

    /// Ends it after a scenario that may have left programs killed and settings changed: the next one starts it anew.
    async fn is_in_disorder(&self) {
        let world = self.world.lock().await.take();
        if let Some(Err(error)) = match world {
            Some(world) => Some(world.stop().await),
            None => None,
        } {
            eprintln!("lab {} could not be stopped: {error:?}", self.name);
        }
    }

    /// Looks at what all its scenarios together have left, and stops it. A lab that nobody needed was not started.
    async fn stop(&self) -> Result<()> {
        let Some(world) = self.world.lock().await.take() else { return Ok(()) };
        let left = nothing_left_at_all(&world).await.with_context(|| format!("when all was over in lab {}", self.name));
        world.stop().await.and(left)
    }
}

/// Places to play at; a scenario waits for a free one, those that asked first come first. A lab with several places has
/// several scenarios at a time.
pub(crate) struct Stage {
    labs: Vec<Arc<Lab>>,
    free: Mutex<Vec<Arc<Lab>>>,
    places: Arc<Semaphore>,
    runtime: Arc<Runtime>,
    /// Whether each lab has one place: nobody else is on it when a scenario ends.
    one_each: bool,
}

impl Stage {
    /// Stages may share their places: then so many scenarios are on all of them together.
    pub(crate) fn new(labs: Vec<Arc<Lab>>, places: &Arc<Semaphore>, runtime: &Arc<Runtime>) -> Arc<Self> {
        let free: Vec<_> = labs.iter().cycle().take(places.available_permits()).cloned().collect();
        let one_each = free.len() == labs.len();
        Arc::new(Self { labs, free: Mutex::new(free), places: places.clone(), runtime: runtime.clone(), one_each })
    }

    /// Plays a scenario and says how long it took, the wait for a place and the lab's start not counted.
    pub(crate) fn play(&self, (name, scenario): (&str, Scenario)) -> Result<()> {
        self.runtime.block_on(async {
            let _place = self.places.acquire().await?;
            let lab = self.free.lock().unwrap().pop().expect("as many labs as places");
            let outcome = async {
                let world = lab.world().await?;
                let begin = Instant::now();
                let outcome = tokio::spawn(scenario(world)).await; // a panic is this scenario's failure, not the run's end
                println!("{name}: {:.0} s in lab {}", begin.elapsed().as_secs_f32(), lab.name);
                outcome?
            };
            let outcome = outcome.await;
            if outcome.is_err() && self.one_each && std::env::var_os("LAB_KEEP").is_none() {
                lab.is_in_disorder().await;
            }
            self.free.lock().unwrap().push(lab);
            outcome
        })
    }

    /// Stops its labs; says so when scenarios have left anything.
    pub(crate) fn ends_clean(&self) -> bool {
        let stopped = |lab: &Arc<Lab>| self.runtime.block_on(lab.stop()).inspect_err(|e| eprintln!("{e:?}")).is_ok();
        self.labs.iter().filter(|lab| !stopped(lab)).count() == 0 // every one is stopped, whatever the others say
    }
}
