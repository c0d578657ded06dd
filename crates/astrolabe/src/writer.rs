//! Writes a backup in the original's layout: the disk's bytes, its description, then `peinfo`, which makes it one.
//!
//! What an attempt that failed has left is gone on with: segments that are whole, and the parts of a segment's one upload.
//! Until `peinfo` is there nobody takes any of it for a backup.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use disk::{ByteRange, DiskSnapshot};
use repository::store::{ErrorKind, Multipart, Part, S3Store, Store as _};

use crate::description::Description;
use crate::error::{Broken, Error};
use crate::keys::{self, Keys};
use crate::old_disk::OldDisk;
use crate::peinfo::Peinfo;
use crate::tree::{Address, Tree};

/// Bytes of a part of a segment, the last one shorter.
const PART: u64 = 10 << 20;
/// Bytes of a segment at most: as many parts as S3 allows in one upload.
const SEGMENT: u64 = 10_000 * PART;
/// A segment that is shorter is put in one piece.
const IN_PARTS_FROM: u64 = 5 << 20;
/// The original takes no larger peinfo.
const LONGEST_PEINFO: usize = 16_384;
/// Type of data and descriptions: S3's own for an object of which nobody says one, as the original does.
const BYTES: &str = "binary/octet-stream";
/// Bytes of what vSphere calls a MB.
const MIB: u64 = 1 << 20;

const WRITE: &str = "write a backup in the original's layout";

/// How a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of a segment at most; a multiple of the next.
    pub segment: u64,
    /// Bytes of a part at most.
    pub part: u64,
}

impl Default for Cut {
    /// As the original cuts.
    fn default() -> Self {
        Self { segment: SEGMENT, part: PART }
    }
}

/// A backup that is being written.
#[derive(Debug)]
pub struct Writer {
    tree: Tree,
    snapshot: DiskSnapshot,
    keys: Keys,
    description: Description,
    cut: Cut,
    /// So many segments from the first on are whole.
    whole: u64,
}

/// A segment of which parts are missing.
#[derive(Debug)]
pub struct OpenSegment<'w> {
    bucket: &'w S3Store,
    key: String,
    range: ByteRange,
    part: u64,
    /// `None`: it is put in one piece.
    upload: Option<Multipart>,
    parts: Mutex<BTreeMap<i32, Part>>,
}

impl Tree {
    /// Begins to write the backup of `snapshot`, or goes on with it. Segments that cannot be part of it are removed first.
    ///
    /// # Errors
    /// As the store says; [`Broken::There`] where there is a `peinfo`: ask [`Tree::open`] what it stands for. Nothing is removed then,
    /// since another node may just have completed the backup.
    pub async fn writer(&self, snapshot: &DiskSnapshot, description: Description, cut: Cut) -> Result<Writer, Error> {
        let keys = self.keys_to_write(snapshot);
        let (bucket, failed) = (self.bucket(), Error::store(WRITE));
        if bucket.size(keys.peinfo()).await.map_err(failed)?.is_some() {
            return Err(Error::broken(WRITE)(Broken::There { key: keys.peinfo().to_owned() }));
        }
        let ours = keys::segment(keys.description(), 0, 0); // written anew when the backup is complete
        for left in self.below(keys.description()).await.map_err(failed)?.into_iter().filter(|left| left.key != ours) {
            bucket.delete(&left.key).await.map_err(failed)?;
        }
        let mut writer = Writer { tree: self.clone(), snapshot: snapshot.clone(), keys, description, cut, whole: 0 };
        for object in self.below(writer.keys.data()).await.map_err(failed)? {
            match writer.segment(writer.whole) {
                Some(range) if object.key == writer.key(writer.whole, range) && object.size == range.length => {
                    writer.whole += 1;
                }
                _ => bucket.delete(&object.key).await.map_err(failed)?,
            }
        }
        Ok(writer)
    }
}

impl Writer {
    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.description.capacity_mib.saturating_mul(MIB)
    }

    /// Bytes from the start of the disk that an earlier attempt has stored in whole segments.
    pub fn whole(&self) -> u64 {
        (self.whole * self.cut.segment).min(self.size())
    }

    /// The next segment of which something is missing after `done` others; `None` when all are there.
    ///
    /// # Errors
    /// As the store says.
    pub async fn open(&self, done: u64) -> Result<Option<OpenSegment<'_>>, Error> {
        let number = self.whole + done;
        let Some(range) = self.segment(number) else { return Ok(None) };
        let (bucket, key) = (self.tree.bucket(), self.key(number, range));
        let mut open = OpenSegment { bucket, key, range, part: self.cut.part, upload: None, parts: Mutex::default() };
        if range.length >= IN_PARTS_FROM {
            open.take_up().await.map_err(Error::store(WRITE))?;
        }
        Ok(Some(open))
    }

    /// Writes the description and `peinfo`, then reads back whether all of it is there.
    ///
    /// # Errors
    /// As the store says; [`Error::Broken`] when something vanished meanwhile.
    pub async fn commit(&self) -> Result<OldDisk, Error> {
        let (bucket, failed) = (self.tree.bucket(), Error::store(WRITE));
        for left in bucket.uploads(&format!("{}/", self.keys.data())).await.map_err(failed)? {
            bucket.abort_upload(&left).await.map_err(failed)?; // of attempts that cut the disk otherwise
        }
        let key = keys::segment(self.keys.description(), 0, 0);
        bucket.put_as(&key, BYTES, Bytes::from(self.description.write())).await.map_err(failed)?;
        let Address { bucket: name, host, .. } = self.tree.address();
        let peinfo = Peinfo::new(&self.keys, name, host, &self.description.name).write();
        if peinfo.len() > LONGEST_PEINFO {
            let cause = format!("it has {} bytes, and the original reads {LONGEST_PEINFO} at most", peinfo.len());
            let refused =
                repository::store::Error::new(ErrorKind::Failed, "put", self.keys.peinfo(), name.as_str(), cause);
            return Err(failed(refused));
        }
        bucket.put_as(self.keys.peinfo(), "application/json", Bytes::from(peinfo)).await.map_err(failed)?;
        match self.tree.open(&self.snapshot).await? {
            Some(written) => Ok(written),
            None => {
                let cause = "it was put a moment ago";
                let gone =
                    repository::store::Error::new(ErrorKind::NotFound, "get", self.keys.peinfo(), name.as_str(), cause);
                Err(failed(gone))
            }
        }
    }

    fn segment(&self, number: u64) -> Option<ByteRange> {
        let offset = number * self.cut.segment;
        (offset < self.size()).then(|| ByteRange::between(offset, (offset + self.cut.segment).min(self.size())))
    }

    fn key(&self, number: u64, range: ByteRange) -> String {
        keys::segment(self.keys.data(), number, range.offset)
    }
}

impl OpenSegment<'_> {
    /// The bytes of the disk that it holds.
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// Numbers of the parts that are missing, with the bytes of the disk that they hold.
    pub fn missing(&self) -> Vec<(i32, ByteRange)> {
        let there = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.ranges();
        all.filter(|(number, range)| there.get(number).is_none_or(|part| part.size != range.length)).collect()
    }

    /// Sends one part; any number may be under way.
    ///
    /// # Errors
    /// As the store says.
    pub async fn put(&self, number: i32, bytes: Bytes) -> Result<(), Error> {
        let sent = match &self.upload {
            Some(upload) => self.bucket.put_part(upload, number, bytes).await,
            None => {
                let size = bytes.len() as u64;
                let put = self.bucket.put_as(&self.key, BYTES, bytes).await;
                put.map(|()| Part { number, size, tag: String::new() })
            }
        };
        let part = sent.map_err(Error::store(WRITE))?;
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(number, part);
        Ok(())
    }

    /// Makes the object of its parts, and looks whether it is as long as it must be.
    ///
    /// # Errors
    /// As the store says; a part is missing.
    pub async fn finish(self) -> Result<(), Error> {
        let failed = Error::store(WRITE);
        let wrong = |cause: String| {
            failed(repository::store::Error::new(ErrorKind::Failed, "complete", &self.key, "the bucket", cause))
        };
        if let Some((number, _)) = self.missing().first() {
            return Err(wrong(format!("part {number} was not sent")));
        }
        if let Some(upload) = &self.upload {
            let last = self.ranges().count();
            let parts: Vec<Part> = {
                let there = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
                there.values().take(last).cloned().collect()
            };
            self.bucket.complete_upload(upload, &parts).await.map_err(failed)?;
        }
        match self.bucket.size(&self.key).await.map_err(failed)? {
            Some(size) if size == self.range.length => Ok(()),
            size => Err(wrong(format!("it has {} bytes, expected {}", size.unwrap_or_default(), self.range.length))),
        }
    }

    /// Goes on with the one upload that was begun; begins one where there is none, or several.
    async fn take_up(&mut self) -> Result<(), repository::store::Error> {
        let mut begun = self.bucket.uploads(&self.key).await?;
        begun.retain(|upload| upload.key == self.key);
        if let [only] = &begun[..] {
            let parts = self.bucket.parts(only).await?;
            tracing::info!(key = self.key, parts = parts.len(), "going on with an upload that was begun");
            *self.parts.get_mut().unwrap_or_else(PoisonError::into_inner) =
                parts.into_iter().map(|part| (part.number, part)).collect();
            self.upload = begun.pop();
            return Ok(());
        }
        for several in &begun {
            self.bucket.abort_upload(several).await?;
        }
        self.upload = Some(self.bucket.begin_multipart(&self.key).await?);
        Ok(())
    }

    /// All parts, by number.
    fn ranges(&self) -> impl Iterator<Item = (i32, ByteRange)> {
        let (range, part) = (self.range, self.part);
        let part = if self.upload.is_some() { part } else { range.length.max(1) };
        (1..).zip((0..range.length.div_ceil(part)).map(move |n| {
            let offset = range.offset + n * part;
            ByteRange::between(offset, (offset + part).min(range.end()))
        }))
    }
}
