//! Where a repository is, as people write it: a folder, or `s3:https://host:port/bucket/prefix`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::store::{self, Checksum, FolderStore, S3Store, Store, StoreEncryption};

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

/// Why a text is not a location. What it shows of the text holds no keys, even where somebody wrote them there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not {what}: {cause}")]
pub struct InvalidLocation {
    shown: String,
    what: &'static str,
    cause: String,
}

impl InvalidLocation {
    fn new(text: &str, what: &'static str, cause: impl Into<String>) -> Self {
        Self { shown: without_keys(text), what, cause: cause.into() }
    }
}

/// What errors say is expected.
const PLACE: &str = "the place of a repository (a folder, or s3:https://host:port/bucket/prefix)";
/// The same, for the server alone.
const ENDPOINT: &str = "the address of an S3 server (https://host:port)";

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
    /// Any text the server accepts; empty means `us-east-1`, which stores without regions expect. For AWS,
    /// [`S3Store::region_of_bucket`] finds it.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// Keys begin with it; `/` at either end does not matter.
    pub prefix: String,
    /// `https://host/bucket/key` instead of `https://bucket.host/key`.
    pub path_style: bool,
    /// Certificates to trust, in PEM, besides the system's.
    pub ca_pem: Option<String>,
    /// Take any certificate of the server. Whoever stands in between can then read and change what is sent; the
    /// repository's own encryption keeps the contents secret and shows changes, the key to the bucket is signed with and
    /// never sent.
    pub skip_tls_verify: bool,
    /// How the store is asked to encrypt at rest.
    pub encryption: StoreEncryption,
    /// Tags of every object, `key=value&key=value`, as the header has them.
    pub tagging: Option<String>,
    /// Checksum of every object; `None` for stores that refuse the header.
    pub checksum: Option<Checksum>,
    /// The key to the bucket.
    pub credentials: Credentials,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the first byte of an answer.
    pub read_timeout: Duration,
    /// How long the body of an answer, or of a put, may stand still before the try is given up; busy stores pause for some
    /// seconds.
    pub stall_timeout: Duration,
    /// Longest time one operation may take, all its tries together.
    pub operation_timeout: Duration,
    /// Tries of one operation, the first included.
    pub attempts: u32,
    /// Longest pause before the second try; doubles with each one that follows, up to 20 seconds.
    pub first_pause: Duration,
}

impl S3Options {
    /// Reads the address of a server for [`S3Options::endpoint`].
    ///
    /// # Errors
    /// It is no URL of http or https, or has parts that we would not use: keys, a query, a fragment. Keys are not shown.
    pub fn parse_endpoint(text: &str) -> Result<Url, InvalidLocation> {
        server(text).map_err(|cause| InvalidLocation::new(text, ENDPOINT, format!("it {cause}")))
    }

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
            tagging: None,
            checksum: None,
            credentials: Credentials::Environment,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(45),
            operation_timeout: Duration::from_secs(600),
            attempts: 5,
            first_pause: Duration::from_secs(1),
        }
    }
}

impl Location {
    /// Reads what restic reads for these two kinds; `s3:host/bucket` means https. As in restic, a relative folder with a
    /// colon in its first part is written `./name:x` or `local:name:x`.
    pub fn parse(text: &str) -> Result<Self, InvalidLocation> {
        let invalid = |cause: &str| InvalidLocation::new(text, PLACE, cause);
        let Some(address) = text.strip_prefix("s3:") else {
            return folder(text).map(Self::Folder);
        };
        let address = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
        let mut endpoint = server(&address).map_err(|cause| invalid(&format!("the part after `s3:` {cause}")))?;
        let path = endpoint.path().trim_matches('/');
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            return Err(invalid("it names no bucket"));
        }
        let (bucket, prefix) = (bucket.to_owned(), prefix.trim_matches('/').to_owned());
        endpoint.set_path("");
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

/// A folder, unless the text is how restic writes a place of another kind.
fn folder(text: &str) -> Result<PathBuf, InvalidLocation> {
    let invalid = |cause: String| Err(InvalidLocation::new(text, PLACE, cause));
    if let Some(folder) = text.strip_prefix("local:").filter(|folder| !folder.is_empty()) {
        return Ok(PathBuf::from(folder));
    }
    match text.split_once(':') {
        None if text.is_empty() => invalid("it is empty".to_owned()),
        Some(("local", _)) => invalid("it names no folder".to_owned()),
        Some((kind, _)) if !kind.contains('/') => {
            invalid(format!("the kind `{kind}:` is not supported; for a folder of that name write ./ before it"))
        }
        _ => Ok(PathBuf::from(text)),
    }
}

/// The URL of a server that can be used as it is written; otherwise what is wrong with it, to follow its name.
fn server(address: &str) -> Result<Url, &'static str> {
    let url = Url::parse(address).map_err(|_| "is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("names no server (http or https)");
    }
    // a `/` in a password ends the host too early: the rest of the password is then a path, and no bucket has an `@`
    let broken_off = url.path().split('/').nth(1).is_some_and(|bucket| bucket.contains('@'));
    if !url.username().is_empty() || url.password().is_some() || broken_off {
        return Err("holds keys, which do not belong in an address: give them apart from it");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a `?` or `#`, which would be ignored: write %3F or %23 where a name holds one");
    }
    Ok(url)
}

/// `text` as an error may show it: before an `@` stands a password, behind a `?` or `#` may stand a signature.
fn without_keys(text: &str) -> String {
    let shown = if text.contains('@') {
        let scheme = text.find("://").map(|at| at + 3).or_else(|| text.find(':').map(|at| at + 1));
        &text[..scheme.filter(|end| !text[..*end].contains('@')).unwrap_or(0)]
    } else {
        &text[..text.find(['?', '#']).unwrap_or(text.len())]
    };
    if shown.len() < text.len() { format!("{shown}…") } else { shown.to_owned() }
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
        let others = ["b2:x", "gs:x", "azure:x", "rclone:x:y", "sftp:u@h:/x", "rest:http://x", "swift:x:/y", "S3:h/b"];
        for text in others {
            let said = Location::parse(text).unwrap_err().to_string();
            let kind = text.split_once(':').unwrap().0;
            assert!(said.contains(&format!("the kind `{kind}:` is not supported")), "{said}");
            assert!(said.contains("a folder, or s3:https://host:port/bucket/prefix"), "{said}");
            for folder in [format!("./{text}"), format!("/srv/{text}")] {
                assert_eq!(Location::parse(&folder), Ok(Location::Folder(folder.into())));
            }
        }
        for text in ["", "local:", "s3:", "s3:https://store", "s3:ftp://store/b", "https://store/b"] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_of_an_address_that_would_be_dropped_is_refused() {
        for text in ["s3:https://store/b?versionId=1", "s3:https://store/b/a#c", "s3:store/b?"] {
            assert!(Location::parse(text).unwrap_err().to_string().contains("would be ignored"), "{text}");
        }
        assert!(S3Options::parse_endpoint("https://store:9000/?region=x").is_err());
        assert!(S3Options::parse_endpoint("ftp://store").is_err());
        assert_eq!(S3Options::parse_endpoint("https://store:9000").unwrap().as_str(), "https://store:9000/");
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_never_shown() {
        for secret in ["pass", "7/pass", "pass#pass", "pass?pass", "pass/pass", "pass@pass", "%70pass"] {
            for place in [
                format!("s3:http://user:{secret}@host/bucket"),
                format!("s3:user:{secret}@host/bucket"),
                format!("rest:https://user:{secret}@host/"),
                format!("http://user:{secret}@host"),
            ] {
                let error = Location::parse(&place).unwrap_err();
                assert!(!format!("{error} {error:?}").contains("pass"), "{error:?}");
            }
            let error = S3Options::parse_endpoint(&format!("https://user:{secret}@host")).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("pass"), "{error:?}");
        }
        let signed = Location::parse("s3:https://h/b?X-Amz-Signature=pass").unwrap_err();
        assert!(!signed.to_string().contains("pass"), "{signed}");
    }
}
