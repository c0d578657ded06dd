//! Checksums that objects carry beside the hash in each signature. Buckets with Object Lock take no object without one, and
//! some stores none with one.

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::ChecksumAlgorithm;

/// How the checksum of an object is computed, which the store checks and keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// CRC-32 as in gzip; the least work.
    Crc32,
    /// CRC-32 with Castagnoli's polynomial.
    Crc32c,
    /// CRC-64 as in NVMe.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256; a second time, since each signature has one already.
    Sha256,
}

/// The put with the header for it; needs a client that computes checksums.
pub(super) fn with_checksum(request: PutObjectFluentBuilder, checksum: Option<Checksum>) -> PutObjectFluentBuilder {
    let algorithm = checksum.map(|checksum| match checksum {
        Checksum::Crc32 => ChecksumAlgorithm::Crc32,
        Checksum::Crc32c => ChecksumAlgorithm::Crc32C,
        Checksum::Crc64Nvme => ChecksumAlgorithm::Crc64Nvme,
        Checksum::Sha1 => ChecksumAlgorithm::Sha1,
        Checksum::Sha256 => ChecksumAlgorithm::Sha256,
    });
    request.set_checksum_algorithm(algorithm)
}
