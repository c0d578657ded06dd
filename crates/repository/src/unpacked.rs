//! Objects that are one sealed JSON document: index files, snapshot files, locks, notes of the maintenance run. Their
//! name is their SHA-256.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crypto::Cipher;
use crate::error::{Damage, Error};
use crate::hash::{from_hex, hex, sha256};
use crate::store::{self, Body, Store};

/// First byte of a compressed document.
const COMPRESSED: u8 = 2;

/// Level for documents; they are small beside the data.
const LEVEL: i32 = 3;

/// The folders that hold such objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folder {
    Index,
    Snapshots,
    Locks,
    /// Packs that nobody needs, and since when: ours, restic does not look here.
    Marked,
    /// Packs that are about to be removed: ours, restic does not look here.
    Condemned,
}

impl Folder {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Index => "index/",
            Self::Snapshots => "snapshots/",
            Self::Locks => "locks/",
            Self::Marked => "maintenance/marked/",
            Self::Condemned => "maintenance/condemned/",
        }
    }

    pub(crate) fn key(self, id: &[u8; 32]) -> String {
        format!("{}{}", self.prefix(), hex(id))
    }
}

/// A document ready to be stored.
pub(crate) struct Sealed {
    pub(crate) id: [u8; 32],
    pub(crate) bytes: Bytes,
}

impl Sealed {
    pub(crate) fn body(&self) -> Body {
        Body { bytes: self.bytes.clone(), sha256: Some(self.id) }
    }
}

pub(crate) fn seal(cipher: &Cipher, document: &impl Serialize) -> Sealed {
    let json = serde_json::to_vec(document).expect("our documents hold only strings, numbers and lists");
    let mut plain = vec![COMPRESSED];
    plain.extend(zstd::bulk::compress(&json, LEVEL).expect("compression into memory does not fail"));
    let bytes = Bytes::from(cipher.seal(&plain));
    Sealed { id: sha256(&bytes), bytes }
}

pub(crate) fn unseal<T: DeserializeOwned>(cipher: &Cipher, key: &str, bytes: &[u8]) -> Result<T, Damage> {
    let object = || key.to_owned();
    let malformed = |cause: String| Damage::Malformed { object: object(), cause };
    let plain = cipher.open(bytes).ok_or_else(|| Damage::Sealed { object: object() })?;
    let json = match plain.first() {
        Some(&COMPRESSED) => zstd::decode_all(&plain[1..]).map_err(|cause| malformed(cause.to_string()))?,
        Some(b'{' | b'[') => plain,
        other => return Err(malformed(format!("it begins with {other:?}"))),
    };
    serde_json::from_slice(&json).map_err(|cause| malformed(cause.to_string()))
}

/// Reads one document. `Ok(None)` when the object is gone.
pub(crate) async fn load<T: DeserializeOwned + Send + 'static>(
    store: &dyn Store,
    cipher: &Cipher,
    folder: Folder,
    id: &[u8; 32],
) -> Result<Option<T>, Error> {
    let key = folder.key(id);
    let bytes = match store.get(&key).await {
        Err(cause) if cause.kind() == store::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::store(format!("read {key}")))?,
    };
    let (cipher, id) = (cipher.clone(), *id);
    let read = tokio::task::spawn_blocking(move || {
        if sha256(&bytes) != id {
            return Err(Damage::Sealed { object: folder.key(&id) });
        }
        unseal(&cipher, &folder.key(&id), &bytes)
    })
    .await
    .expect("reading a document does not panic");
    read.map(Some).map_err(|damage| Error::damaged(format!("read {key}"), damage))
}

/// The ids in a folder; objects with other names are left out.
pub(crate) async fn ids(store: &dyn Store, folder: Folder) -> Result<Vec<[u8; 32]>, Error> {
    let prefix = folder.prefix();
    let objects = store.list(prefix).await.map_err(Error::store(format!("list {prefix}")))?;
    Ok(objects.iter().filter_map(|object| from_hex(object.key.strip_prefix(prefix)?)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;
    use crate::crypto::MasterKey;

    #[test]
    fn documents_of_older_programs_without_compression_are_read() {
        let cipher = MasterKey::generate().cipher().unwrap();
        let plain: Vec<u32> = unseal(&cipher, "x", &cipher.seal(b"[1,2]")).unwrap();
        assert_eq!(plain, [1, 2]);
        let sealed = seal(&cipher, &[1, 2]);
        assert_eq!(unseal::<Vec<u32>>(&cipher, "x", &sealed.bytes).unwrap(), [1, 2]);
        assert!(matches!(unseal::<Vec<u32>>(&cipher, "x", &cipher.seal(b"\x03")), Err(Damage::Malformed { .. })));
    }
}
