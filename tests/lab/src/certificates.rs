//! The lab's certificate authority, the certificates of its servers, and the key that signs account tokens.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use ring::digest::{SHA256, digest};

use crate::facts::write_private;

/// Makes what is missing below `<lab>/certificates`: `ca.pem`, `server.pem`, `server-key.pem`, `accounts-key.pem`, `accounts.pem`,
/// `server.sha256` (the thumbprint of the server's certificate).
pub(crate) fn make(folder: &Path) -> Result<()> {
    if folder.join("server.sha256").is_file() {
        return Ok(()); // written last
    }
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, format!("lab authority {}", uuid::Uuid::new_v4()));
    let authority_certificate = authority.self_signed(&authority_key)?;

    let server_key = KeyPair::generate()?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "localhost");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let server_certificate = server.signed_by(&server_key, &Issuer::from_params(&authority, &authority_key))?;

    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    fs::write(folder.join("ca.pem"), authority_certificate.pem())?;
    fs::write(folder.join("server.pem"), server_certificate.pem())?;
    write_private(&folder.join("server-key.pem"), &server_key.serialize_pem())?;
    let accounts_key = KeyPair::generate()?;
    write_private(&folder.join("accounts-key.pem"), &accounts_key.serialize_pem())?;
    fs::write(folder.join("accounts.pem"), accounts_key.public_key_pem())?;
    fs::write(folder.join("server.sha256"), thumbprint(server_certificate.der()))?;
    Ok(())
}

/// SHA-256 of a certificate as people paste it: `AA:BB:…`.
fn thumbprint(der: &[u8]) -> String {
    let bytes: Vec<_> = digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}
