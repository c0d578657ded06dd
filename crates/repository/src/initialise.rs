//! Makes a repository, in an order in which a kill or a rival at any point leaves something sound.
//!
//! A key file first, then `config` with *create only if absent*. Who loses that race finds its own key useless and
//! removes it: restic stops at the first key that a password opens, so a stray one would lock restic out.

use std::sync::Arc;

use bytes::Bytes;
use secrecy::SecretString;
use tracing::{info, warn};

use crate::config::{self, Config};
use crate::error::{Damage, Error, chain};
use crate::keys::{self, Keys, OpenKey};
use crate::repository::Repository;
use crate::store::{self, PutNew, Store};

/// What there is when we look.
enum Found {
    Sound(Box<Sound>),
    NoConfig,
}

struct Sound {
    config: Config,
    key: OpenKey,
    /// Keys that the password opens and that do not open the config.
    strays: Vec<OpenKey>,
}

/// Opens the repository, or makes it where there is none. Any number may do this at once, also from several machines,
/// as long as the store knows *create only if absent*.
pub async fn initialise(store: Arc<dyn Store>, password: &SecretString) -> Result<Repository, Error> {
    let found = match look(&store, password).await? {
        Found::NoConfig => {
            make(&store, password).await?;
            look(&store, password).await?
        }
        sound => sound,
    };
    match found {
        Found::Sound(sound) => {
            remove(&store, sound.strays).await;
            Repository::with(store, sound.config, sound.key)
        }
        Found::NoConfig => {
            let damage = Damage::ObjectMissing { object: config::KEY.to_owned() };
            Err(Error::damaged("read back the new repository's config", damage))
        }
    }
}

/// Opens a repository that exists.
pub async fn open(store: Arc<dyn Store>, password: &SecretString) -> Result<Repository, Error> {
    match look(&store, password).await? {
        Found::Sound(sound) => Repository::with(store, sound.config, sound.key),
        Found::NoConfig => Err(Error::NotARepository { location: store.place() }),
    }
}

/// Reads `config` before the keys: its writer stored a key that opens it before.
async fn look(store: &Arc<dyn Store>, password: &SecretString) -> Result<Found, Error> {
    let sealed = match store.get(config::KEY).await {
        Ok(sealed) => Some(sealed),
        Err(cause) if cause.kind() == store::ErrorKind::NotFound => None,
        Err(cause) => return Err(Error::store("read the repository's config")(cause)),
    };
    let Some(sealed) = sealed else { return Ok(Found::NoConfig) };
    let Keys { open, files, untried } = keys::unlock_all(store, password).await?;
    if files == 0 {
        let damage = Damage::ObjectMissing { object: keys::PREFIX.to_owned() };
        return Err(Error::damaged("open the repository", damage)); // whatever the password is
    }
    if open.is_empty() {
        return Err(Error::PasswordWrong { location: store.place(), untried });
    }
    let (mut fitting, mut strays) = (None, Vec::new());
    for key in open {
        match Config::open(&sealed, &key.cipher) {
            Some(config) => fitting = Some((config, key)),
            None => strays.push(key),
        }
    }
    let Some((config, key)) = fitting else {
        let damage = Damage::Sealed { object: config::KEY.to_owned() };
        return Err(Error::damaged("open the repository's config", damage));
    };
    let malformed = |cause: serde_json::Error| {
        let damage = Damage::Malformed { object: config::KEY.to_owned(), cause: cause.to_string() };
        Error::damaged("read the repository's config", damage)
    };
    Ok(Found::Sound(Box::new(Sound { config: config.map_err(malformed)?, key, strays })))
}

/// Stores a key unless one of ours is there, then `config` unless a rival's is there.
async fn make(store: &Arc<dyn Store>, password: &SecretString) -> Result<(), Error> {
    let Keys { open, files, untried } = keys::unlock_all(store, password).await?;
    let key = match open.into_iter().next() {
        Some(left_behind) => {
            refuse_to_hide_data(store).await?;
            left_behind
        }
        // someone else's keys: a new repository here would hide what they open
        None if files > 0 => return Err(Error::PasswordWrong { location: store.place(), untried }),
        None => {
            refuse_to_hide_data(store).await?;
            keys::add(store.as_ref(), password).await?
        }
    };
    let sealed = Bytes::from(Config::generate().seal(&key.cipher));
    let put = store.put_new(config::KEY, sealed.into()).await;
    match put.map_err(Error::store("store the new repository's config"))? {
        PutNew::Created => info!(place = %store.place(), "repository initialised"),
        PutNew::Exists => info!(place = %store.place(), "repository initialised by someone else meanwhile"),
    }
    Ok(())
}

/// Snapshots without a config are a damaged repository, not an empty place, whether keys are there or not.
async fn refuse_to_hide_data(store: &Arc<dyn Store>) -> Result<(), Error> {
    let snapshots = store.list("snapshots/").await.map_err(Error::store("look for snapshots"))?;
    if snapshots.is_empty() {
        return Ok(());
    }
    let damage = Damage::ObjectMissing { object: config::KEY.to_owned() };
    Err(Error::damaged("initialise a repository where snapshots are", damage))
}

/// A key file that the password opens, but whose key opens nothing, would stop restic.
async fn remove(store: &Arc<dyn Store>, strays: Vec<OpenKey>) {
    for stray in strays {
        match store.delete(&stray.object).await {
            Ok(()) => info!(key = %stray.object, "removed a key of an initialisation that did not finish"),
            Err(cause) => {
                let cause = chain(&cause);
                warn!(key = %stray.object, cause, "could not remove a stray key: restic may refuse the password");
            }
        }
    }
}
