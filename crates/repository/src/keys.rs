//! Key files: the repository's own key, sealed with one derived from a password.
//!
//! Derivation is slow and takes 32 MiB on purpose; it runs on blocking threads.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::crypto::{Cipher, MasterKey, random};
use crate::error::{Damage, Error};
use crate::hash::{from_hex, hex, sha256};
use crate::restore_point::USERNAME;
use crate::store::{self, Body, Store};

pub(crate) const PREFIX: &str = "keys/";

/// log2 of scrypt's N for new keys: 32 MiB and about 0.1 s.
const LOG_N: u8 = 15;
/// The largest N, r, p accepted from a key file: 1 GiB, so that a hostile one cannot take the machine down.
const MAX_MEMORY: u64 = 1 << 30;

#[derive(Serialize, Deserialize)]
struct KeyFile {
    created: Timestamp,
    username: String,
    hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

/// A key that the password opened.
#[derive(Debug, Clone)]
pub(crate) struct OpenKey {
    /// Key of the object that holds it.
    pub(crate) object: String,
    pub(crate) cipher: Cipher,
}

fn derive(password: &SecretString, n: u64, r: u32, p: u32, salt: &[u8]) -> Option<Cipher> {
    let memory = n.checked_mul(u64::from(r))?.checked_mul(128)?;
    if !n.is_power_of_two() || memory > MAX_MEMORY || !(1..=16).contains(&p) {
        return None;
    }
    let log_n = u8::try_from(n.ilog2()).ok()?;
    let parameters = scrypt::Params::new(log_n, r, p, 64).ok()?;
    let mut key = [0; 64];
    scrypt::scrypt(password.expose_secret().as_bytes(), salt, &parameters, &mut key).ok()?;
    Some(Cipher::new(&key))
}

fn unlock(file: &[u8], password: &SecretString) -> Option<Cipher> {
    let file: KeyFile = serde_json::from_slice(file).ok()?;
    if file.kdf != "scrypt" {
        return None;
    }
    let user = derive(password, file.n, file.r, file.p, &STANDARD.decode(file.salt).ok()?)?;
    let plain = user.open(&STANDARD.decode(file.data).ok()?)?;
    serde_json::from_slice::<MasterKey>(&plain).ok()?.cipher()
}

fn make(password: &SecretString) -> (Vec<u8>, Cipher) {
    let master = MasterKey::generate();
    let mut salt = [0; 64];
    random(&mut salt);
    let user = derive(password, 1 << LOG_N, 8, 1, &salt).expect("these parameters are within scrypt's limits");
    let plain = serde_json::to_vec(&master).expect("four strings are JSON");
    let file = KeyFile {
        created: Timestamp::now(),
        username: USERNAME.to_owned(),
        hostname: String::new(),
        kdf: "scrypt".to_owned(),
        n: 1 << LOG_N,
        r: 8,
        p: 1,
        salt: STANDARD.encode(salt),
        data: STANDARD.encode(user.seal(&plain)),
    };
    let cipher = master.cipher().expect("a fresh key has the right lengths");
    (serde_json::to_vec(&file).expect("strings and numbers are JSON"), cipher)
}

/// Makes a key for `password` and stores its file; reads it back, since what is sealed with a key that is not there stays
/// sealed for ever.
pub(crate) async fn add(store: &dyn Store, password: &SecretString) -> Result<OpenKey, Error> {
    let password = password.clone();
    let (file, cipher) =
        tokio::task::spawn_blocking(move || make(&password)).await.expect("making a key does not panic");
    let (id, file) = (sha256(&file), Bytes::from(file));
    let object = format!("{PREFIX}{}", hex(&id));
    let body = Body { bytes: file.clone(), sha256: Some(id) };
    store.put(&object, body).await.map_err(Error::store("store a repository key"))?;
    let damage = match store.get(&object).await {
        Ok(back) if back == file => return Ok(OpenKey { object, cipher }),
        Ok(_) => Damage::Sealed { object },
        Err(cause) if cause.kind() == store::ErrorKind::NotFound => Damage::ObjectMissing { object },
        Err(cause) => return Err(Error::store("read the repository's new key back")(cause)),
    };
    Err(Error::damaged("read the repository's new key back", damage))
}

/// The keys that `password` opens, and how many key files there are.
pub(crate) async fn unlock_all(
    store: &Arc<dyn Store>,
    password: &SecretString,
) -> Result<(Vec<OpenKey>, usize), Error> {
    let objects = store.list(PREFIX).await.map_err(Error::store("list the repository's keys"))?;
    let objects: Vec<_> = objects.into_iter().filter(|o| from_hex(&o.key[PREFIX.len()..]).is_some()).collect();
    let mut open = Vec::new();
    for object in &objects {
        let file = match store.get(&object.key).await {
            Err(cause) if cause.kind() == store::ErrorKind::NotFound => continue, // removed since the listing
            other => other.map_err(Error::store(format!("read {}", object.key)))?,
        };
        let password = password.clone();
        let unlocked = tokio::task::spawn_blocking(move || unlock(&file, &password)).await;
        if let Some(cipher) = unlocked.expect("reading a key file does not panic") {
            open.push(OpenKey { object: object.key.clone(), cipher });
        }
    }
    Ok((open, objects.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    #[test]
    fn only_the_password_opens_the_key() {
        let password: SecretString = "right".into();
        let (file, _) = make(&password);
        assert!(unlock(&file, &password).is_some());
        assert!(unlock(&file, &"wrong".into()).is_none());
    }

    #[test]
    fn a_key_file_cannot_ask_for_all_memory() {
        assert!(derive(&"x".into(), 1 << 40, 8, 1, b"salt").is_none());
        assert!(derive(&"x".into(), 3, 8, 1, b"salt").is_none());
        assert!(derive(&"x".into(), 1 << 10, 8, u32::MAX, b"salt").is_none());
    }
}
