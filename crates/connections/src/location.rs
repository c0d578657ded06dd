//! What a storage location says about its bucket beyond place and keys: whom to trust, and how to encrypt at rest.

use api::Reason;
use api::parameters::{Checksum as Chosen, RepositoryParameters, StoreEncryption as Asked};
use lifecycle::Problem;
use repository::store::{Checksum, CustomerKey, StoreEncryption};

use crate::known::Known;
use crate::secrets::of_location;

/// The certificate authorities to trust, in PEM: those among the parameters and those in the Secret. `None` are the
/// system's.
pub(crate) async fn trusted(
    known: &Known,
    velero_namespace: &str,
    parameters: &RepositoryParameters,
) -> Result<Option<String>, Problem> {
    let Some(secret) = &parameters.ca_cert_secret else { return Ok(parameters.ca_cert.clone()) };
    let what = "the certificate authorities of the object store";
    let bytes = of_location(known, velero_namespace, &secret.name, &secret.key, what).await?;
    let pem = String::from_utf8(bytes).map_err(|_| {
        let cause = format!("read {what} from Secret {velero_namespace}/{}: `{}` is not text", secret.name, secret.key);
        Problem::passing(Reason::RepositoryInvalid, cause)
    })?;
    Ok(Some(parameters.ca_cert.iter().chain([&pem]).map(|pem| format!("{}\n", pem.trim())).collect()))
}

/// The checksum that every object carries.
pub(crate) fn checksum(parameters: &RepositoryParameters) -> Option<Checksum> {
    match parameters.checksum {
        Chosen::None => None,
        Chosen::Crc32 => Some(Checksum::Crc32),
        Chosen::Crc32c => Some(Checksum::Crc32c),
        Chosen::Crc64Nvme => Some(Checksum::Crc64Nvme),
        Chosen::Sha1 => Some(Checksum::Sha1),
        Chosen::Sha256 => Some(Checksum::Sha256),
    }
}

/// How the store is asked to encrypt at rest.
pub(crate) async fn encryption(
    known: &Known,
    velero_namespace: &str,
    parameters: &RepositoryParameters,
) -> Result<StoreEncryption, Problem> {
    let (bytes, place) = match &parameters.store_encryption {
        None => return Ok(StoreEncryption::AsTheBucketDoes),
        Some(Asked::Algorithm(word)) => return Ok(StoreEncryption::Algorithm(word.clone())),
        Some(Asked::Kms(id)) => return Ok(StoreEncryption::Kms(id.clone())),
        Some(Asked::CustomerKeyFile(file)) => (from_file(file).await?, format!("file {file}")),
        Some(Asked::CustomerKeySecret(secret)) => {
            let what = "the key that the object store is to encrypt with";
            let bytes = of_location(known, velero_namespace, &secret.name, &secret.key, what).await?;
            (bytes, format!("Secret {velero_namespace}/{}, key `{}`", secret.name, secret.key))
        }
    };
    CustomerKey::new(&bytes).map(StoreEncryption::CustomerKey).ok_or_else(|| {
        let cause =
            format!("the key that the object store is to encrypt with has {} bytes, not 32: {place}", bytes.len());
        Problem::passing(Reason::RepositoryInvalid, cause)
    })
}

/// The file is read as Velero's S3 plugin reads it: the first 32 bytes count, so that a line end does no harm.
async fn from_file(file: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = tokio::fs::read(file).await.map_err(|cause| {
        let cause = format!("read the key that the object store is to encrypt with from file {file}: {cause}");
        let fix = "Mount the file into backup-driver and data-manager too, or name a Secret in \
                   customerKeyEncryptionSecret.";
        Problem::passing(Reason::RepositoryInvalid, cause).with_fix(Some(fix.to_owned()))
    })?;
    bytes.truncate(32);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_customer_key_is_read_as_velero_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, format!("{}\n", "k".repeat(32))).unwrap();
        assert!(CustomerKey::new(&from_file(file.to_str().unwrap()).await.unwrap()).is_some());
        std::fs::write(&file, "short").unwrap();
        assert!(CustomerKey::new(&from_file(file.to_str().unwrap()).await.unwrap()).is_none());
        let missing = from_file("/nowhere/key").await.unwrap_err();
        assert!(missing.message().contains("Mount the file"), "{}", missing.message());
    }
}
