//! Any store, with faults where a test wants them.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::{Body, Error, ErrorKind, Object, PutNew, Store};

/// What is done to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `get` and `get_range`.
    Get,
    /// `put` and `put_new`.
    Put,
    /// `size`.
    Size,
    /// `list`.
    List,
    /// `delete`.
    Delete,
}

/// When an operation fails, and how.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which operation.
    pub operation: Operation,
    /// Only keys that contain this; empty means all.
    pub key_contains: String,
    /// This many matching operations pass first.
    pub after: usize,
    /// How many fail from then on; `usize::MAX` for ever.
    pub times: usize,
    /// What the store says.
    pub kind: ErrorKind,
    /// Whether the operation is done all the same, as when only the answer is lost.
    pub done_anyway: bool,
    /// Whether no answer ever comes, so that only the caller can give it up.
    pub silent: bool,
    /// Whether the operation waits for [`FaultyStore::heal`], and is done then.
    pub until_healed: bool,
}

impl Fault {
    /// Fails every such operation with `kind`.
    pub fn always(operation: Operation, key_contains: &str, kind: ErrorKind) -> Self {
        let key_contains = key_contains.to_owned();
        let (done_anyway, silent, until_healed) = (false, false, false);
        Self { operation, key_contains, after: 0, times: usize::MAX, kind, done_anyway, silent, until_healed }
    }

    /// Lets `passing` such operations through, then fails for ever.
    pub fn after(mut self, passing: usize) -> Self {
        self.after = passing;
        self
    }

    /// Fails only `times` times.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Loses only the answer.
    pub fn done_anyway(mut self) -> Self {
        self.done_anyway = true;
        self
    }

    /// Never answers.
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// Answers once the store is healed, with what it finds by then.
    pub fn until_healed(mut self) -> Self {
        self.until_healed = true;
        self
    }
}

/// A store that fails as told, and can die altogether.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: Arc<State>,
}

struct State {
    faults: Mutex<Vec<Fault>>,
    puts_until_death: AtomicUsize,
    puts: AtomicUsize,
    writes_until_death: AtomicUsize,
    writes: AtomicUsize,
    struck: AtomicUsize,
    heals: watch::Sender<()>,
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({:?})", self.inner)
    }
}

impl FaultyStore {
    /// Without faults so far.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        let state = State {
            faults: Mutex::default(),
            puts_until_death: AtomicUsize::new(usize::MAX),
            puts: AtomicUsize::new(0),
            writes_until_death: AtomicUsize::new(usize::MAX),
            writes: AtomicUsize::new(0),
            struck: AtomicUsize::new(0),
            heals: watch::Sender::default(),
        };
        Self { inner, state: Arc::new(state) }
    }

    /// Adds a fault.
    pub fn fail(&self, fault: Fault) {
        self.state.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Lets `puts` more puts through; after that every operation fails, as if the process had been killed.
    pub fn die_after_puts(&self, puts: usize) {
        self.state.puts_until_death.store(self.puts() + puts, Ordering::SeqCst);
    }

    /// Lets `writes` more puts and removals through; after that every operation fails, as if the process had been killed.
    pub fn die_after_writes(&self, writes: usize) {
        self.state.writes_until_death.store(self.writes() + writes, Ordering::SeqCst);
    }

    /// Forgets all faults, and lives again.
    pub fn heal(&self) {
        self.state.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.state.puts_until_death.store(usize::MAX, Ordering::SeqCst);
        self.state.writes_until_death.store(usize::MAX, Ordering::SeqCst);
        self.state.heals.send_replace(());
    }

    /// Puts that went through so far.
    pub fn puts(&self) -> usize {
        self.state.puts.load(Ordering::SeqCst)
    }

    /// Puts and removals that went through so far, removals of what was not there included.
    pub fn writes(&self) -> usize {
        self.state.writes.load(Ordering::SeqCst)
    }

    /// Operations that a fault has struck so far.
    pub fn struck(&self) -> usize {
        self.state.struck.load(Ordering::SeqCst)
    }

    fn matching(&self, operation: Operation, key: &str) -> Option<Fault> {
        let mut faults = self.state.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let mut struck = None;
        for fault in faults.iter_mut().filter(|f| f.operation == operation && key.contains(&f.key_contains)) {
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 && struck.is_none() {
                fault.times = if fault.times == usize::MAX { usize::MAX } else { fault.times - 1 };
                struck = Some(fault.clone());
            }
        }
        struck
    }

    /// Runs `real` unless a fault says otherwise.
    async fn run<T>(
        &self,
        operation: Operation,
        verb: &'static str,
        key: &str,
        real: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let told = |kind| Error::new(kind, verb, key, self.place(), "a fault on purpose");
        let dead = self.puts() >= self.state.puts_until_death.load(Ordering::SeqCst)
            || self.writes() >= self.state.writes_until_death.load(Ordering::SeqCst);
        if dead {
            return Err(told(ErrorKind::Unreachable));
        }
        let mut heals = self.state.heals.subscribe(); // before the look for a fault: whoever heals it after that is heard
        let mut fault = self.matching(operation, key);
        if fault.as_ref().is_some_and(|fault| fault.until_healed) {
            self.state.struck.fetch_add(1, Ordering::SeqCst);
            let _ = heals.changed().await; // the sender is held here
            fault = None;
        }
        if let Some(fault) = fault.as_ref().filter(|fault| !fault.done_anyway) {
            return Err(self.strike(fault, told(fault.kind)).await);
        }
        let answer = real.await;
        if operation == Operation::Put && answer.is_ok() {
            self.state.puts.fetch_add(1, Ordering::SeqCst);
        }
        if matches!(operation, Operation::Put | Operation::Delete) && answer.is_ok() {
            self.state.writes.fetch_add(1, Ordering::SeqCst);
        }
        match fault {
            Some(fault) => Err(self.strike(&fault, told(fault.kind)).await),
            None => answer,
        }
    }

    /// What the caller hears of a fault, where it hears anything.
    async fn strike(&self, fault: &Fault, told: Error) -> Error {
        self.state.struck.fetch_add(1, Ordering::SeqCst);
        if fault.silent {
            std::future::pending::<()>().await;
        }
        told
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn place(&self) -> String {
        format!("{} (with faults)", self.inner.place())
    }

    fn puts_in_flight(&self) -> usize {
        self.inner.puts_in_flight()
    }

    async fn get(&self, key: &str) -> Result<Bytes, Error> {
        self.run(Operation::Get, "get", key, self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes, Error> {
        self.run(Operation::Get, "get", key, self.inner.get_range(key, offset, length)).await
    }

    async fn put(&self, key: &str, body: Body) -> Result<(), Error> {
        self.run(Operation::Put, "put", key, self.inner.put(key, body)).await
    }

    async fn put_new(&self, key: &str, body: Body) -> Result<PutNew, Error> {
        self.run(Operation::Put, "put", key, self.inner.put_new(key, body)).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, Error> {
        self.run(Operation::Size, "look at", key, self.inner.size(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        self.run(Operation::List, "list", prefix, self.inner.list(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.run(Operation::Delete, "delete", key, self.inner.delete(key)).await
    }

    async fn sweep(&self) -> Result<usize, Error> {
        self.inner.sweep().await
    }
}
