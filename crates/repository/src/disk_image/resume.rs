//! Goes on where an earlier writer of the same transfer was cut short: reads its checkpoints, and settles what they name as
//! far as it is still there. And removes them: when the transfer has ended, or when nobody has come back to it.

use std::collections::{BTreeMap, HashSet};

use disk::{ByteRange, Ranges};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use super::check::broken_packs;
use super::checkpoint::{Checkpoint, DIGITS, FOLDER, Recorder, Run, folder};
use super::writer::{TakeOver, Writer};
use crate::error::Error;
use crate::hash::ChunkId;
use crate::index::{IndexPack, PackRef};
use crate::repository::Repository;
use crate::store::{self, Store};
use crate::unpacked;

/// Checkpoints read, and removed, at once.
const AT_ONCE: usize = 8;

/// Settles what the transfer's checkpoints name; gives the bytes of the disk that need no reading any more. A checkpoint
/// that cannot be made use of is left out: then the disk is read.
pub(super) async fn take_up(writer: &Writer, recorder: &Recorder) -> Result<Ranges, Error> {
    let repository = &writer.state.repository;
    let folder = recorder.folder();
    let keys = match repository.inner.store.list(&folder).await {
        Err(cause) if cause.kind() == store::ErrorKind::AccessDenied => {
            warn!(%cause, "beginning anew: the store's key may not list checkpoints");
            return Ok(Ranges::new());
        }
        listed => listed.map_err(Error::store(format!("list {folder}")))?,
    };
    let numbers = keys.iter().filter_map(|object| number(object.key.strip_prefix(&folder)?));
    recorder.begin_at(numbers.max().map_or(0, |last| last + 1));
    let source = recorder.source();
    let load = |key: String| async move { load(repository, &key).await };
    let mut checkpoints = stream::iter(keys.into_iter().map(|object| object.key)).map(load).buffered(AT_ONCE);
    let (mut settled, mut adopted) = (Ranges::new(), HashSet::new());
    while let Some(checkpoint) = checkpoints.try_next().await? {
        let Some(checkpoint) = checkpoint.filter(|found| found.is_of(&source)) else { continue };
        adopt(writer, checkpoint.packs, &mut adopted).await?;
        for run in checkpoint.done {
            settle(writer, run, &mut settled).await?;
        }
    }
    if !settled.is_empty() {
        info!(bytes = settled.bytes(), of = source.size_bytes, "going on where an earlier attempt ended");
    }
    Ok(settled)
}

/// The number in the name of a checkpoint; names of other shapes are not ours.
fn number(name: &str) -> Option<u64> {
    name.parse().ok().filter(|_| name.len() == DIGITS)
}

/// `None` when it is gone, or not worth anything.
async fn load(repository: &Repository, key: &str) -> Result<Option<Checkpoint>, Error> {
    let bytes = match repository.inner.store.get(key).await {
        Err(cause) if cause.kind() == store::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(Error::store(format!("read {key}")))?,
    };
    let (cipher, name) = (repository.inner.cipher.clone(), key.to_owned());
    let opened = tokio::task::spawn_blocking(move || unpacked::unseal(&cipher, &name, &bytes)).await;
    match opened.expect("reading a checkpoint does not panic") {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(damage) => {
            warn!(%damage, "a checkpoint is left out");
            Ok(None)
        }
    }
}

/// Makes packs that no index file lists the writer's own, as far as they are there in full and stay.
async fn adopt(writer: &Writer, packs: Vec<IndexPack>, adopted: &mut HashSet<[u8; 32]>) -> Result<(), Error> {
    let repository = &writer.state.repository;
    let index = &repository.inner.index;
    let is_new = |pack: &IndexPack| !index.lists(&pack.id) && !index.condemns(&pack.id) && adopted.insert(pack.id);
    let unlisted: Vec<_> = packs.into_iter().filter(is_new).collect();
    let refs = unlisted.iter().map(|pack| PackRef { id: pack.id, length: pack.length() }).collect();
    let broken = broken_packs(repository, refs).await?;
    let broken: HashSet<_> = broken.into_iter().map(|(pack, _)| pack.id).collect();
    for pack in unlisted.into_iter().filter(|pack| !broken.contains(&pack.id)) {
        writer.state.packer.adopt(pack).await?;
    }
    Ok(())
}

async fn settle(writer: &Writer, run: Run, settled: &mut Ranges) -> Result<(), Error> {
    match run {
        Run::Zero { first, count } => {
            let end = first.saturating_add(count).min(writer.chunk_count());
            if first >= end {
                return Ok(());
            }
            let all = ByteRange::between(writer.chunk_range(first).offset, writer.chunk_range(end - 1).end());
            for open in settled.complement_in(all).iter() {
                writer
                    .take_over_zero(open.offset / writer.chunk_size()..open.end().div_ceil(writer.chunk_size()))
                    .await?;
            }
            settled.insert(all);
        }
        Run::Data { first, ids } => {
            for (index, id) in (first..writer.chunk_count()).zip(ids) {
                let range = writer.chunk_range(index);
                if !settled.touches(&range) && take_over(writer, index, id).await? {
                    settled.insert(range);
                }
            }
        }
    }
    Ok(())
}

async fn take_over(writer: &Writer, index: u64, id: ChunkId) -> Result<bool, Error> {
    Ok(writer.take_over(index, id).await? == TakeOver::Done)
}

/// Removes the checkpoints of a transfer; none is fine.
pub(crate) async fn forget(repository: &Repository, transfer: &str) -> Result<(), Error> {
    let folder = folder(transfer);
    let store = repository.inner.store.as_ref();
    let objects = store.list(&folder).await.map_err(Error::store(format!("list {folder}")))?;
    remove(store, objects.into_iter().map(|object| object.key)).await
}

/// Removes the checkpoints of transfers to which nobody has come back for `grace`; says of how many.
pub(crate) async fn sweep(repository: &Repository, grace: SignedDuration, now: Timestamp) -> Result<usize, Error> {
    let store = repository.inner.store.as_ref();
    let objects = store.list(FOLDER).await.map_err(Error::store(format!("list {FOLDER}")))?;
    let mut transfers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for object in objects {
        if let Some((transfer, _)) = object.key[FOLDER.len()..].split_once('/') {
            transfers.entry(transfer.to_owned()).or_default().push(object.key);
        }
    }
    let mut swept = 0;
    for (transfer, keys) in transfers {
        if newest(repository, &keys).await?.is_some_and(|written| now.duration_since(written) < grace) {
            continue;
        }
        info!(transfer, "nobody has come back to this transfer: its checkpoints go");
        remove(store, keys.into_iter()).await?;
        swept += 1;
    }
    Ok(swept)
}

/// When the newest of these that opens was written; one that does not helps nobody.
async fn newest(repository: &Repository, keys: &[String]) -> Result<Option<Timestamp>, Error> {
    for key in keys.iter().rev() {
        if let Some(checkpoint) = load(repository, key).await? {
            return Ok(Some(checkpoint.written));
        }
    }
    Ok(None)
}

async fn remove(store: &dyn Store, keys: impl Iterator<Item = String>) -> Result<(), Error> {
    let remove = |key: String| async move { store.delete(&key).await.map_err(Error::store(format!("remove {key}"))) };
    stream::iter(keys).map(remove).buffer_unordered(AT_ONCE).try_collect().await
}
