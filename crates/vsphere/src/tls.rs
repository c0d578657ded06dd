//! Which certificates are accepted. Every check that is made here is made before a password is sent.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{Thumbprint, Trust};

/// Decides on certificates, and remembers the last one it refused so that the message can show its thumbprint.
pub(crate) struct Judge {
    rule: Rule,
    provider: Arc<CryptoProvider>,
    refused: Mutex<Option<Thumbprint>>,
}

enum Rule {
    /// Signed by a root, for this name, now.
    Chain(Arc<WebPkiServerVerifier>),
    /// One of these very certificates (a server's own, self-signed), for this name; else as above.
    ChainOrOneOf(Arc<WebPkiServerVerifier>, Vec<CertificateDer<'static>>),
    /// This certificate.
    Pinned(Thumbprint),
    /// Any.
    Anything,
}

/// Why trust cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error("the CA file holds no certificate in PEM form")]
    NoCertificate,
    #[error("the CA file is damaged: {0}")]
    DamagedPem(rustls::pki_types::pem::Error),
    #[error("the CA file holds a certificate that cannot be used: {0}")]
    UnusableCertificate(rustls::Error),
    #[error("the system has no root certificates: set `ca-file` or `thumbprint`")]
    NoSystemRoots,
    #[error("the roots cannot be used: {0}")]
    Verifier(rustls::client::VerifierBuilderError),
}

impl Judge {
    pub(crate) fn new(trust: &Trust) -> Result<Arc<Self>, TrustError> {
        let provider = Arc::new(ring::default_provider());
        let rule = match trust {
            Trust::SystemRoots => Rule::Chain(chain(system_roots()?, &provider)?),
            Trust::CaFile(pem) => {
                let bundle = certificates(pem)?;
                let mut roots = RootCertStore::empty();
                for certificate in &bundle {
                    roots.add(certificate.clone()).map_err(TrustError::UnusableCertificate)?;
                }
                Rule::ChainOrOneOf(chain(roots, &provider)?, bundle)
            }
            Trust::Thumbprint(thumbprint) => Rule::Pinned(*thumbprint),
            Trust::Insecure => Rule::Anything,
        };
        Ok(Arc::new(Self { rule, provider, refused: Mutex::default() }))
    }

    /// A TLS client that asks this judge.
    pub(crate) fn client(self: &Arc<Self>) -> ClientConfig {
        let mut client = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring offers the default protocol versions")
            .dangerous()
            .with_custom_certificate_verifier(self.clone())
            .with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        client
    }

    /// The certificate that was refused last, once.
    pub(crate) fn take_refused(&self) -> Option<Thumbprint> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether only the certificate with a thumbprint that was set is accepted.
    pub(crate) fn is_pinned(&self) -> bool {
        matches!(self.rule, Rule::Pinned(_))
    }

    fn decide(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.rule {
            Rule::Chain(chain) => chain.verify_server_cert(leaf, between, name, ocsp, now),
            Rule::ChainOrOneOf(chain, bundle) => {
                let judged = chain.verify_server_cert(leaf, between, name, ocsp, now);
                // A self-signed server certificate in the bundle is not a CA, so the chain check says no to it.
                if judged.is_err() && bundle.iter().any(|certificate| certificate.as_ref() == leaf.as_ref()) {
                    verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
                    return Ok(ServerCertVerified::assertion());
                }
                judged
            }
            Rule::Pinned(thumbprint) if thumbprint.is_of(leaf) => Ok(ServerCertVerified::assertion()),
            Rule::Pinned(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Rule::Anything => Ok(ServerCertVerified::assertion()),
        }
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = match self.rule {
            Rule::Chain(_) => "system roots",
            Rule::ChainOrOneOf(..) => "CA file",
            Rule::Pinned(_) => "thumbprint",
            Rule::Anything => "anything",
        };
        f.debug_struct("Judge").field("accepts", &rule).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = self.decide(leaf, between, name, ocsp, now);
        if judged.is_err() {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Thumbprint::sha1_of(leaf));
        }
        judged
    }

    // Whatever makes a certificate acceptable, the server must prove that it holds the key: else a pinned certificate,
    // which anybody can copy, would prove nothing.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn chain(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().map_err(TrustError::Verifier)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(TrustError::DamagedPem)?;
    if found.is_empty() { Err(TrustError::NoCertificate) } else { Ok(found) }
}

fn system_roots() -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    // What some other program put into the system's store and cannot be read must not stop us.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TrustError::NoSystemRoots) } else { Ok(roots) }
}
