//! The map `repopsitoryParameters` of claims and repositories, as typed values.

use std::collections::BTreeMap;

use secrecy::SecretString;

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
    /// Only the two formats exist.
    #[error("repository parameter `repositoryFormat` is `{0}`; it may be `restic` or `legacy`")]
    UnknownFormat(String),
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

/// S3 keys in clear among the parameters, as the original writes them. We read them and never write them.
#[derive(Debug, Clone)]
pub struct StaticKeys {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: SecretString,
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
}

impl RepositoryParameters {
    /// Reads the map of a claim or repository.
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<Self, ParametersError> {
        let required = |key: &'static str| map.get(key).ok_or(ParametersError::Missing(key));
        let optional = |key: &str| map.get(key).filter(|v| !v.is_empty()).cloned();
        let path = |key: &str| optional(key).map(|p| p.trim_matches('/').to_owned()).filter(|p| !p.is_empty());
        let bucket = required("bucket")?.clone();
        if bucket.is_empty() {
            return Err(ParametersError::NoBucket);
        }
        Ok(Self {
            region: required("region")?.clone(),
            bucket,
            s3_force_path_style: map.get("s3ForcePathStyle").is_some_and(|text| is_true(text)),
            s3_url: optional("s3Url").map(with_scheme),
            ca_cert: optional("caCert"),
            profile: optional("profile"),
            static_keys: static_keys(optional("aws_access_key_id"), optional("aws_secret_access_key"))?,
            storage_prefix: path("storagePrefix"),
            legacy_prefix: path("prefix"),
            repository_format: optional("repositoryFormat").map(|word| format(&word)).transpose()?,
        })
    }
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

fn format(word: &str) -> Result<RepositoryFormat, ParametersError> {
    match word {
        "restic" => Ok(RepositoryFormat::Restic),
        "legacy" => Ok(RepositoryFormat::Legacy),
        other => Err(ParametersError::UnknownFormat(other.to_owned())),
    }
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
        let bad: [(&[(&str, &str)], &str); 4] = [
            (&[("bucket", "b")], "`region` is missing"),
            (&[("region", ""), ("bucket", "")], "`bucket` is empty"),
            (&[("region", ""), ("bucket", "b"), ("aws_access_key_id", "x")], "one is missing"),
            (&[("region", ""), ("bucket", "b"), ("repositoryFormat", "tar")], "`tar`"),
        ];
        for (pairs, why) in bad {
            let error = RepositoryParameters::from_map(&map(pairs)).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
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
