//! What a run leaves for the next one, and for writers: two kinds of sealed objects that restic never looks at.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{Damage, Error};
use crate::hash::{from_hex, hex};
use crate::repository::Repository;
use crate::unpacked::{self, Folder};

/// Packs that nobody needs, and since when.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    since: HashMap<[u8; 32], Timestamp>,
    /// The objects that say so, or said something else before.
    objects: Vec<[u8; 32]>,
    /// Whether the only object says exactly this.
    stored: bool,
}

/// An object under `maintenance/marked/`. The one written last counts.
#[derive(Debug, Serialize, Deserialize)]
struct MarkedFile {
    written: Timestamp,
    unused: Vec<UnusedSince>,
}

#[derive(Debug, Serialize, Deserialize)]
struct UnusedSince {
    since: Timestamp,
    packs: Vec<String>,
}

/// An object under `maintenance/condemned/`. All of them count.
#[derive(Debug, Serialize, Deserialize)]
struct CondemnedFile {
    packs: Vec<String>,
}

impl MarkedFile {
    /// Since when each of its packs is of no use. For one that is named twice the later moment counts: it stays longer.
    fn since(self) -> Result<HashMap<[u8; 32], Timestamp>, Error> {
        let mut marked = HashMap::new();
        for UnusedSince { since, packs } in self.unused {
            for pack in packs {
                let latest = marked.entry(id_of(&pack, Folder::Marked)?).or_insert(since);
                *latest = since.max(*latest);
            }
        }
        Ok(marked)
    }
}

impl CondemnedFile {
    fn ids(self) -> Result<HashSet<[u8; 32]>, Error> {
        self.packs.iter().map(|pack| id_of(pack, Folder::Condemned)).collect()
    }
}

impl Marks {
    /// What the last run left; nothing is no mark.
    pub(super) async fn load(repository: &Repository) -> Result<Self, Error> {
        let objects = unpacked::ids(repository.inner.store.as_ref(), Folder::Marked).await?;
        let mut last: Option<MarkedFile> = None;
        for id in &objects {
            let file: Option<MarkedFile> = load(repository, Folder::Marked, id).await?;
            if let Some(file) = file.filter(|file| last.as_ref().is_none_or(|last| file.written > last.written)) {
                last = Some(file);
            }
        }
        let since = last.map_or_else(|| Ok(HashMap::new()), MarkedFile::since)?;
        let stored = objects.len() == 1;
        Ok(Self { since, objects, stored })
    }

    /// For exactly these packs; those marked already stay so since then.
    pub(super) fn renewed(self, unused: impl Iterator<Item = [u8; 32]>, now: Timestamp) -> Self {
        let marked = |pack| (pack, self.since.get(&pack).map_or(now, |since| (*since).min(now)));
        let since: HashMap<_, _> = unused.map(marked).collect();
        let stored = self.stored && since == self.since;
        Self { since, stored, objects: self.objects }
    }

    /// Packs marked for at least `grace`.
    pub(super) fn due(&self, grace: SignedDuration, now: Timestamp) -> HashSet<[u8; 32]> {
        self.since.iter().filter(|(_, since)| now.duration_since(**since) >= grace).map(|(pack, _)| *pack).collect()
    }

    /// When the first of them has been marked for `grace`.
    pub(super) fn next_due(&self, grace: SignedDuration) -> Option<Timestamp> {
        self.since.values().min().map(|since| since.saturating_add(grace).unwrap_or(Timestamp::MAX))
    }

    /// Takes the marks off these packs.
    pub(super) fn forget(&mut self, packs: &HashSet<[u8; 32]>) {
        let before = self.since.len();
        self.since.retain(|pack, _| !packs.contains(pack));
        self.stored &= self.since.len() == before;
    }

    /// Stores them, then removes what said something else before.
    pub(super) async fn store(&mut self, repository: &Repository) -> Result<(), Error> {
        if self.stored {
            return Ok(());
        }
        let old = std::mem::take(&mut self.objects);
        if !self.since.is_empty() {
            let mut by_time: BTreeMap<Timestamp, Vec<String>> = BTreeMap::new();
            for (pack, since) in &self.since {
                by_time.entry(*since).or_default().push(hex(pack));
            }
            let unused = by_time.into_iter().map(|(since, packs)| UnusedSince { since, packs }).collect();
            let file = MarkedFile { written: Timestamp::now(), unused };
            self.objects.push(put(repository, Folder::Marked, &file).await?);
            self.stored = true;
        }
        super::remove_all(repository, old.iter().map(|id| Folder::Marked.key(id))).await
    }
}

/// Tells writers that these packs are about to go.
pub(super) async fn condemn(repository: &Repository, packs: &HashSet<[u8; 32]>) -> Result<(), Error> {
    let file = CondemnedFile { packs: packs.iter().map(hex).collect() };
    put(repository, Folder::Condemned, &file).await.map(|_| ())
}

/// Takes back what this run and earlier ones said: they have nothing left to remove.
pub(super) async fn withdraw(repository: &Repository) -> Result<(), Error> {
    let said = unpacked::ids(repository.inner.store.as_ref(), Folder::Condemned).await?;
    super::remove_all(repository, said.iter().map(|id| Folder::Condemned.key(id))).await
}

/// The packs that a run is about to remove, or was when it was killed.
pub(crate) async fn condemned(repository: &Repository) -> Result<HashSet<[u8; 32]>, Error> {
    let mut packs = HashSet::new();
    for id in unpacked::ids(repository.inner.store.as_ref(), Folder::Condemned).await? {
        let file: Option<CondemnedFile> = load(repository, Folder::Condemned, &id).await?;
        packs.extend(file.map_or_else(|| Ok(HashSet::new()), CondemnedFile::ids)?);
    }
    Ok(packs)
}

/// Reads a note as a run and as a writer do, and does with the marks in it what a run does.
#[cfg(fuzzing)]
pub(crate) fn read(cipher: &crate::crypto::Cipher, sealed: &[u8]) {
    if let Ok(file) = unpacked::unseal::<CondemnedFile>(cipher, "maintenance/condemned/x", sealed) {
        let _ = file.ids();
    }
    let marked = unpacked::unseal::<MarkedFile>(cipher, "maintenance/marked/x", sealed);
    let Ok(since) = marked.map_err(|_| ()).and_then(|file| file.since().map_err(|_| ())) else { return };
    let marks = Marks { since, objects: Vec::new(), stored: true };
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        for grace in [SignedDuration::ZERO, SignedDuration::from_hours(72), SignedDuration::MAX] {
            let due = marks.due(grace, now);
            assert!(due.iter().all(|pack| now.duration_since(marks.since[pack]) >= grace));
            let first = marks.next_due(grace);
            assert!(
                due.is_empty() || first.is_some_and(|first| first <= now),
                "{due:?} is due, the first at {first:?}"
            );
        }
        let mut renewed = marks.clone().renewed(marks.since.keys().copied(), now);
        assert!(renewed.since.values().all(|since| *since <= now), "a mark of the future");
        renewed.forget(&marks.since.keys().copied().collect());
        assert!(renewed.since.is_empty());
    }
}

async fn load<T: serde::de::DeserializeOwned + Send + 'static>(
    repository: &Repository,
    folder: Folder,
    id: &[u8; 32],
) -> Result<Option<T>, Error> {
    unpacked::load(repository.inner.store.as_ref(), &repository.inner.cipher, folder, id).await
}

async fn put(repository: &Repository, folder: Folder, file: &impl Serialize) -> Result<[u8; 32], Error> {
    let sealed = unpacked::seal(&repository.inner.cipher, file);
    let key = folder.key(&sealed.id);
    repository.inner.store.put(&key, sealed.body()).await.map_err(Error::store(format!("store {key}")))?;
    Ok(sealed.id)
}

fn id_of(text: &str, folder: Folder) -> Result<[u8; 32], Error> {
    let malformed =
        || Damage::Malformed { object: folder.prefix().to_owned(), cause: format!("`{text}` is not the id of a pack") };
    from_hex(text).ok_or_else(|| Error::damaged("read the notes of a maintenance run", malformed()))
}
