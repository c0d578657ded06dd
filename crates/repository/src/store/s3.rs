//! A bucket of S3 or of a store that speaks it.
//!
//! One client, one layer of retries: the SDK repeats what it may repeat, and this module repeats only a download whose
//! body broke off, which the SDK leaves to its caller; [`super::retry`] counts both. Every operation ends within its timeout.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::{self, TimeoutConfig};
use aws_sdk_s3::config::{
    BehaviorVersion, ConfigBag, Intercept, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    RuntimeComponents, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls;
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;

use super::checksum::with_checksum;
use super::encryption::Encrypted as _;
use super::no_key::NoKey;
use super::retry::{self, Tries};
use super::unverified;
use super::{Body, Checksum, Error, ErrorKind, Object, PutNew, Store, StoreEncryption};
use crate::hash::hex;
use crate::location::{Credentials, S3Options};

/// Five packs of 16 MiB and the one being filled stay below 100 MiB.
const PUTS_IN_FLIGHT: usize = 5;

/// An answer to a put comes after its body went through a line of at least 0.5 Mbit/s.
const PUT_TIMEOUT: Duration = Duration::from_secs(300);

/// A bucket, or what lies under a prefix of it.
#[derive(Clone)]
pub struct S3Store {
    pub(super) client: Client,
    pub(super) bucket: String,
    /// Empty, or ends in `/`.
    pub(super) prefix: String,
    pub(super) place: String,
    timeout: Duration,
    pub(super) put_timeout: TimeoutConfig,
    retries: RetryConfig,
    pub(super) encryption: StoreEncryption,
    pub(super) tagging: Option<String>,
    checksum: Option<Checksum>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store({})", self.place)
    }
}

impl S3Store {
    /// Puts a client together; nothing is asked of the server yet.
    pub async fn new(options: S3Options) -> Result<Self, Error> {
        let http = client_for(&options);
        let http = http.map_err(|cause| Error::new(ErrorKind::Failed, "use", "", place(&options), cause))?;
        Ok(Self::over(options, http).await)
    }

    /// Through this client of HTTP.
    pub(crate) async fn over(options: S3Options, http: SharedHttpClient) -> Self {
        let prefix = options.prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let place = place(&options);
        let timeouts = timeouts(&options);
        let put_timeout = timeouts.clone().read_timeout(PUT_TIMEOUT.max(options.read_timeout)).build();
        let region = if options.region.is_empty() { "us-east-1" } else { &options.region };
        let stalled = StalledStreamProtectionConfig::enabled();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http.clone())
            .region(Region::new(region.to_owned()))
            .force_path_style(options.path_style)
            // never unasked: restic's own hashes and MACs check more, and not every store takes the header
            .request_checksum_calculation(match options.checksum {
                None => RequestChecksumCalculation::WhenRequired,
                Some(_) => RequestChecksumCalculation::WhenSupported,
            })
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(retry::config(&options))
            .retry_partition(retry::of_its_own(&place))
            .stalled_stream_protection(stalled.grace_period(options.stall_timeout).build())
            .timeout_config(timeouts.build());
        config = match &options.credentials {
            Credentials::Environment => {
                let loader = aws_config::defaults(BehaviorVersion::latest())
                    .http_client(http)
                    .region(Region::new(region.to_owned()));
                match loader.load().await.credentials_provider() {
                    Some(chain) => config.credentials_provider(chain),
                    None => config,
                }
            }
            Credentials::Given { id, secret, token } => {
                let token = token.as_ref().map(|token| token.expose_secret().to_owned());
                let key = aws_credential_types::Credentials::new(id, secret.expose_secret(), token, None, "given");
                config.credentials_provider(key)
            }
        };
        if let Some(endpoint) = &options.endpoint {
            config = config.endpoint_url(endpoint.as_str());
        }
        let client = Client::from_conf(config.build());
        Self {
            client,
            retries: retry::config(&options),
            bucket: options.bucket,
            prefix,
            place,
            timeout: options.operation_timeout,
            put_timeout,
            encryption: options.encryption,
            tagging: options.tagging,
            checksum: options.checksum,
        }
    }

    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn failed<E, R>(&self, operation: &'static str, key: &str, cause: SdkError<E, R>) -> Error
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
        R: fmt::Debug + Send + Sync + 'static,
        SdkError<E, R>: HttpStatus,
    {
        if let Some(no_key) = no_key(&cause) {
            let kind = if no_key.is_silent { ErrorKind::Unreachable } else { ErrorKind::AccessDenied };
            return Error::new(kind, operation, key, self.place.clone(), no_key);
        }
        let kind = kind_of(&cause);
        Error::new(kind, operation, key, self.place.clone(), Box::new(Told::of(cause)) as BoxError)
    }

    /// Downloads; begins again when the body breaks off.
    async fn download(&self, key: &str, request: GetObjectFluentBuilder) -> Result<Bytes, Error> {
        let all = async {
            let tries = Tries::new(&self.retries);
            loop {
                let overrides = aws_sdk_s3::Config::builder().retry_config(tries.config());
                let request = request.clone().customize().interceptor(tries.counted()).config_override(overrides);
                let answer = request.send().await.map_err(|cause| self.failed("get", key, cause))?;
                let broken = match answer.body.collect().await {
                    Ok(body) => return Ok(body.into_bytes()),
                    Err(cause) => Told { message: BROKE_OFF.to_owned(), source: Some(cause.into()) },
                };
                if !tries.another().await {
                    return Err(Error::new(ErrorKind::Unreachable, "get", key, self.place.clone(), Box::new(broken)));
                }
            }
        };
        let late = |_| Error::new(ErrorKind::Unreachable, "get", key, self.place.clone(), "it took too long");
        tokio::time::timeout(self.timeout, all).await.map_err(late)?
    }

    /// Length of an object as a listing has it.
    async fn listed_size(&self, key: &str) -> Result<Option<u64>, Error> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(self.name(key)).max_keys(1);
        let page = request.send().await.map_err(|cause| self.failed("look at", key, cause))?;
        let object = page.contents().iter().find(|object| object.key() == Some(self.name(key).as_str()));
        Ok(object.and_then(|object| object.size()).and_then(|size| u64::try_from(size).ok()))
    }

    /// The folders right below the store's root, by name, however many objects lie in each.
    ///
    /// # Errors
    /// As the store says.
    pub async fn folders(&self) -> Result<Vec<String>, Error> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(&self.prefix).delimiter("/");
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|cause| self.failed("list folders below", "", cause))?;
            let below = page.common_prefixes().iter().filter_map(|folder| folder.prefix()?.strip_prefix(&self.prefix));
            found.extend(below.filter_map(|folder| folder.strip_suffix('/')).map(str::to_owned));
        }
        found.retain(|folder| !folder.is_empty());
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Creates or replaces an object that says of what type it is, such as `application/json`.
    ///
    /// # Errors
    /// As the store says.
    pub async fn put_as(&self, key: &str, content_type: &str, bytes: Bytes) -> Result<(), Error> {
        let request = self.client.put_object().bucket(&self.bucket).key(self.name(key)).content_type(content_type);
        self.upload(request, bytes.into()).await.map_err(|cause| self.failed("put", key, cause))
    }

    pub(super) async fn upload(&self, request: PutObjectFluentBuilder, body: Body) -> Result<(), PutError> {
        let request = request.encrypted(&self.encryption).set_tagging(self.tagging.clone());
        // a body in memory has its checksum in a header; as a trailer few stores would understand it
        let request = with_checksum(request, self.checksum).body(ByteStream::from(body.bytes));
        let overrides = aws_sdk_s3::Config::builder().timeout_config(self.put_timeout.clone());
        let mut request = request.customize().config_override(overrides);
        if let Some(sha256) = body.sha256 {
            request = request.interceptor(KnownHash(hex(&sha256)));
        }
        request.send().await.map(|_| ())
    }
}

/// Names the place for messages.
pub(super) fn place(options: &S3Options) -> String {
    let server = options.endpoint.as_ref().map_or("AWS", |url| url.as_str().trim_end_matches('/'));
    let prefix = options.prefix.trim_matches('/');
    let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}/") };
    format!("bucket {} at {server}{prefix}", options.bucket)
}

pub(super) fn timeouts(options: &S3Options) -> timeout::TimeoutConfigBuilder {
    TimeoutConfig::builder()
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.read_timeout)
        .operation_timeout(options.operation_timeout)
}

pub(super) fn client_for(options: &S3Options) -> Result<SharedHttpClient, BoxError> {
    match options.skip_tls_verify {
        true => unverified::http_client(options.connect_timeout),
        false => http_client(options.ca_pem.as_deref()),
    }
}

pub(super) type PutError = SdkError<aws_sdk_s3::operation::put_object::PutObjectError>;

/// The client that trusts the system's certificates and these. As in Velero: a location whose bundle holds the authority of
/// a proxy goes on to work where there is none.
fn http_client(ca_pem: Option<&str>) -> Result<SharedHttpClient, BoxError> {
    let mut trust = tls::TrustStore::default();
    if let Some(pem) = ca_pem {
        expect_certificates(pem)?;
        trust = trust.with_pem_certificate(pem);
    }
    let context = tls::TlsContext::builder().with_trust_store(trust).build()?;
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    Ok(aws_smithy_http_client::Builder::new().tls_provider(provider).tls_context(context).build_https())
}

/// The SDK would panic on a bundle that cannot be read, and say nothing of an empty one.
fn expect_certificates(pem: &str) -> Result<(), BoxError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|cause| format!("read the CA certificates: {cause}"))?;
        roots.add(certificate).map_err(|cause| format!("read the CA certificates: {cause}"))?;
    }
    if roots.is_empty() { Err("the CA certificates hold no certificate in PEM".into()) } else { Ok(()) }
}

/// Signs with a hash we have already: nobody reads 16 MiB again for a signature, and the store checks what arrives.
#[derive(Debug)]
struct KnownHash(String);

impl Intercept for KnownHash {
    fn name(&self) -> &'static str {
        "KnownHash"
    }

    fn read_before_signing(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(PayloadSigningOverride::Precomputed(self.0.clone()));
        Ok(())
    }
}

/// The number of an answer, where there was one.
pub(super) trait HttpStatus {
    fn status(&self) -> Option<u16>;
}

impl<E> HttpStatus for SdkError<E> {
    fn status(&self) -> Option<u16> {
        self.raw_response().map(|response| response.status().as_u16())
    }
}

fn kind_of<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> ErrorKind
where
    SdkError<E, R>: HttpStatus,
{
    let code = match error {
        SdkError::ServiceError(answer) => answer.err().code(),
        SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) | SdkError::ResponseError(_) => {
            return ErrorKind::Unreachable;
        }
        _ => return ErrorKind::Failed,
    };
    match (code, error.status()) {
        (Some("NoSuchBucket"), _) => ErrorKind::BucketMissing,
        // the last is versitygw's word for an unknown key id, with status 404
        (Some("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AccessDenied" | "XAdminUserNotFound"), _) => {
            ErrorKind::AccessDenied
        }
        (Some("NoSuchKey"), _) | (_, Some(404)) => ErrorKind::NotFound,
        (Some("ExpiredToken" | "InvalidToken"), _) | (_, Some(401 | 403)) => ErrorKind::AccessDenied,
        (Some("SlowDown" | "RequestTimeout"), _) | (_, Some(502..=504)) => ErrorKind::Unreachable,
        _ => ErrorKind::Failed,
    }
}

/// Why there was no key to sign a request with, where that is why it was not sent.
fn no_key<E, R>(error: &SdkError<E, R>) -> Option<NoKey> {
    let SdkError::DispatchFailure(failure) = error else { return None };
    NoKey::of(failure.as_connector_error())
}

/// What is said of an answer of which only the beginning came.
const BROKE_OFF: &str = "the store's answer broke off";

/// What the server or the line said, without the SDK's word *service error* before it.
#[derive(Debug)]
struct Told {
    message: String,
    source: Option<BoxError>,
}

impl Told {
    fn of<E, R>(error: SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
        R: fmt::Debug + Send + Sync + 'static,
        SdkError<E, R>: HttpStatus,
    {
        let status = error.status();
        if let SdkError::ServiceError(answer) = &error {
            let meta = answer.err().meta();
            let code = meta.code().unwrap_or("no code");
            let status = status.map_or(String::new(), |status| format!(" (status {status})"));
            let message = meta.message().map_or(String::new(), |message| format!(": {message}"));
            return Self { message: format!("the store answers {code}{status}{message}"), source: None };
        }
        let message = match &error {
            SdkError::TimeoutError(_) => "the store did not answer in time",
            SdkError::DispatchFailure(_) => "the request could not be sent",
            SdkError::ConstructionFailure(_) => "the request could not be made",
            SdkError::ResponseError(_) => BROKE_OFF,
            _ => "the store's answer cannot be understood",
        };
        Self { message: message.to_owned(), source: error.into_source().ok() }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Told {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[async_trait]
impl Store for S3Store {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn puts_in_flight(&self) -> usize {
        PUTS_IN_FLIGHT
    }

    async fn get(&self, key: &str) -> Result<Bytes, Error> {
        let request = self.client.get_object().bucket(&self.bucket).key(self.name(key));
        self.download(key, request.encrypted(&self.encryption)).await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes, Error> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let range = format!("bytes={offset}-{}", offset + length - 1);
        let request = self.client.get_object().bucket(&self.bucket).key(self.name(key)).range(range);
        let bytes = self.download(key, request.encrypted(&self.encryption)).await?;
        if bytes.len() as u64 != length {
            let cause = format!("{} bytes came instead of {length}", bytes.len());
            return Err(Error::new(ErrorKind::Failed, "get", key, self.place.clone(), cause));
        }
        Ok(bytes)
    }

    async fn put(&self, key: &str, body: Body) -> Result<(), Error> {
        let request = self.client.put_object().bucket(&self.bucket).key(self.name(key));
        self.upload(request, body).await.map_err(|cause| self.failed("put", key, cause))
    }

    async fn put_new(&self, key: &str, body: Body) -> Result<PutNew, Error> {
        let request = self.client.put_object().bucket(&self.bucket).key(self.name(key)).if_none_match("*");
        match self.upload(request, body.clone()).await {
            Ok(()) => Ok(PutNew::Created),
            Err(cause) if matches!(cause.status(), Some(409 | 412)) => Ok(PutNew::Exists),
            Err(cause) if cause.status() == Some(501) => {
                // a store without this condition: look before, which leaves a gap that the caller's read-back narrows
                if self.size(key).await?.is_some() {
                    return Ok(PutNew::Exists);
                }
                self.put(key, body).await.map(|()| PutNew::Created)
            }
            Err(cause) => Err(self.failed("put", key, cause)),
        }
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, Error> {
        let request = self.client.head_object().bucket(&self.bucket).key(self.name(key));
        match request.encrypted(&self.encryption).send().await {
            Ok(head) => Ok(head.content_length().and_then(|length| u64::try_from(length).ok())),
            Err(cause) => match self.failed("look at", key, cause) {
                // an answer to HEAD has no words: it may be the bucket or the key to it that is unknown, so ask in another way
                gone if gone.kind() == ErrorKind::NotFound => self.listed_size(key).await,
                error => Err(error),
            },
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(self.name(prefix));
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|cause| self.failed("list", prefix, cause))?;
            for object in page.contents() {
                let below = object.key().and_then(|key| key.strip_prefix(&self.prefix));
                let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
                // some stores list folders as objects that end in `/`
                if let Some(key) = below.filter(|key| !key.ends_with('/')) {
                    found.push(Object { key: key.to_owned(), size });
                }
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.client.delete_object().bucket(&self.bucket).key(self.name(key)).send().await {
            Ok(_) => Ok(()),
            Err(cause) => match self.failed("delete", key, cause) {
                gone if gone.kind() == ErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }
}
