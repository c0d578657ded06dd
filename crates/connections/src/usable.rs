//! Whether a description of a repository can be used at all: what its own fields say, before a Secret, the bucket or
//! anything else is asked.

use api::parameters::RepositoryParameters;
use api::{BackupRepository, REPOSITORY_DRIVER, Reason};
use kube::ResourceExt as _;
use lifecycle::{Again, Problem};
use repository::store::S3Store;
use repository::{Credentials, S3Options};

use crate::location;

/// The fields of a description, understood.
pub(crate) struct Usable {
    /// Its parameters.
    pub(crate) parameters: RepositoryParameters,
    /// The store and its bucket as they say, without keys and prefix.
    pub(crate) options: S3Options,
    /// How a client is made for it.
    pub(crate) client: StoreClient,
}

/// Makes the client of one description's store, or says which of its fields keeps it from being made.
pub(crate) struct StoreClient {
    repository: String,
    trust: &'static str,
    again: Again,
}

/// Looks at a description without asking anybody.
///
/// # Errors
/// `RepositoryInvalid` with the field at fault.
pub async fn check(described: &BackupRepository) -> Result<(), Problem> {
    let Usable { options, client, .. } = Usable::read(described)?;
    // no request is made with it; without a key the environment would be searched for one
    let credentials = Credentials::Given { id: "nobody".to_owned(), secret: String::new().into(), token: None };
    client.open(S3Options { credentials, ..options }).await.map(drop)
}

impl Usable {
    /// Reads driver, parameters and address.
    pub(crate) fn read(described: &BackupRepository) -> Result<Self, Problem> {
        let name = described.name_any();
        let invalid =
            |why: String| Problem::lasting(Reason::RepositoryInvalid, format!("use BackupRepository {name}: {why}"));
        if described.repository_driver != REPOSITORY_DRIVER {
            return Err(invalid(format!("its driver is `{}`, not `{REPOSITORY_DRIVER}`", described.repository_driver)));
        }
        let written = &described.repository_parameters;
        let parameters = RepositoryParameters::from_map(written);
        let parameters = parameters.map_err(|e| invalid(lifecycle::parameters::unusable(&e, written)))?;
        let endpoint = parameters.s3_url.as_deref().map(S3Options::parse_endpoint).transpose();
        // a user or password in it is refused, and not repeated: it would be shown wherever the repository is named
        let endpoint = endpoint.map_err(|e| invalid(format!("parameter `s3Url`: {e}")))?;
        // a Secret may be mended while we back off
        let (trust, again) = match (&parameters.ca_cert, &parameters.ca_cert_secret) {
            (_, None) => ("parameter `caCert`", Again::Never),
            (None, Some(_)) => ("parameter `caCertSecret`", Again::Later),
            (Some(_), Some(_)) => ("parameters `caCert` and `caCertSecret`", Again::Later),
        };
        let options = S3Options {
            region: parameters.region.clone(),
            path_style: parameters.s3_force_path_style,
            ca_pem: parameters.ca_cert.clone(),
            skip_tls_verify: parameters.insecure_skip_tls_verify,
            tagging: parameters.tagging.clone(),
            checksum: location::checksum(&parameters),
            ..S3Options::new(endpoint, &parameters.bucket, "")
        };
        Ok(Self { parameters, options, client: StoreClient { repository: name, trust, again } })
    }
}

impl StoreClient {
    /// Makes the client. It asks nothing of the store, so whatever fails is in the description.
    pub(crate) async fn open(&self, options: S3Options) -> Result<S3Store, Problem> {
        S3Store::new(options).await.map_err(|error| Problem {
            reason: Reason::RepositoryInvalid,
            cause: format!("use BackupRepository {}: {}: {}", self.repository, self.trust, Problem::chain(&error)),
            fix: None,
            again: self.again,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn described(parameters: &[(&str, &str)]) -> BackupRepository {
        let mut described = BackupRepository::new("br-1");
        let usual = [("region", ""), ("bucket", "b"), ("s3Url", "https://store:9000")];
        for (key, value) in usual.iter().chain(parameters) {
            described.repository_parameters.insert((*key).to_owned(), (*value).to_owned());
        }
        described
    }

    #[tokio::test]
    async fn a_repository_that_can_never_be_used_says_which_field_is_wrong() {
        assert_eq!(check(&described(&[])).await, Ok(()));
        let without = |key: &str| {
            let mut described = described(&[]);
            described.repository_parameters.remove(key);
            described
        };
        let with = |mut described: BackupRepository, key: &str| {
            described.repository_parameters.insert(key.to_owned(), "b".to_owned());
            described
        };
        let other = BackupRepository { repository_driver: "nfs.example.com".to_owned(), ..described(&[]) };
        let garbage = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        let cases = [
            (without("bucket"), "`bucket` is missing"),
            (without("region"), "`region` is missing"),
            (with(without("bucket"), "Bucket"), "`bucket` is missing; `Bucket` is there, and names mind case"),
            (described(&[("bucket", "")]), "`bucket` is empty"),
            (described(&[("bucket", "my bucket")]), "`bucket` is `my bucket`"),
            (described(&[("s3Url", "ftp://store")]), "parameter `s3Url`"),
            (described(&[("s3Url", "https://me:hunter2@store")]), "parameter `s3Url`"),
            (described(&[("caCert", "not pem at all")]), "parameter `caCert`"),
            (described(&[("caCert", garbage)]), "parameter `caCert`"),
            (other, "`nfs.example.com`"),
        ];
        for (described, why) in cases {
            let problem = check(&described).await.unwrap_err();
            assert_eq!((problem.reason, problem.again), (Reason::RepositoryInvalid, Again::Never), "{why}");
            assert!(problem.cause.contains(why), "{}", problem.cause);
            assert!(!problem.message().contains("hunter2"), "{}", problem.message());
        }
    }
}
