//! What a bucket is asked to do about encryption at rest, as headers. Everything we store is encrypted before; this is for
//! buckets that refuse objects without them.

use aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::operation::head_object::builders::HeadObjectFluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::operation::upload_part::builders::UploadPartFluentBuilder;
use aws_sdk_s3::types::ServerSideEncryption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use secrecy::{ExposeSecret as _, SecretString};

/// Algorithm of keys that the customer brings; the protocol knows no other.
const CUSTOMERS_ALGORITHM: &str = "AES256";

/// How a store is asked to encrypt at rest.
#[derive(Debug, Clone, Default)]
pub enum StoreEncryption {
    /// As the bucket does by itself.
    #[default]
    AsTheBucketDoes,
    /// With keys of its own, by this algorithm: `AES256`, `aws:kms`.
    Algorithm(String),
    /// `aws:kms` with this key of its key management.
    Kms(String),
    /// With this key, which every request carries and the store forgets.
    CustomerKey(CustomerKey),
}

/// A key of 32 bytes that the customer brings. Its `Debug` does not show it.
#[derive(Debug, Clone)]
pub struct CustomerKey {
    key: SecretString,
    md5: String,
}

impl CustomerKey {
    /// The key; `None` unless it has exactly 32 bytes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let right = bytes.len() == 32;
        // the protocol asks for MD5, against mistakes on the way
        right.then(|| Self { key: STANDARD.encode(bytes).into(), md5: STANDARD.encode(Md5::digest(bytes)) })
    }
}

/// A request that says how its object is encrypted.
pub(super) trait Encrypted {
    /// With the headers for it.
    fn encrypted(self, how: &StoreEncryption) -> Self;
}

macro_rules! with_customer_key {
    ($request:ident, $key:ident) => {
        $request
            .sse_customer_algorithm(CUSTOMERS_ALGORITHM)
            .sse_customer_key($key.key.expose_secret())
            .sse_customer_key_md5(&$key.md5)
    };
}

macro_rules! encrypted_in_every_way {
    ($($request:ty),+) => {$(
        impl Encrypted for $request {
            fn encrypted(self, how: &StoreEncryption) -> Self {
                match how {
                    StoreEncryption::AsTheBucketDoes => self,
                    StoreEncryption::Algorithm(word) => {
                        self.server_side_encryption(ServerSideEncryption::from(word.as_str()))
                    }
                    StoreEncryption::Kms(id) => {
                        self.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id(id)
                    }
                    StoreEncryption::CustomerKey(key) => with_customer_key!(self, key),
                }
            }
        }
    )+};
}

encrypted_in_every_way!(PutObjectFluentBuilder, CreateMultipartUploadFluentBuilder);

macro_rules! encrypted_with_customer_key_only {
    ($($request:ty),+) => {$(
        impl Encrypted for $request {
            fn encrypted(self, how: &StoreEncryption) -> Self {
                match how {
                    StoreEncryption::CustomerKey(key) => with_customer_key!(self, key),
                    StoreEncryption::AsTheBucketDoes | StoreEncryption::Algorithm(_) | StoreEncryption::Kms(_) => self,
                }
            }
        }
    )+};
}

encrypted_with_customer_key_only!(
    GetObjectFluentBuilder,
    HeadObjectFluentBuilder,
    UploadPartFluentBuilder,
    CompleteMultipartUploadFluentBuilder
);
