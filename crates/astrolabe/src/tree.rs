//! The original's folder in a bucket: backups are found, opened and deleted here.
//!
//! Never touches a key of another disk snapshot: a stream is listed with the `/` behind its name, `peinfo` is one key.

use disk::DiskSnapshot;
use repository::store::{ErrorKind, Multipart, Object, S3Store, Store as _};

use crate::description::Description;
use crate::error::{Broken, Error};
use crate::keys::Keys;
use crate::old_disk::OldDisk;
use crate::peinfo::Peinfo;
use crate::segments::Segments;

/// A description is a few KiB.
const LONGEST_DESCRIPTION: u64 = 16 << 20;

const OPEN: &str = "open a backup in the original's layout";
const DELETE: &str = "delete a backup in the original's layout";

/// Where the original keeps its backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name of the bucket, for what is noted in `peinfo`.
    pub bucket: String,
    /// Address of the server as somebody configured it, perhaps empty, for the same.
    pub host: String,
    /// Folders in the order in which a backup is looked for; new ones are written below the first.
    pub prefixes: Vec<String>,
}

/// The original's folders of one bucket.
#[derive(Debug, Clone)]
pub struct Tree {
    bucket: S3Store,
    address: Address,
}

/// What a deletion has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Objects.
    pub objects: usize,
    /// Multipart uploads that were begun and not completed.
    pub uploads: usize,
}

impl Tree {
    /// `bucket` is the whole bucket, without a prefix.
    pub fn new(bucket: S3Store, address: Address) -> Self {
        Self { bucket, address }
    }

    /// Whether the bucket is there and may be listed.
    ///
    /// # Errors
    /// As the store says.
    pub async fn reach(&self) -> Result<(), Error> {
        let nothing = self.address.prefixes.first().map_or("", String::as_str);
        self.bucket.list(&format!("{nothing}/ivd/nothing/")).await.map(drop).map_err(Error::store("list the bucket"))
    }

    /// Opens the backup of `snapshot`; `None` when there is none, whatever else of it lies there.
    ///
    /// # Errors
    /// [`Error::Broken`] names the object that is missing, or is not as it must be, and what was expected.
    pub async fn open(&self, snapshot: &DiskSnapshot) -> Result<Option<OldDisk>, Error> {
        for keys in self.keys(snapshot) {
            let read = match self.bucket.get(keys.peinfo()).await {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::store(OPEN)(error)),
            };
            return self.open_at(&keys, &read).await.map(Some);
        }
        Ok(None)
    }

    async fn open_at(&self, keys: &Keys, peinfo: &[u8]) -> Result<OldDisk, Error> {
        let unreadable = |key: &str, cause: String| Broken::Unreadable { key: key.to_owned(), cause };
        let broken = Error::broken(OPEN);
        let peinfo = Peinfo::read(peinfo).map_err(|cause| broken(unreadable(keys.peinfo(), cause.to_string())))?;
        if peinfo.id != keys.id() {
            let cause = format!("it is of `{}`, expected `{}`", peinfo.id, keys.id());
            return Err(broken(unreadable(keys.peinfo(), cause)));
        }
        if !peinfo.is_whole() {
            let cause = "its lists dataTransports and metadataTransports may not be empty".to_owned();
            return Err(broken(unreadable(keys.peinfo(), cause)));
        }
        let described = self.segments(keys.description()).await?;
        if described.bytes() > LONGEST_DESCRIPTION {
            let cause = format!("{} bytes are no description of a disk", described.bytes());
            return Err(broken(unreadable(keys.description(), cause)));
        }
        let mut xml = Vec::new();
        for segment in described.iter() {
            xml.extend_from_slice(&self.bucket.get(&segment.key).await.map_err(Error::store(OPEN))?);
        }
        let size = Description::capacity(&xml).map_err(|cause| broken(unreadable(keys.description(), cause)))?;
        let segments = self.segments(keys.data()).await?.expect(size).map_err(broken)?;
        Ok(OldDisk::new(self.bucket.clone(), segments))
    }

    async fn segments(&self, stream: &str) -> Result<Segments, Error> {
        let objects = self.below(stream).await.map_err(Error::store(OPEN))?;
        Segments::of(stream, &objects).map_err(Error::broken(OPEN))
    }

    /// Whether anything lies there of the backup of `snapshot`, finished or not: whatever [`Tree::delete`] would remove.
    ///
    /// # Errors
    /// As the store says.
    pub async fn holds(&self, snapshot: &DiskSnapshot) -> Result<bool, Error> {
        let failed = Error::store("look for the backup");
        for keys in self.keys(snapshot) {
            if self.bucket.size(keys.peinfo()).await.map_err(failed)?.is_some() {
                return Ok(true);
            }
            for stream in [keys.description(), keys.data()] {
                let there = !self.below(stream).await.map_err(failed)?.is_empty();
                if there || !self.begun_uploads(stream, false).await.map_err(failed)?.is_empty() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Removes what there is of the backup of `snapshot`, finished or not: first what makes it a backup, then uploads that
    /// were begun, description and data. What is gone already is fine.
    ///
    /// # Errors
    /// As the store says; a repetition goes on.
    pub async fn delete(&self, snapshot: &DiskSnapshot) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        for keys in self.keys(snapshot) {
            let failed = Error::store(DELETE);
            // looked at before: a bucket with versions would note the deletion of what never was
            if self.bucket.size(keys.peinfo()).await.map_err(failed)?.is_some() {
                self.bucket.delete(keys.peinfo()).await.map_err(failed)?;
                removed.objects += 1;
            }
            for stream in [keys.description(), keys.data()] {
                let objects = self.below(stream).await.map_err(failed)?;
                removed.uploads += self.abort_uploads(stream, removed.objects + objects.len() > 0).await?;
                for object in &objects {
                    self.bucket.delete(&object.key).await.map_err(failed)?;
                }
                removed.objects += objects.len();
            }
        }
        Ok(removed)
    }

    async fn abort_uploads(&self, stream: &str, was_there: bool) -> Result<usize, Error> {
        let begun = self.begun_uploads(stream, was_there).await.map_err(Error::store(DELETE))?;
        for upload in &begun {
            self.bucket.abort_upload(upload).await.map_err(Error::store(DELETE))?;
        }
        Ok(begun.len())
    }

    /// The uploads below a stream that were begun. Who may not list uploads never began one. A store that cannot list them keeps none,
    /// unless something of the backup was there: then it may be a fault that passes.
    async fn begun_uploads(&self, stream: &str, was_there: bool) -> Result<Vec<Multipart>, repository::store::Error> {
        match self.bucket.uploads(&format!("{stream}/")).await {
            Err(error) if is_unable(error.kind(), was_there) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "uploads that were begun and never completed cannot be listed; they would stay");
                Ok(Vec::new())
            }
            listed => listed,
        }
    }

    /// Where the backup of `snapshot` may lie.
    fn keys(&self, snapshot: &DiskSnapshot) -> impl Iterator<Item = Keys> {
        self.address.prefixes.iter().map(|prefix| Keys::new(prefix, snapshot))
    }

    /// Where a new backup of `snapshot` goes.
    pub(crate) fn keys_to_write(&self, snapshot: &DiskSnapshot) -> Keys {
        Keys::new(self.address.prefixes.first().map_or("", String::as_str), snapshot)
    }

    pub(crate) fn bucket(&self) -> &S3Store {
        &self.bucket
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// What lies below a stream; the original would also count what merely begins with the same letters.
    pub(crate) async fn below(&self, stream: &str) -> Result<Vec<Object>, repository::store::Error> {
        self.bucket.list(&format!("{stream}/")).await
    }
}

fn is_unable(kind: ErrorKind, was_there: bool) -> bool {
    match kind {
        ErrorKind::AccessDenied => true,
        ErrorKind::Failed | ErrorKind::NotFound => !was_there,
        ErrorKind::BucketMissing | ErrorKind::Unreachable => false,
    }
}
