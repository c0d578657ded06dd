//! The map `repopsitoryParameters` of claims and repositories, as typed values.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use secrecy::SecretString;
use serde::Deserialize;

use crate::tolerant;

/// The keys of the map. Those from [`key::STORAGE_PREFIX`] on are ours: the original never writes them.
pub mod key {
    /// Region; must be there, may be empty.
    pub const REGION: &str = "region";
    /// Bucket.
    pub const BUCKET: &str = "bucket";
    /// `true`: address the bucket as a folder, not as a host.
    pub const S3_FORCE_PATH_STYLE: &str = "s3ForcePathStyle";
    /// URL of the S3 server; empty is AWS in that region.
    pub const S3_URL: &str = "s3Url";
    /// Section of the shared-credentials file; empty is `default`.
    pub const PROFILE: &str = "profile";
    /// Certificate authorities to trust, in PEM.
    pub const CA_CERT: &str = "caCert";
    /// Access key id in clear, as the original writes it.
    pub const ACCESS_KEY_ID: &str = "aws_access_key_id";
    /// Secret access key in clear, as the original writes it.
    pub const SECRET_ACCESS_KEY: &str = "aws_secret_access_key";
    /// Folder of the original's layout.
    pub const LEGACY_PREFIX: &str = "prefix";
    /// Folder of the storage location.
    pub const STORAGE_PREFIX: &str = "storagePrefix";
    /// `restic` or `legacy`.
    pub const REPOSITORY_FORMAT: &str = "repositoryFormat";
    /// `<name>/<key>` of a Secret in the Velero namespace with certificate authorities to trust, in PEM.
    pub const CA_CERT_SECRET: &str = "caCertSecret";
    /// `true`: take any certificate of the S3 server.
    pub const INSECURE_SKIP_TLS_VERIFY: &str = "insecureSkipTLSVerify";
    /// Encryption at rest that the store is asked for, such as `AES256` or `aws:kms`.
    pub const SERVER_SIDE_ENCRYPTION: &str = "serverSideEncryption";
    /// Key in the store's key management that it is to encrypt with.
    pub const KMS_KEY_ID: &str = "kmsKeyId";
    /// File with 32 bytes that the store is to encrypt with, in the containers of driver and data-manager.
    pub const CUSTOMER_KEY_FILE: &str = "customerKeyEncryptionFile";
    /// `<name>/<key>` of a Secret in the Velero namespace with 32 bytes that the store is to encrypt with.
    pub const CUSTOMER_KEY_SECRET: &str = "customerKeyEncryptionSecret";
    /// Tags of every object: `key=value&key=value`.
    pub const TAGGING: &str = "tagging";
    /// Checksum that every object carries; absent is `CRC32`, empty is none.
    pub const CHECKSUM_ALGORITHM: &str = "checksumAlgorithm";
}

/// Prefix of the original's layout when the parameters name none.
pub const LEGACY_PREFIX: &str = "plugins/vsphere-astrolabe-repo";

/// Why a map of parameters cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParametersError {
    /// Required, even if empty.
    #[error("repository parameter `{0}` is missing")]
    Missing(&'static str),
    /// A bucket has a name.
    #[error("repository parameter `bucket` is empty")]
    NoBucket,
    /// No store knows such a bucket.
    #[error("repository parameter `bucket` is `{0}`, which cannot be the name of a bucket")]
    NotABucket(String),
    /// Only the two formats exist.
    #[error("repository parameter `repositoryFormat` is `{0}`; it may be `restic` or `legacy`")]
    UnknownFormat(String),
    /// A reference to a Secret is a name and a key.
    #[error("repository parameter `{key}` is `{value}`; it should read `<name of the Secret>/<key>`")]
    NotASecretKey {
        /// The parameter.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// The store encrypts with one key.
    #[error(
        "repository parameters `kmsKeyId`, `customerKeyEncryptionFile` and `customerKeyEncryptionSecret` exclude each \
         other"
    )]
    TwoEncryptions,
    /// What a store would refuse with every object.
    #[error(
        "repository parameter `tagging` is `{0}`; it should read `key=value&key=value`, with ten tags at most and %XX for what is no ASCII"
    )]
    NotTags(String),
    /// None that we can compute.
    #[error(
        "repository parameter `checksumAlgorithm` is `{0}`; it may be `CRC32`, `CRC32C`, `CRC64NVME`, `SHA1`, `SHA256`, or empty"
    )]
    UnknownChecksum(String),
    /// Both keys or none.
    #[error("of the two S3 keys among the repository parameters one is missing")]
    HalfAKey,
}

/// How backups are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RepositoryFormat {
    /// A restic repository.
    #[default]
    Restic,
    /// The original's layout.
    Legacy,
}

impl RepositoryFormat {
    /// The format of that word, if it is one.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "restic" => Some(Self::Restic),
            "legacy" => Some(Self::Legacy),
            _ => None,
        }
    }
}

/// S3 keys in clear among the parameters, as the original writes them. We read them and never write them.
#[derive(Debug, Clone)]
pub struct StaticKeys {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: SecretString,
}

/// A key of a Secret in the Velero namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SecretKey {
    /// Name of the Secret.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub name: String,
    /// Key inside it.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub key: String,
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.key)
    }
}

impl FromStr for SecretKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once('/') {
            Some((name, key)) if !name.is_empty() && !key.is_empty() && !key.contains('/') => {
                Ok(Self { name: name.to_owned(), key: key.to_owned() })
            }
            _ => Err(()),
        }
    }
}

/// How the store is asked to encrypt at rest, on top of the repository's own encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEncryption {
    /// With keys of its own, by this algorithm: `AES256`, `aws:kms`.
    Algorithm(String),
    /// `aws:kms` with this key of its key management.
    Kms(String),
    /// With the 32 bytes in this file; every request must carry them.
    CustomerKeyFile(String),
    /// With the 32 bytes in this Secret; every request must carry them.
    CustomerKeySecret(SecretKey),
}

/// How the checksum of each object is computed, which the store checks and keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Checksum {
    /// There is none: some stores refuse objects that have one.
    None,
    /// `CRC32`, as Velero's S3 plugin does unasked.
    #[default]
    Crc32,
    /// `CRC32C`.
    Crc32c,
    /// `CRC64NVME`.
    Crc64Nvme,
    /// `SHA1`.
    Sha1,
    /// `SHA256`.
    Sha256,
}

/// Where a repository's bucket is and how to reach it.
#[derive(Debug, Clone)]
pub struct RepositoryParameters {
    /// Region; may be empty.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// Address the bucket as a folder, not as a host.
    pub s3_force_path_style: bool,
    /// URL of the S3 server, with scheme; `None` is AWS in that region.
    pub s3_url: Option<String>,
    /// PEM text of the certificate authorities to trust for it; `None` are the system's.
    pub ca_cert: Option<String>,
    /// Section of the shared-credentials file.
    pub profile: Option<String>,
    /// Keys in clear, if the map carries them.
    pub static_keys: Option<StaticKeys>,
    /// Prefix of the storage location in the bucket, without slashes around it.
    pub storage_prefix: Option<String>,
    /// Prefix of the original's layout, if a hand-made repository names one.
    pub legacy_prefix: Option<String>,
    /// How backups are stored; `None` leaves it to the settings.
    pub repository_format: Option<RepositoryFormat>,
    /// Secret with the certificate authorities to trust; beside [`Self::ca_cert`] both are trusted.
    pub ca_cert_secret: Option<SecretKey>,
    /// Take any certificate of the S3 server.
    pub insecure_skip_tls_verify: bool,
    /// How the store is asked to encrypt at rest; `None` leaves it to the store.
    pub store_encryption: Option<StoreEncryption>,
    /// Tags of every object, as the header has them.
    pub tagging: Option<String>,
    /// Checksum of every object.
    pub checksum: Checksum,
}

impl RepositoryParameters {
    /// Reads the map of a claim or repository.
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<Self, ParametersError> {
        let required = |key: &'static str| map.get(key).ok_or(ParametersError::Missing(key));
        let optional = |key: &str| map.get(key).filter(|v| !v.is_empty()).cloned();
        let path = |key: &str| optional(key).map(|p| p.trim_matches('/').to_owned()).filter(|p| !p.is_empty());
        let bucket = required(key::BUCKET)?.clone();
        if bucket.is_empty() {
            return Err(ParametersError::NoBucket);
        }
        if !is_bucket(&bucket) {
            return Err(ParametersError::NotABucket(bucket));
        }
        let flag = |key: &str| map.get(key).is_some_and(|text| is_true(text));
        Ok(Self {
            region: required(key::REGION)?.clone(),
            bucket,
            s3_force_path_style: flag(key::S3_FORCE_PATH_STYLE),
            s3_url: optional(key::S3_URL).map(with_scheme),
            ca_cert: optional(key::CA_CERT),
            profile: optional(key::PROFILE),
            static_keys: static_keys(optional(key::ACCESS_KEY_ID), optional(key::SECRET_ACCESS_KEY))?,
            storage_prefix: path(key::STORAGE_PREFIX),
            // as it is: the original takes a `/` at its beginning for a part of the key
            legacy_prefix: optional(key::LEGACY_PREFIX)
                .map(|p| p.trim_end_matches('/').to_owned())
                .filter(|p| !p.is_empty()),
            repository_format: optional(key::REPOSITORY_FORMAT).map(|word| format(&word)).transpose()?,
            ca_cert_secret: secret_key(key::CA_CERT_SECRET, optional(key::CA_CERT_SECRET))?,
            insecure_skip_tls_verify: flag(key::INSECURE_SKIP_TLS_VERIFY),
            store_encryption: store_encryption(&optional)?,
            tagging: optional(key::TAGGING).map(tags).transpose()?,
            checksum: map.get(key::CHECKSUM_ALGORITHM).map_or(Ok(Checksum::default()), |word| checksum(word))?,
        })
    }
}

/// Whether some store may have a bucket of that name. Stores differ in what they allow; AWS also takes an access point.
fn is_bucket(name: &str) -> bool {
    name.starts_with("arn:") || name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// Go's words for true; everything else is false.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn with_scheme(url: String) -> String {
    if url.contains("://") { url } else { format!("https://{url}") }
}

fn static_keys(id: Option<String>, secret: Option<String>) -> Result<Option<StaticKeys>, ParametersError> {
    match (id, secret) {
        (None, None) => Ok(None),
        (Some(access_key_id), Some(secret)) => {
            Ok(Some(StaticKeys { access_key_id, secret_access_key: SecretString::from(secret) }))
        }
        _ => Err(ParametersError::HalfAKey),
    }
}

fn secret_key(key: &'static str, value: Option<String>) -> Result<Option<SecretKey>, ParametersError> {
    let read = |value: String| value.parse().map_err(|()| ParametersError::NotASecretKey { key, value });
    value.map(read).transpose()
}

/// A key of one's own decides; without one the algorithm does, as in Velero's S3 plugin.
fn store_encryption(optional: &impl Fn(&str) -> Option<String>) -> Result<Option<StoreEncryption>, ParametersError> {
    let secret = secret_key(key::CUSTOMER_KEY_SECRET, optional(key::CUSTOMER_KEY_SECRET))?;
    match (optional(key::KMS_KEY_ID), optional(key::CUSTOMER_KEY_FILE), secret) {
        (None, None, None) => Ok(optional(key::SERVER_SIDE_ENCRYPTION).map(StoreEncryption::Algorithm)),
        (Some(id), None, None) => Ok(Some(StoreEncryption::Kms(id))),
        (None, Some(file), None) => Ok(Some(StoreEncryption::CustomerKeyFile(file))),
        (None, None, Some(secret)) => Ok(Some(StoreEncryption::CustomerKeySecret(secret))),
        _ => Err(ParametersError::TwoEncryptions),
    }
}

/// The limits are those of S3; how long a key or value may be is for the store to say.
fn tags(text: String) -> Result<String, ParametersError> {
    const MOST: usize = 10;
    let is_tag =
        |tag: &str| matches!(tag.split_once('='), Some((key, value)) if !key.is_empty() && !value.contains('='));
    let fit = text.bytes().all(|byte| byte.is_ascii_graphic()) && text.split('&').all(is_tag);
    if fit && text.split('&').count() <= MOST { Ok(text) } else { Err(ParametersError::NotTags(text)) }
}

fn checksum(word: &str) -> Result<Checksum, ParametersError> {
    Ok(match word {
        "" => Checksum::None,
        "CRC32" => Checksum::Crc32,
        "CRC32C" => Checksum::Crc32c,
        "CRC64NVME" => Checksum::Crc64Nvme,
        "SHA1" => Checksum::Sha1,
        "SHA256" => Checksum::Sha256,
        other => return Err(ParametersError::UnknownChecksum(other.to_owned())),
    })
}

fn format(word: &str) -> Result<RepositoryFormat, ParametersError> {
    RepositoryFormat::from_word(word).ok_or_else(|| ParametersError::UnknownFormat(word.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may fail where it stands

    use super::*;
    use secrecy::ExposeSecret;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_originals_map_is_understood() {
        let read = RepositoryParameters::from_map(&map(&[
            ("region", "us-lab-1"),
            ("bucket", "k8s-backups"),
            ("s3ForcePathStyle", "true"),
            ("s3Url", "s3.lab.example:9000"),
            ("profile", ""),
            ("aws_access_key_id", "AKIALAB"),
            ("aws_secret_access_key", "not-a-real-secret"),
        ]))
        .unwrap();
        assert!(read.s3_force_path_style);
        assert_eq!(read.s3_url.as_deref(), Some("https://s3.lab.example:9000"));
        assert_eq!(read.profile, None);
        let keys = read.static_keys.as_ref().unwrap();
        assert_eq!(keys.secret_access_key.expose_secret(), "not-a-real-secret");
        assert!(!format!("{read:?}").contains("not-a-real-secret"), "a log line must not tell the key");
    }

    #[test]
    fn a_map_that_cannot_work_says_which_parameter_is_wrong() {
        let place = [("region", ""), ("bucket", "b")];
        let with = |more: &[(&'static str, &'static str)]| [&place[..], more].concat();
        let bad = [
            (vec![("bucket", "b")], "`region` is missing"),
            (vec![("region", ""), ("bucket", "")], "`bucket` is empty"),
            (vec![("region", ""), ("bucket", "a/b c")], "`bucket` is `a/b c`"),
            (with(&[("aws_access_key_id", "x")]), "one is missing"),
            (with(&[("repositoryFormat", "tar")]), "`tar`"),
            (with(&[("caCertSecret", "ca")]), "`caCertSecret` is `ca`"),
            (with(&[("customerKeyEncryptionSecret", "a/b/c")]), "`a/b/c`"),
            (with(&[("kmsKeyId", "k"), ("customerKeyEncryptionFile", "/f")]), "exclude each other"),
            (with(&[("checksumAlgorithm", "MD5")]), "`MD5`"),
            (with(&[("tagging", "team")]), "`team`"),
            (with(&[("tagging", "team=a=b")]), "`team=a=b`"),
            (with(&[("tagging", "team=a&&b=c")]), "`team=a&&b=c`"),
            (with(&[("tagging", "stra\u{df}e=1")]), "%XX"),
            (with(&[("tagging", "a=&b=&c=&d=&e=&f=&g=&h=&i=&j=&k=")]), "ten tags"),
        ];
        for (pairs, why) in bad {
            let error = RepositoryParameters::from_map(&map(&pairs)).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn every_setting_of_a_storage_location_is_honoured() {
        let read = |more: &[(&str, &str)]| {
            RepositoryParameters::from_map(&map(&[&[("region", ""), ("bucket", "b")], more].concat())).unwrap()
        };
        let nothing = read(&[]);
        assert!(!nothing.insecure_skip_tls_verify && nothing.store_encryption.is_none() && nothing.tagging.is_none());
        assert_eq!(nothing.checksum, Checksum::Crc32, "what Velero's S3 plugin sends unasked, the store takes from us");
        assert_eq!(read(&[("checksumAlgorithm", "")]).checksum, Checksum::None, "some stores refuse it");
        assert_eq!(read(&[("checksumAlgorithm", "SHA256")]).checksum, Checksum::Sha256);
        for tags in ["team=shop", "team=shop&tier=", "team=caf%C3%A9&a=b"] {
            assert_eq!(read(&[("tagging", tags)]).tagging.as_deref(), Some(tags));
        }
        assert!(read(&[("insecureSkipTLSVerify", "T")]).insecure_skip_tls_verify);
        let secret = read(&[("caCertSecret", "authorities/ca.crt")]).ca_cert_secret.unwrap();
        assert_eq!((secret.name.as_str(), secret.key.as_str()), ("authorities", "ca.crt"));
        let own = SecretKey { name: "s".to_owned(), key: "k".to_owned() };
        let cases: [(&[(&str, &str)], StoreEncryption); 5] = [
            (&[("serverSideEncryption", "AES256")], StoreEncryption::Algorithm("AES256".to_owned())),
            (&[("kmsKeyId", "id")], StoreEncryption::Kms("id".to_owned())),
            (&[("kmsKeyId", "id"), ("serverSideEncryption", "aws:kms")], StoreEncryption::Kms("id".to_owned())),
            (&[("customerKeyEncryptionFile", "/key")], StoreEncryption::CustomerKeyFile("/key".to_owned())),
            (&[("customerKeyEncryptionSecret", "s/k")], StoreEncryption::CustomerKeySecret(own)),
        ];
        for (settings, want) in cases {
            assert_eq!(read(settings).store_encryption, Some(want), "{settings:?}");
        }
    }

    #[test]
    fn slashes_around_a_prefix_do_not_make_another_place() {
        let read = |prefix| {
            RepositoryParameters::from_map(&map(&[("region", ""), ("bucket", "b"), ("storagePrefix", prefix)]))
                .unwrap()
                .storage_prefix
        };
        assert_eq!(read("/velero/"), Some("velero".to_owned()));
        assert_eq!(read("velero"), Some("velero".to_owned()));
        assert_eq!(read("/"), None);
    }
}
