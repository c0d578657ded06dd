//! Where a repository is, as people write it: a folder, or `s3:https://host:port/bucket/prefix`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::store::{self, FolderStore, S3Store, Store, StoreEncryption};

/// A place for a repository, without the keys to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket of a server.
    S3 {
        /// Scheme, host and port.
        endpoint: Url,
        /// The bucket.
        bucket: String,
        /// Keys begin with it; without `/` at either end, may be empty.
        prefix: String,
    },
}

/// Why a text is not a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the place of a repository: {cause} (a folder, or s3:https://host:port/bucket/prefix)")]
pub struct InvalidLocation {
    text: String,
    cause: &'static str,
}

/// The key to a bucket. Its `Debug` shows no secret.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// What the environment offers: `AWS_…` variables, a shared credentials file, a web identity, the machine's role.
    #[default]
    Environment,
    /// These.
    Given {
        /// Access key id.
        id: String,
        /// Secret access key.
        secret: SecretString,
        /// Session token of temporary keys.
        token: Option<SecretString>,
    },
}

/// What it takes to reach a bucket.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// Server to talk to; `None` is AWS in `region`.
    pub endpoint: Option<Url>,
    /// Any text the server accepts; empty means `us-east-1`, which stores without regions expect.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// Keys begin with it; `/` at either end does not matter.
    pub prefix: String,
    /// `https://host/bucket/key` instead of `https://bucket.host/key`.
    pub path_style: bool,
    /// Certificates to trust, in PEM, instead of the system's.
    pub ca_pem: Option<String>,
    /// Take any certificate of the server. Whoever stands in between can then read and change what is sent; the
    /// repository's own encryption keeps the contents secret and shows changes, the key to the bucket is signed with and
    /// never sent.
    pub skip_tls_verify: bool,
    /// How the store is asked to encrypt at rest.
    pub encryption: StoreEncryption,
    /// The key to the bucket.
    pub credentials: Credentials,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the first byte of an answer.
    pub read_timeout: Duration,
    /// Longest time one operation may take, all its tries together.
    pub operation_timeout: Duration,
    /// Tries of one operation, the first included.
    pub attempts: u32,
}

impl S3Options {
    /// Everything but the place at its default: path style, five tries, ten minutes for an operation.
    pub fn new(endpoint: Option<Url>, bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            endpoint,
            region: String::new(),
            bucket: bucket.into(),
            prefix: prefix.into(),
            path_style: true,
            ca_pem: None,
            skip_tls_verify: false,
            encryption: StoreEncryption::default(),
            credentials: Credentials::Environment,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            operation_timeout: Duration::from_secs(600),
            attempts: 5,
        }
    }
}

impl Location {
    /// Reads what restic reads for these two kinds; `s3:host/bucket` means https.
    pub fn parse(text: &str) -> Result<Self, InvalidLocation> {
        let invalid = |cause| InvalidLocation { text: text.to_owned(), cause };
        let Some(address) = text.strip_prefix("s3:") else {
            let folder = text.strip_prefix("local:").unwrap_or(text);
            return if folder.is_empty() {
                Err(invalid("it is empty"))
            } else if folder.contains("://") || folder.starts_with("rest:") || folder.starts_with("sftp:") {
                Err(invalid("its kind is not known here"))
            } else {
                Ok(Self::Folder(PathBuf::from(folder)))
            };
        };
        let address = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
        let url = Url::parse(&address).map_err(|_| invalid("the part after `s3:` is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(invalid("the part after `s3:` names no server"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("keys do not belong in an address"));
        }
        let path = url.path().trim_matches('/');
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            return Err(invalid("it names no bucket"));
        }
        let (bucket, prefix) = (bucket.to_owned(), prefix.trim_matches('/').to_owned());
        let mut endpoint = url;
        endpoint.set_path("");
        endpoint.set_query(None);
        endpoint.set_fragment(None);
        Ok(Self::S3 { endpoint, bucket, prefix })
    }

    /// The store at this place. For a bucket, key, region and certificates come from `adjust`, which sees the defaults.
    pub async fn store(&self, adjust: impl FnOnce(&mut S3Options)) -> Result<Arc<dyn Store>, store::Error> {
        match self {
            Self::Folder(folder) => Ok(Arc::new(FolderStore::new(folder))),
            Self::S3 { endpoint, bucket, prefix } => {
                let mut options = S3Options::new(Some(endpoint.clone()), bucket, prefix);
                adjust(&mut options);
                Ok(Arc::new(S3Store::new(options).await?))
            }
        }
    }
}

impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::S3 { endpoint, bucket, prefix } => {
                write!(f, "s3:{}/{bucket}", endpoint.as_str().trim_end_matches('/'))?;
                if prefix.is_empty() { Ok(()) } else { write!(f, "/{prefix}") }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    #[test]
    fn a_repository_is_found_where_restic_would_look() {
        let cases = [
            ("/srv/backup", "/srv/backup"),
            ("local:/srv/backup", "/srv/backup"),
            ("s3:https://store:9000/bucket", "s3:https://store:9000/bucket"),
            ("s3:http://127.0.0.1:7070/bucket/a/b/", "s3:http://127.0.0.1:7070/bucket/a/b"),
            ("s3:s3.example.org/bucket/a", "s3:https://s3.example.org/bucket/a"),
            ("s3:https://[::1]:9000/bucket", "s3:https://[::1]:9000/bucket"),
        ];
        for (written, means) in cases {
            assert_eq!(Location::parse(written).unwrap().to_string(), means, "{written}");
        }
    }

    #[test]
    fn a_place_that_would_be_taken_for_a_folder_by_mistake_is_refused() {
        for text in [
            "",
            "s3:",
            "s3:https://store",
            "s3:ftp://store/b",
            "https://store/b",
            "rest:http://x",
            "s3:https://k:s@h/b",
        ] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }
}
