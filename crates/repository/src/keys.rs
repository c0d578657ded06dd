//! Key files: the repository's own key, sealed with one derived from a password.
//!
//! Derivation is slow and takes 32 MiB on purpose; it runs on blocking threads.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use scrypt::Params;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::crypto::{Cipher, MasterKey, random};
use crate::error::{Damage, Error};
use crate::hash::{from_hex, hex, sha256};
use crate::restore_point::USERNAME;
use crate::store::{self, Body, Store};

pub(crate) const PREFIX: &str = "keys/";

/// log2 of scrypt's N for new keys: 32 MiB and about 0.1 s.
const LOG_N: u8 = 15;
/// The most memory that a key file may ask for, in bytes: whoever can write to the bucket can write one, and our pods have
/// 512 MiB and 1 GiB. restic's own keys take up to 60 MiB, rustic's 128 MiB.
const MAX_MEMORY: u64 = 256 << 20;
/// The most bytes that may be mixed for one, about 7 s of work: restic chooses as many as its machine mixes in half a second.
const MAX_WORK: u64 = 2 << 30;
/// The longest key file that is read, in bytes: restic's have 450.
const MAX_FILE: u64 = 64 << 10;

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

/// A key file that can be tried with a password: what that costs is known, and bounded.
struct Locked {
    cost: Params,
    salt: Vec<u8>,
    sealed: Vec<u8>,
}

/// What scrypt takes for these parameters, unless that is more than we give.
fn cost(n: u64, r: u32, p: u32) -> Result<Params, String> {
    let no_such = || format!("scrypt has no parameters N = {n}, r = {r}, p = {p}");
    let bytes = |blocks: Option<u64>| blocks.and_then(|blocks| blocks.checked_mul(u64::from(r))?.checked_mul(128));
    // a table of N blocks, one block for each of p turns, and two to work in
    let memory = bytes(n.checked_add(u64::from(p) + 2)).ok_or_else(no_such)?;
    let work = bytes(n.checked_mul(u64::from(p))).ok_or_else(no_such)?;
    if memory > MAX_MEMORY {
        return Err(format!("it asks for {} MiB of memory, more than {}", memory >> 20, MAX_MEMORY >> 20));
    }
    if work > MAX_WORK {
        return Err(format!("it asks for {} MiB to be mixed, more than {}", work >> 20, MAX_WORK >> 20));
    }
    let log_n = n.is_power_of_two().then(|| u8::try_from(n.ilog2()).ok()).flatten().ok_or_else(no_such)?;
    Params::new(log_n, r, p, 64).map_err(|_| no_such())
}

impl Locked {
    fn read(file: &[u8]) -> Result<Self, String> {
        let file: KeyFile = serde_json::from_slice(file).map_err(|cause| cause.to_string())?;
        if file.kdf != "scrypt" {
            return Err(format!("its key is derived by `{}`, which is not known here", file.kdf));
        }
        let decoded = |what: &str, text: &str| STANDARD.decode(text).map_err(|cause| format!("its {what}: {cause}"));
        Ok(Self {
            cost: cost(file.n, file.r, file.p)?,
            salt: decoded("salt", &file.salt)?,
            sealed: decoded("data", &file.data)?,
        })
    }

    /// `None` when it is not the password.
    fn unlock(&self, password: &SecretString) -> Option<Cipher> {
        let plain = derive(password, &self.cost, &self.salt).open(&self.sealed)?;
        serde_json::from_slice::<MasterKey>(&plain).ok()?.cipher()
    }
}

/// One key file is tried at a time in a process: each may take [`MAX_MEMORY`], and a stranger may have put one beside every repository.
static TRYING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn derive(password: &SecretString, cost: &Params, salt: &[u8]) -> Cipher {
    let mut key = [0; 64];
    scrypt::scrypt(password.expose_secret().as_bytes(), salt, cost, &mut key).expect("64 bytes are a length it gives");
    Cipher::new(&key)
}

/// What a run of the fuzzer asks of a key file: that reading it ends, and that what may be tried costs no more than we give.
#[cfg(fuzzing)]
pub(crate) fn read(file: &[u8]) {
    if let Ok(locked) = Locked::read(file) {
        let (n, r, p) = (1_u128 << locked.cost.log_n(), u128::from(locked.cost.r()), u128::from(locked.cost.p()));
        assert!(128 * r * (n + p) <= u128::from(MAX_MEMORY), "N = {n}, r = {r}, p = {p}");
        assert!(128 * r * n * p <= u128::from(MAX_WORK), "N = {n}, r = {r}, p = {p}");
    }
}

fn make(password: &SecretString) -> (Vec<u8>, Cipher) {
    let master = MasterKey::generate();
    let mut salt = [0; 64];
    random(&mut salt);
    let cost = Params::new(LOG_N, 8, 1, 64).expect("these parameters are within scrypt's limits");
    let user = derive(password, &cost, &salt);
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

/// The key files of a repository, as a password finds them.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// Those that it opens.
    pub(crate) open: Vec<OpenKey>,
    /// How many there are.
    pub(crate) files: usize,
    /// Those that cannot be tried with any password, with why.
    pub(crate) untried: Vec<Untried>,
}

/// A key file that cannot be tried with any password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untried {
    /// Its object.
    pub object: String,
    /// Why not.
    pub why: String,
}

/// Names of them in a message, and letters of why, which may quote the file: whoever can write to the bucket can write thousands, and
/// whatever they like into each.
const NAMED: usize = 3;
const LONGEST_WHY: usize = 120;

/// What [`Error::PasswordWrong`] says of them, after a comma; empty where there are none.
pub(crate) fn told(untried: &[Untried]) -> String {
    let name = |Untried { object, why }: &Untried| {
        let why: String = why.chars().filter(|letter| !letter.is_control()).take(LONGEST_WHY).collect();
        format!("{object} ({why})")
    };
    let named: Vec<String> = untried.iter().take(NAMED).map(name).collect();
    let more = match untried.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match named.is_empty() {
        true => String::new(),
        false => format!(", and these could not be tried: {}{more}", named.join(", ")),
    }
}

/// Tries the password with each key file. One that cannot be tried is left out, and told of.
pub(crate) async fn unlock_all(store: &Arc<dyn Store>, password: &SecretString) -> Result<Keys, Error> {
    let objects = store.list(PREFIX).await.map_err(Error::store("list the repository's keys"))?;
    let objects: Vec<_> = objects.into_iter().filter(|o| from_hex(&o.key[PREFIX.len()..]).is_some()).collect();
    let mut keys = Keys { files: objects.len(), ..Keys::default() };
    for object in objects {
        let locked = match fetch(store, &object).await? {
            Read::File(locked) => locked,
            Read::Gone => continue,
            Read::Unusable(why) => {
                warn!(key = %object.key, why, "a key file is left out");
                keys.untried.push(Untried { object: object.key, why });
                continue;
            }
        };
        let password = password.clone();
        let _one_at_a_time = TRYING.lock().await;
        let unlocked = tokio::task::spawn_blocking(move || locked.unlock(&password)).await;
        if let Some(cipher) = unlocked.expect("reading a key file does not panic") {
            keys.open.push(OpenKey { object: object.key, cipher });
        }
    }
    Ok(keys)
}

/// What there is of a key file that was listed.
enum Read {
    File(Locked),
    /// Removed since.
    Gone,
    /// It cannot be tried, and why.
    Unusable(String),
}

async fn fetch(store: &Arc<dyn Store>, object: &store::Object) -> Result<Read, Error> {
    if object.size > MAX_FILE {
        return Ok(Read::Unusable(format!("it has {} bytes, and none is longer than {MAX_FILE}", object.size)));
    }
    let file = match store.get(&object.key).await {
        Err(cause) if cause.kind() == store::ErrorKind::NotFound => return Ok(Read::Gone),
        other => other.map_err(Error::store(format!("read {}", object.key)))?,
    };
    Ok(Locked::read(&file).map_or_else(Read::Unusable, Read::File))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    fn unlock(file: &[u8], password: &str) -> Option<Cipher> {
        Locked::read(file).unwrap().unlock(&password.into())
    }

    #[test]
    fn only_the_password_opens_the_key() {
        let (file, _) = make(&"right".into());
        assert!(unlock(&file, "right").is_some());
        assert!(unlock(&file, "wrong").is_none());
    }

    #[test]
    fn a_key_file_cannot_ask_for_all_memory_or_for_hours() {
        let cases = [
            ("ours", 1 << 15, 8, 1, Ok(())),
            ("restic's, on a quick machine", 1 << 15, 8, 17, Ok(())),
            ("rustic's", 1 << 17, 8, 1, Ok(())),
            ("a large table", 1 << 19, 8, 1, Err("it asks for 512 MiB of memory, more than 256")),
            ("a table without end", 1 << 60, 8, 1, Err("scrypt has no parameters")),
            ("few blocks, and each of them large", 2, 1 << 22, 16, Err("it asks for 10240 MiB of memory")),
            ("as many turns as can be written", 1 << 10, 8, u32::MAX, Err("it asks for 4194305 MiB of memory")),
            ("a day of work in little memory", 1 << 20, 1, 100_000, Err("it asks for 12800000 MiB to be mixed")),
            ("no power of two", 3, 8, 1, Err("scrypt has no parameters N = 3")),
            ("nothing", 0, 0, 0, Err("scrypt has no parameters N = 0")),
        ];
        for (situation, n, r, p, want) in cases {
            match (cost(n, r, p).map(drop), want) {
                (Ok(()), Ok(())) => {}
                (Err(said), Err(word)) => assert!(said.starts_with(word), "{situation}: {said}"),
                (said, want) => panic!("{situation}: {said:?} instead of {want:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_strangers_key_file_in_the_bucket_keeps_nobody_from_a_repository() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(store::FolderStore::new(folder.path()));
        let password: SecretString = "right".into();
        let ours = add(store.as_ref(), &password).await.unwrap();
        let hostile = serde_json::json!({"created": "2026-01-02T12:00:00Z", "username": "u", "hostname": "h", "kdf": "scrypt",
            "N": 2, "r": 1 << 22, "p": 16, "salt": STANDARD.encode([0; 64]), "data": STANDARD.encode([0; 150])});
        for (name, file) in [([1; 32], serde_json::to_vec(&hostile).unwrap()), ([2; 32], vec![b' '; 1 << 20])] {
            store.put(&format!("{PREFIX}{}", hex(&name)), Bytes::from(file).into()).await.unwrap();
        }
        let keys = unlock_all(&store, &password).await.unwrap();
        assert_eq!((keys.open.iter().map(|key| &key.object).collect::<Vec<_>>(), keys.files), (vec![&ours.object], 3));
        let untried: Vec<_> = keys.untried.iter().map(|untried| untried.object.as_str()).collect();
        assert_eq!(untried, [[1; 32], [2; 32]].map(|name| format!("{PREFIX}{}", hex(&name))));
    }

    #[test]
    fn key_files_that_cannot_be_tried_are_named_and_a_thousand_are_counted() {
        let file = |n: usize| Untried { object: format!("keys/{n}"), why: "it is no JSON".to_owned() };
        let files = |n| (1..=n).map(file).collect::<Vec<_>>();
        assert_eq!(told(&[]), "");
        assert_eq!(told(&files(1)), ", and these could not be tried: keys/1 (it is no JSON)");
        let many = told(&files(1000));
        assert!(many.contains("keys/3 (it is no JSON) and 997 more") && !many.contains("keys/4"), "{many}");
        let loud = Untried { object: "keys/a".to_owned(), why: "\u{1b}[2J\n".repeat(10_000) };
        let told = told(&[loud]);
        assert!(told.len() < 200 && !told.contains(char::is_control), "{told}");
    }
}
