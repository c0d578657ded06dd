//! Objects in memory, and who may touch them when.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::{Body, Error, ErrorKind, Object, PutNew, Store};

/// Objects; clones share them.
#[derive(Clone, Default)]
pub(super) struct Memory {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    /// The same objects, from here on apart.
    pub(super) fn fork(&self) -> Self {
        let objects = self.objects.lock().unwrap().clone();
        Self { objects: Arc::new(Mutex::new(objects)) }
    }

    pub(super) fn keys(&self, prefix: &str) -> Vec<String> {
        self.objects.lock().unwrap().keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Writes all objects below a folder.
    pub(super) fn save(&self, folder: &Path) {
        for (key, bytes) in &*self.objects.lock().unwrap() {
            let path = folder.join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    fn missing(key: &str) -> Error {
        Error::new(ErrorKind::NotFound, "get", key, "memory", "there is none")
    }
}

#[async_trait]
impl Store for Memory {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    async fn get(&self, key: &str) -> Result<Bytes, Error> {
        self.objects.lock().unwrap().get(key).cloned().ok_or_else(|| Self::missing(key))
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes, Error> {
        let all = self.get(key).await?;
        let (start, end) = (usize::try_from(offset).unwrap(), usize::try_from(offset + length).unwrap());
        if end > all.len() {
            return Err(Error::new(ErrorKind::Failed, "get", key, "memory", "it ends before"));
        }
        Ok(all.slice(start..end))
    }

    async fn put(&self, key: &str, body: Body) -> Result<(), Error> {
        self.objects.lock().unwrap().insert(key.to_owned(), body.bytes);
        Ok(())
    }

    async fn put_new(&self, key: &str, body: Body) -> Result<PutNew, Error> {
        let mut objects = self.objects.lock().unwrap();
        if objects.contains_key(key) {
            return Ok(PutNew::Exists);
        }
        objects.insert(key.to_owned(), body.bytes);
        Ok(PutNew::Created)
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, Error> {
        Ok(self.objects.lock().unwrap().get(key).map(|bytes| bytes.len() as u64))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        let objects = self.objects.lock().unwrap();
        let below = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(below.map(|(key, bytes)| Object { key: key.clone(), size: bytes.len() as u64 }).collect())
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.objects.lock().unwrap().remove(key);
        Ok(())
    }
}

/// Whose turn it is: parts of `(actor, steps)`, one after the other.
pub(super) struct Schedule {
    turns: tokio::sync::watch::Sender<Turns>,
}

struct Turns {
    /// Last part first.
    parts: Vec<(usize, usize)>,
    busy: bool,
    done: [bool; 2],
    steps: [usize; 2],
}

impl Turns {
    /// Drops parts that nobody will use any more.
    fn tidy(&mut self) {
        while self.parts.last().is_some_and(|(actor, left)| *left == 0 || self.done[*actor]) {
            self.parts.pop();
        }
    }

    fn may_step(&self, actor: usize) -> bool {
        !self.busy && self.parts.last().is_none_or(|(turn, _)| *turn == actor)
    }
}

impl Schedule {
    pub(super) fn new(parts: &[(usize, usize)]) -> Arc<Self> {
        let mut turns =
            Turns { parts: parts.iter().rev().copied().collect(), busy: false, done: [false; 2], steps: [0; 2] };
        turns.tidy();
        Arc::new(Self { turns: tokio::sync::watch::Sender::new(turns) })
    }

    /// Waits for this actor's turn and does one step while nobody else does one.
    async fn step<T>(&self, actor: usize, work: impl Future<Output = T>) -> T {
        let mut turns = self.turns.subscribe();
        loop {
            turns.wait_for(|turns| turns.may_step(actor)).await.unwrap();
            let taken = self.turns.send_if_modified(|turns| {
                let free = turns.may_step(actor);
                turns.busy |= free;
                free
            });
            if taken {
                break;
            }
        }
        let done = work.await;
        self.turns.send_modify(|turns| {
            turns.busy = false;
            turns.steps[actor] += 1;
            if let Some((_, left)) = turns.parts.last_mut() {
                *left -= 1;
            }
            turns.tidy();
        });
        done
    }

    /// This actor has nothing left to do.
    pub(super) fn leave(&self, actor: usize) {
        self.turns.send_modify(|turns| {
            turns.done[actor] = true;
            turns.tidy();
        });
    }

    /// Steps that each actor did.
    pub(super) fn steps(&self) -> [usize; 2] {
        self.turns.borrow().steps
    }
}

/// A store in which one actor moves only when it is its turn.
#[derive(Clone)]
pub(super) struct Scheduled {
    pub(super) inner: Memory,
    pub(super) schedule: Arc<Schedule>,
    pub(super) actor: usize,
}

impl fmt::Debug for Scheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scheduled({})", self.actor)
    }
}

impl Scheduled {
    /// The lock is between maintenance runs, and the backup does not look at it: no steps.
    async fn step<T>(&self, key: &str, work: impl Future<Output = T>) -> T {
        if key.starts_with("locks/") { work.await } else { self.schedule.step(self.actor, work).await }
    }
}

#[async_trait]
impl Store for Scheduled {
    fn place(&self) -> String {
        self.inner.place()
    }

    // objects are named after their content and read many at a time: when one is read tells less than when it was listed
    async fn get(&self, key: &str) -> Result<Bytes, Error> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes, Error> {
        self.inner.get_range(key, offset, length).await
    }

    async fn put(&self, key: &str, body: Body) -> Result<(), Error> {
        self.step(key, self.inner.put(key, body)).await
    }

    async fn put_new(&self, key: &str, body: Body) -> Result<PutNew, Error> {
        self.step(key, self.inner.put_new(key, body)).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, Error> {
        self.step(key, self.inner.size(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        self.step(prefix, self.inner.list(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.step(key, self.inner.delete(key)).await
    }
}
