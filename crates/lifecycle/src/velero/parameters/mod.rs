//! From a storage location of Velero to a repository of ours.
//!
//! Exactly the location that the backup names is used (the original took any other when that one was not found, W-36),
//! with every setting that makes a difference (W-39), and its keys stay in the Secret they are in (W-31).

use std::collections::BTreeMap;

use api::parameters::{RepositoryParameters, key};
use api::velero::BackupStorageLocation;
use api::{BackupRepositoryClaim, CredentialSecret, REPOSITORY_DRIVER, Reason, labels, names};
use k8s_openapi::api::core::v1::Secret;

use crate::Problem;

/// Providers of Velero that speak S3.
const S3_PROVIDERS: [&str; 2] = ["aws", "velero.io/aws"];
/// Key in Velero's own Secret of credentials.
const DEFAULT_CREDENTIAL_KEY: &str = "cloud";
/// Setting that Velero fills in by itself, and that a location may name in vain.
const CREDENTIALS_FILE: &str = "credentialsFile";
/// Where Velero has `cloud-credentials`.
const DEFAULT_CREDENTIALS_FILE: &str = "/credentials/cloud";

/// Settings that are taken over under the same name, where they are set.
const TAKEN_OVER: [&str; 6] = [
    key::INSECURE_SKIP_TLS_VERIFY,
    key::SERVER_SIDE_ENCRYPTION,
    key::KMS_KEY_ID,
    key::CUSTOMER_KEY_FILE,
    key::CUSTOMER_KEY_SECRET,
    key::TAGGING,
];

/// The repository that a storage location asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is and how it is reached. Never a key in clear.
    pub parameters: BTreeMap<String, String>,
    /// Where its keys are; `None` is the environment of whoever uses it.
    pub credential_secret: Option<CredentialSecret>,
    /// Namespace whose claims are backed up there: always the one they come *from*.
    pub namespace: String,
}

/// What stands for keys when the storage location names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultCredentials {
    /// There is no Secret `cloud-credentials`: instance profiles or the like.
    None,
    /// There is one, with these keys.
    Secret(Vec<String>),
}

impl DefaultCredentials {
    /// From Secret [`names::CLOUD_CREDENTIALS_SECRET`], if it is there.
    pub fn of(secret: Option<Secret>) -> Self {
        secret.map_or(Self::None, |secret| Self::Secret(secret.data.unwrap_or_default().into_keys().collect()))
    }
}

/// The repository of a storage location for claims from `namespace`.
///
/// # Errors
/// `RepositoryInvalid` when the location cannot hold one, with the setting at fault.
pub fn wanted(
    location: &BackupStorageLocation,
    namespace: &str,
    default: &DefaultCredentials,
) -> Result<Wanted, Problem> {
    let bad = |why: String| {
        let cause = format!("use BackupStorageLocation {}: {why}", location.name());
        let fix = "Correct the location, or back up to another one.".to_owned();
        Problem::lasting(Reason::RepositoryInvalid, cause).with_fix(Some(fix))
    };
    let provider = location.spec.provider.as_str();
    if !S3_PROVIDERS.contains(&provider) {
        return Err(bad(format!("its provider is `{provider}`; only S3 (`aws`) can hold disks")));
    }
    let storage = &location.spec.object_storage;
    if storage.ca_cert.is_some() && storage.ca_cert_ref.is_some() {
        return Err(bad("it has both caCert and caCertRef, of which one may be set".to_owned()));
    }
    let parameters = parameters(location);
    RepositoryParameters::from_map(&parameters).map_err(|e| bad(e.to_string()))?;
    Ok(Wanted {
        parameters,
        credential_secret: credential(location, default).map_err(bad)?,
        namespace: namespace.to_owned(),
    })
}

/// The first five as the original writes them, the others only where they are set: claims stay the same when nothing is.
fn parameters(location: &BackupStorageLocation) -> BTreeMap<String, String> {
    let (config, storage) = (&location.spec.config, &location.spec.object_storage);
    let of_config = |key: &str| config.get(key).map(|v| v.trim().to_owned()).unwrap_or_default();
    let always = [key::REGION, key::S3_FORCE_PATH_STYLE, key::S3_URL, key::PROFILE];
    let mut map: BTreeMap<String, String> = always.iter().map(|k| ((*k).to_owned(), of_config(k))).collect();
    map.insert(key::BUCKET.to_owned(), storage.bucket.clone());
    let folder = storage.prefix.as_deref().map(|p| p.trim_matches('/').to_owned());
    let own = [
        (key::STORAGE_PREFIX, folder),
        (key::CA_CERT, storage.ca_cert.clone()),
        (key::CA_CERT_SECRET, storage.ca_cert_ref.as_ref().map(ToString::to_string)),
    ];
    let taken_over = TAKEN_OVER.iter().map(|k| (*k, Some(of_config(k))));
    let set = own.into_iter().chain(taken_over).filter_map(|(k, v)| Some((k, v.filter(|v| !v.is_empty())?)));
    map.extend(set.map(|(k, v)| (k.to_owned(), v)));
    // here empty is a word of its own: no checksums
    map.extend(config.get_key_value(key::CHECKSUM_ALGORITHM).map(|(k, v)| (k.clone(), v.trim().to_owned())));
    map
}

fn credential(
    location: &BackupStorageLocation,
    default: &DefaultCredentials,
) -> Result<Option<CredentialSecret>, String> {
    let secret =
        |name: &str, key: &str| Some(CredentialSecret { namespace: None, name: name.to_owned(), key: key.to_owned() });
    if let Some(named) = &location.spec.credential {
        return match (named.name.as_str(), named.key.as_str()) {
            ("", _) | (_, "") => Err(format!("its credential is `{named}`; it needs a Secret and a key in it")),
            (name, key) => Ok(secret(name, key)),
        };
    }
    let file = location.spec.config.get(CREDENTIALS_FILE).map_or("", |file| file.trim());
    if !["", DEFAULT_CREDENTIALS_FILE].contains(&file) {
        return Err(format!(
            "its {CREDENTIALS_FILE} {file} is in Velero's container only; name a Secret in `credential`"
        ));
    }
    let DefaultCredentials::Secret(keys) = default else { return Ok(None) };
    match &keys[..] {
        keys if keys.iter().any(|key| key == DEFAULT_CREDENTIAL_KEY) => {
            Ok(secret(names::CLOUD_CREDENTIALS_SECRET, DEFAULT_CREDENTIAL_KEY))
        }
        [only] => Ok(secret(names::CLOUD_CREDENTIALS_SECRET, only)),
        _ => Err(format!("Secret {} has no key `{DEFAULT_CREDENTIAL_KEY}`", names::CLOUD_CREDENTIALS_SECRET)),
    }
}

/// The storage location that the settings of a snapshot location stand for: the bucket of backups of plugin 1.0.2 and older. `None` where
/// they name no bucket; then those backups lie in the storage location `default`. Its claim is for the Velero namespace.
pub fn of_snapshot_location(config: &BTreeMap<String, String>) -> Option<BackupStorageLocation> {
    let bucket = config.get(key::BUCKET).map(|bucket| bucket.trim()).filter(|bucket| !bucket.is_empty())?;
    let mut location = BackupStorageLocation::default();
    location.metadata.name = Some("of the VolumeSnapshotLocation".to_owned());
    location.spec.provider = S3_PROVIDERS[0].to_owned();
    location.spec.object_storage.bucket = bucket.to_owned();
    location.spec.config.clone_from(config);
    Some(location)
}

/// The location that a backup names is not there.
pub fn missing(location: &str) -> Problem {
    let cause = match location {
        "" => "find the storage location: the backup names none".to_owned(),
        name => format!("find the storage location: there is no BackupStorageLocation {name}"),
    };
    Problem::lasting(Reason::StorageLocationMissing, cause)
}

/// Whether Velero's plugin has made the claim, and nobody has changed it since: its name follows from what it asks for.
pub fn is_of_the_plugin(claim: &BackupRepositoryClaim) -> bool {
    let Some([namespace]) = claim.allowed_namespaces.as_deref() else { return false };
    let asks = Wanted {
        parameters: claim.repository_parameters.clone(),
        credential_secret: claim.credential_secret.clone(),
        namespace: namespace.clone(),
    };
    claim.metadata.name == asks.claim("").metadata.name
}

/// How to come by the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'c> {
    /// It is there: the name of the BackupRepository.
    Use(&'c str),
    /// It was asked for: wait until this claim has its repository.
    Await(&'c str),
    /// Nobody has asked: make [a claim](Wanted::claim).
    Ask,
}

impl Wanted {
    /// Whether a claim asks for this very repository.
    pub fn is_asked_by(&self, claim: &BackupRepositoryClaim) -> bool {
        claim.metadata.deletion_timestamp.is_none()
            && claim.repository_driver == REPOSITORY_DRIVER
            && claim.repository_parameters == self.parameters
            && claim.credential_secret == self.credential_secret
            && claim.allowed_namespaces.as_deref() == Some(std::slice::from_ref(&self.namespace))
    }

    /// Looks among the claims of the Velero namespace. One of the original's never fits: it holds keys in clear.
    pub fn choose<'c>(&self, claims: &'c [BackupRepositoryClaim]) -> Choice<'c> {
        let fitting = || claims.iter().filter(|claim| self.is_asked_by(claim));
        let bound = |claim: &'c BackupRepositoryClaim| claim.backup_repository.as_deref().filter(|r| !r.is_empty());
        if let Some(repository) = fitting().find_map(bound) {
            return Choice::Use(repository);
        }
        match fitting().find_map(|claim| claim.metadata.name.as_deref()) {
            Some(claim) => Choice::Await(claim),
            None => Choice::Ask,
        }
    }

    /// The claim to make in the Velero namespace. Its name follows from what it asks for, so that of many plugins that
    /// ask at once one makes it and the others find it there.
    pub fn claim(&self, velero_namespace: &str) -> BackupRepositoryClaim {
        let mut claim = BackupRepositoryClaim::new(&names::backup_repository_claim(self.fingerprint()));
        claim.metadata.namespace = Some(velero_namespace.to_owned());
        claim.metadata.labels = Some(labels::ours());
        claim.repository_parameters.clone_from(&self.parameters);
        claim.allowed_namespaces = Some(vec![self.namespace.clone()]);
        claim.credential_secret.clone_from(&self.credential_secret);
        claim
    }

    /// FNV-1a of everything, in the form of a UUID. Nobody's security hangs on it, only the length of a name.
    fn fingerprint(&self) -> String {
        let secret = self.credential_secret.as_ref();
        let secret = secret.map(|s| [s.namespace.as_deref().unwrap_or_default(), s.name.as_str(), s.key.as_str()]);
        let parameters = self.parameters.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
        let parts = parameters.chain(secret.into_iter().flatten()).chain([self.namespace.as_str()]);
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        for byte in parts.flat_map(|part| part.bytes().chain([0])) {
            hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        let hex = format!("{hash:032x}");
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }
}

#[cfg(test)]
mod tests;
