//! A repository as its BackupRepository describes it, opened once per process and password, and kept while somebody asks for it.

mod slots;

use std::sync::Arc;

use api::parameters::{LEGACY_PREFIX, RepositoryFormat, RepositoryParameters, key};
use api::velero::BackupStorageLocation;
use api::{BackupRepository, Reason, WITHOUT_BACKUP_REPOSITORY, names};
use astrolabe::{Address, Tree};
use kube::{Api, Client};
use lifecycle::velero::parameters::{self as wanted, DefaultCredentials};
use lifecycle::{Again, Problem};
use repository::store::{S3Store, Store, StoreEncryption};
use repository::{Credentials, Repository, S3Options};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::slots::Slots;
use crate::known::Known;
use crate::secrets::{of_location, secret, text};
use crate::settings::Settings;
use crate::usable::{StoreClient, Usable};
use crate::{credentials, from_kube, from_repository, location};

/// Folder of all our repositories in a bucket, below the storage location's prefix.
const FOLDER: &str = "plugins/vsphere-restic-repo";
/// The storage location of those who name none.
const DEFAULT_LOCATION: &str = "default";
/// Key that Velero itself puts into `velero-repo-credentials` when nobody chooses one; everybody knows it.
const WELL_KNOWN_PASSWORD: &str = "static-passw0rd";

/// The repositories of this cluster. Cheap to clone; clones share what is open.
#[derive(Clone)]
pub struct Repositories {
    known: Known,
    namespace: String,
    open: Arc<Mutex<Slots<Place, Repository, Problem>>>,
}

/// A repository that was opened, or made.
#[derive(Debug)]
pub struct Opened {
    /// The repository.
    pub repository: Repository,
    /// Its key is the one that Velero puts where nobody has chosen one: everybody knows it.
    pub well_known_key: bool,
}

/// Where the key of the repositories was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKey {
    /// `namespace/name` of the Secret.
    pub secret: String,
    /// It is the one that Velero puts where nobody has chosen one: everybody knows it.
    pub well_known: bool,
}

/// Where a repository is and how it is opened. A changed key or password is another place.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    endpoint: Option<String>,
    bucket: String,
    prefix: String,
    secrets: [u8; 32],
}

/// How to reach a repository.
struct Reach {
    place: Place,
    options: S3Options,
    password: SecretString,
    client: StoreClient,
}

/// A whole bucket and the keys to it.
struct Keyed {
    options: S3Options,
    /// The keys as they are written, to tell changed ones.
    credentials_text: String,
}

impl Place {
    /// The repository below `prefix`, reached and opened with that.
    fn of(parameters: &RepositoryParameters, prefix: &str, password: &SecretString, keyed: &Keyed) -> Self {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let S3Options { region, path_style, skip_tls_verify, tagging, checksum, encryption, .. } = &keyed.options;
        let settings = format!("{region:?} {path_style} {encryption:?} {skip_tls_verify} {tagging:?} {checksum:?}");
        let trusted = keyed.options.ca_pem.as_deref().unwrap_or_default();
        for part in [password.expose_secret(), &keyed.credentials_text, trusted, &settings] {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        let secrets = digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        Self {
            endpoint: parameters.s3_url.clone(),
            bucket: parameters.bucket.clone(),
            prefix: prefix.to_owned(),
            secrets,
        }
    }
}

/// The prefix of the repository of claims that are backed up from `source_namespace`.
pub fn location_of(parameters: &RepositoryParameters, source_namespace: &str) -> String {
    format!("{}/{source_namespace}", folder_of(parameters))
}

/// The prefix of all our repositories.
fn folder_of(parameters: &RepositoryParameters) -> String {
    let prefix = parameters.storage_prefix.as_deref().map(|p| format!("{p}/")).unwrap_or_default();
    format!("{prefix}{FOLDER}")
}

impl Repositories {
    /// Repositories with keys from the Velero namespace.
    pub fn new(client: Client, velero_namespace: &str) -> Self {
        let open = Arc::new(Mutex::new(Slots::new()));
        Self { known: Known::new(client), namespace: velero_namespace.to_owned(), open }
    }

    /// The BackupRepository of that name; `without-backup-repository` is what the storage location `default` says now.
    ///
    /// # Errors
    /// `RepositoryUnknown` when there is none; `StorageLocationMissing` or `RepositoryInvalid` for that location.
    pub async fn find(&self, name: &str) -> Result<BackupRepository, Problem> {
        if name == WITHOUT_BACKUP_REPOSITORY {
            return self.of_the_default_location().await;
        }
        if !api::names::is_object_name(name) {
            let cause = format!("find BackupRepository `{name}`: no object can have that name");
            return Err(Problem::lasting(Reason::RepositoryUnknown, cause));
        }
        let repositories: Api<BackupRepository> = Api::all(self.known.client());
        let found = self.known.get(&repositories, name).await;
        found.map_err(|e| from_kube(&format!("read BackupRepository {name}"), &e))?.ok_or_else(|| {
            Problem::lasting(Reason::RepositoryUnknown, format!("find BackupRepository {name}: there is none"))
        })
    }

    /// A description that no object holds: whoever names no BackupRepository means the location `default`. It allows no
    /// namespace by itself, so the request has to say of which it is.
    async fn of_the_default_location(&self) -> Result<BackupRepository, Problem> {
        let locations: Api<BackupStorageLocation> = Api::namespaced(self.known.client(), &self.namespace);
        let location = match locations.get(DEFAULT_LOCATION).await {
            Ok(location) => location,
            // somebody may make it while we back off; without Velero there is not even the kind
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return Err(Problem { again: Again::Later, ..wanted::missing(DEFAULT_LOCATION) });
            }
            Err(error) => return Err(from_kube(&format!("read BackupStorageLocation {DEFAULT_LOCATION}"), &error)),
        };
        let keys = secret(&self.known, &self.namespace, names::CLOUD_CREDENTIALS_SECRET).await?;
        let keys = match keys {
            Some(found) => DefaultCredentials::Secret(found.data.unwrap_or_default().into_keys().collect()),
            None => DefaultCredentials::None,
        };
        let wanted = wanted::wanted(&location, "", &keys)?;
        Ok(BackupRepository {
            repository_parameters: wanted.parameters,
            credential_secret: wanted.credential_secret,
            ..BackupRepository::new(WITHOUT_BACKUP_REPOSITORY)
        })
    }

    /// Opens the repository of claims from `source_namespace`. Never makes one.
    ///
    /// # Errors
    /// As the repository says; `RepositoryMissing` when nobody has initialised it.
    pub async fn open(&self, described: &BackupRepository, source_namespace: &str) -> Result<Repository, Problem> {
        Ok(self.obtain(described, source_namespace, false).await?.repository)
    }

    /// Opens the repository, making it where there is none. Only the driver may.
    ///
    /// # Errors
    /// As the repository says.
    pub async fn open_or_make(&self, described: &BackupRepository, source_namespace: &str) -> Result<Opened, Problem> {
        self.obtain(described, source_namespace, true).await
    }

    /// The folder of all our repositories in a bucket, without the key of any: for looks at what else lies there.
    ///
    /// # Errors
    /// As the description, its Secrets and the bucket's region say. Whether the bucket answers shows at the first request.
    pub async fn store(&self, described: &BackupRepository) -> Result<S3Store, Problem> {
        let Usable { parameters, options, client } = Usable::read(described)?;
        let (credentials, _) = self.credentials(described, &parameters).await?;
        let ca_pem = location::trusted(&self.known, &self.namespace, &parameters).await?;
        let encryption = location::encryption(&self.known, &self.namespace, &parameters).await?;
        let prefix = folder_of(&parameters);
        let options = S3Options { prefix, ca_pem, encryption, credentials, ..options };
        let act = format!("look at bucket {}", options.bucket);
        client.open(in_its_region(options, &act).await?).await
    }

    /// Where the key of the repositories is.
    ///
    /// # Errors
    /// `RepositoryPasswordMissing`, or what the API server says.
    pub async fn key(&self) -> Result<FoundKey, Problem> {
        let (name, password) = self.named_password().await?;
        let well_known = password.expose_secret() == WELL_KNOWN_PASSWORD;
        Ok(FoundKey { secret: format!("{}/{name}", self.namespace), well_known })
    }

    async fn obtain(&self, described: &BackupRepository, from: &str, make: bool) -> Result<Opened, Problem> {
        let reach = self.reach(described, from).await?;
        let well_known_key = reach.password.expose_secret() == WELL_KNOWN_PASSWORD;
        let asked = Instant::now();
        let slot = self.open.lock().await.of(reach.place, asked);
        let slot = slot.lock_owned().await; // twenty first backups at once: one makes it, the others find it open
        let act = format!("open the repository of namespace {from} in bucket {}", reach.options.bucket);
        if let Some(problem) = slot.failed_since(asked, make) {
            return Err(problem.clone());
        }
        if let Some(open) = &slot.open {
            // a bucket that was wiped meanwhile holds another repository by now, with another key, or none
            if open.is_current().await.map_err(|error| from_repository(&act, &error))? {
                return Ok(Opened { repository: open.clone(), well_known_key });
            }
            tracing::warn!(place = open.place(), "the repository is not the one it was; opening it anew");
        }
        let broke = format!("{act}: it panicked");
        let opening = async move {
            let options = in_its_region(reach.options, &act).await?;
            let store: Arc<dyn Store> = Arc::new(reach.client.open(options).await?);
            let opened = match make {
                true => repository::initialise(store, &reach.password).await,
                false => repository::open(store, &reach.password).await,
            };
            opened.map_err(|error| from_repository(&act, &error))
        };
        let opened = slots::fill(slot, opening).await;
        let repository = opened.unwrap_or_else(|_| Err(Problem::passing(Reason::Internal, broke)))?;
        Ok(Opened { repository, well_known_key })
    }

    /// How backups are written: as the repository says, else the settings, else as restic does.
    ///
    /// # Errors
    /// What is wrong with the description; `SettingsInvalid` for a word that is no format.
    pub async fn format(&self, described: &BackupRepository) -> Result<RepositoryFormat, Problem> {
        let Usable { parameters, .. } = Usable::read(described)?;
        Settings::known(&self.known, &self.namespace).await?.format_of(&parameters)
    }

    /// Whether somebody has ever made the repository of claims from `source_namespace`. Needs no password.
    ///
    /// # Errors
    /// What is wrong with description or keys, and what the store says.
    pub async fn is_made(&self, described: &BackupRepository, source_namespace: &str) -> Result<bool, Problem> {
        let usable = Usable::read(described)?;
        let Keyed { options, .. } = self.keyed(described, &usable).await?;
        let act = format!("look for the repository of namespace {source_namespace} in bucket {}", options.bucket);
        let failed = |error: repository::Error| from_repository(&act, &error);
        let prefix = location_of(&usable.parameters, source_namespace);
        let options = in_its_region(S3Options { prefix, ..options }, &act).await?;
        let config = usable.client.open(options).await?.size("config").await;
        let told = |source| failed(repository::Error::Store { act: "look for its config".to_owned(), source });
        Ok(config.map_err(told)?.is_some())
    }

    /// The original's folders in the bucket of a repository. Needs no password: the original encrypts nothing.
    ///
    /// # Errors
    /// What is wrong with the description or the keys; nothing is asked of the store but, at times, its region.
    pub async fn original(&self, described: &BackupRepository) -> Result<Tree, Problem> {
        let usable = Usable::read(described)?;
        let Keyed { options, .. } = self.keyed(described, &usable).await?;
        let act = format!("reach bucket {}", options.bucket);
        let mut options = in_its_region(options, &act).await?;
        if let StoreEncryption::CustomerKey(_) = options.encryption {
            // the original knows no such key: what it wrote is refused to who brings one, and it could not read what is ours
            options.encryption = StoreEncryption::AsTheBucketDoes;
        }
        let Usable { parameters, client, .. } = usable;
        let named = parameters.legacy_prefix.filter(|prefix| prefix != LEGACY_PREFIX);
        let address = Address {
            bucket: options.bucket.clone(),
            host: described.repository_parameters.get(key::S3_URL).cloned().unwrap_or_default(),
            prefixes: named.into_iter().chain([LEGACY_PREFIX.to_owned()]).collect(),
        };
        Ok(Tree::new(client.open(options).await?, address))
    }

    /// The options of the whole bucket, with all that Secrets say.
    async fn keyed(&self, described: &BackupRepository, usable: &Usable) -> Result<Keyed, Problem> {
        let Usable { parameters, options, .. } = usable;
        let (credentials, credentials_text) = self.credentials(described, parameters).await?;
        let trusted = location::trusted(&self.known, &self.namespace, parameters).await?;
        let encryption = location::encryption(&self.known, &self.namespace, parameters).await?;
        let options = S3Options { ca_pem: trusted, encryption, credentials, ..options.clone() };
        Ok(Keyed { options, credentials_text })
    }

    async fn reach(&self, described: &BackupRepository, from: &str) -> Result<Reach, Problem> {
        let usable = Usable::read(described)?;
        let password = self.password().await?;
        let keyed = self.keyed(described, &usable).await?;
        let Usable { parameters, client, .. } = usable;
        let prefix = location_of(&parameters, from);
        let place = Place::of(&parameters, &prefix, &password, &keyed);
        Ok(Reach { place, options: S3Options { prefix, ..keyed.options }, password, client })
    }

    /// The key of the repositories. We never invent one: a key that dies with the cluster is data loss.
    async fn password(&self) -> Result<SecretString, Problem> {
        Ok(self.named_password().await?.1)
    }

    async fn named_password(&self) -> Result<(&'static str, SecretString), Problem> {
        for name in [names::REPOSITORY_KEY_SECRET, names::VELERO_REPOSITORY_KEY_SECRET] {
            let Some(found) = secret(&self.known, &self.namespace, name).await? else { continue };
            if let Some(password) = text(&found, names::REPOSITORY_PASSWORD) {
                return Ok((name, password));
            }
        }
        Err(Problem::passing(
            Reason::RepositoryPasswordMissing,
            format!(
                "find the key of the repository: neither Secret {0}/{1} nor {0}/{2} has a key `{3}`",
                self.namespace,
                names::REPOSITORY_KEY_SECRET,
                names::VELERO_REPOSITORY_KEY_SECRET,
                names::REPOSITORY_PASSWORD
            ),
        ))
    }

    /// The keys of the bucket: from the Secret that is named, from the parameters, or from the environment.
    async fn credentials(
        &self,
        described: &BackupRepository,
        parameters: &RepositoryParameters,
    ) -> Result<(Credentials, String), Problem> {
        if let Some(named) = &described.credential_secret {
            let namespace = named.namespace.as_deref().unwrap_or(&self.namespace);
            let what = "the bucket's keys";
            let bytes = of_location(&self.known, namespace, &named.name, &named.key, what).await?;
            let missing = |why: String| {
                let cause = format!("read {what} from Secret {namespace}/{}, key `{}`: {why}", named.name, named.key);
                Problem::passing(Reason::StoreAccessDenied, cause)
            };
            let file = String::from_utf8(bytes).map_err(|_| missing("it is not text".to_owned()))?;
            let file = SecretString::from(file);
            let profile = parameters.profile.as_deref().unwrap_or("default");
            let keys = credentials::parse(file.expose_secret(), profile).map_err(missing)?;
            return Ok((keys, format!("{profile}\n{}", file.expose_secret())));
        }
        Ok(match &parameters.static_keys {
            Some(keys) => {
                let text = format!("{}\n{}", keys.access_key_id, keys.secret_access_key.expose_secret());
                let secret = keys.secret_access_key.clone();
                (Credentials::Given { id: keys.access_key_id.clone(), secret, token: None }, text)
            }
            None => (Credentials::Environment, String::new()),
        })
    }
}

/// With the region that the bucket is in, where AWS has to say it.
async fn in_its_region(options: S3Options, act: &str) -> Result<S3Options, Problem> {
    if options.endpoint.is_some() || !options.region.is_empty() {
        return Ok(options);
    }
    let region = S3Store::region_of_bucket(&options).await.map_err(|source| {
        from_repository(act, &repository::Error::Store { act: "find the bucket's region".to_owned(), source })
    })?;
    Ok(S3Options { region, ..options })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a repository is reached and opened with; the usual, where a case changes nothing.
    struct Case {
        prefix: &'static str,
        password: &'static str,
        keys: &'static str,
        options: S3Options,
    }

    impl Case {
        fn with(change: impl FnOnce(&mut Self)) -> Self {
            let options = S3Options { ca_pem: Some("an authority".to_owned()), ..S3Options::new(None, "b", "") };
            let mut case = Self { prefix: "plugins/shop", password: "pw", keys: "id and key", options };
            change(&mut case);
            case
        }

        fn place(self) -> Place {
            let map = [("region", ""), ("bucket", "b")].map(|(key, value)| (key.to_owned(), value.to_owned()));
            let parameters = RepositoryParameters::from_map(&map.into()).expect("they can be read");
            let keyed = Keyed { options: self.options, credentials_text: self.keys.to_owned() };
            Place::of(&parameters, self.prefix, &self.password.into(), &keyed)
        }
    }

    /// A storage location whose certificate, say, was renewed would be refused until somebody starts the program anew.
    #[test]
    fn a_repository_is_opened_anew_once_what_it_is_reached_with_has_changed() {
        let encrypted = StoreEncryption::Algorithm("AES256".to_owned());
        let changed = [
            ("another authority", Case::with(|c| c.options.ca_pem = Some("its successor".to_owned()))),
            ("the system's authorities", Case::with(|c| c.options.ca_pem = None)),
            ("any certificate", Case::with(|c| c.options.skip_tls_verify = true)),
            ("new keys of the bucket", Case::with(|c| c.keys = "id and new key")),
            ("another key of the repositories", Case::with(|c| c.password = "new")),
            ("another encryption at rest", Case::with(|c| c.options.encryption = encrypted)),
            ("another region", Case::with(|c| c.options.region = "there".to_owned())),
            ("another namespace", Case::with(|c| c.prefix = "plugins/bank")),
        ];
        let usual = Case::with(|_| ()).place();
        assert!(Case::with(|_| ()).place() == usual, "nothing has changed");
        for (situation, case) in changed {
            assert!(case.place() != usual, "{situation}");
        }
    }
}
