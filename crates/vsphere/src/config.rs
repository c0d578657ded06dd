//! Which vCenter, as whom, and what is trusted. Holds values only; reads no file.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

/// Everything needed to reach one vCenter.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name or address; an IPv6 literal with or without brackets.
    pub host: String,
    /// TCP port, usually 443.
    pub port: u16,
    /// Account, as `name@domain`.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// What makes the server's certificate acceptable.
    pub trust: Trust,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// The cluster's id in CNS, which owns the volumes that are made; `None` where nobody has set it.
    pub cluster_id: Option<String>,
}

impl Config {
    /// A configuration with the usual port, the system's roots and the usual deadlines.
    pub fn new(host: impl Into<String>, user: impl Into<String>, password: impl Into<SecretString>) -> Self {
        Self {
            host: host.into(),
            port: 443,
            user: user.into(),
            password: password.into(),
            trust: Trust::SystemRoots,
            deadlines: Deadlines::default(),
            cluster_id: None,
        }
    }

    /// The host as it stands in a URL: an IPv6 literal in brackets, a name as it is.
    pub fn url_host(&self) -> String {
        let bare = self.bare_host();
        if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() }
    }

    /// The host without brackets, as a resolver or VDDK wants it.
    pub fn bare_host(&self) -> &str {
        let host = self.host.trim();
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    /// `host:port`, as it stands in messages.
    pub fn server(&self) -> String {
        format!("{}:{}", self.url_host(), self.port)
    }
}

/// What makes the server's certificate acceptable. In every case but [`Trust::Insecure`] a wrong certificate ends the
/// connection before a password is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Signed by a root of the operating system (or of `SSL_CERT_FILE`).
    #[default]
    SystemRoots,
    /// Signed by one of these certificates: the text of a PEM bundle.
    CaFile(String),
    /// Exactly the certificate with this thumbprint, whoever signed it and whatever name it carries.
    Thumbprint(Thumbprint),
    /// Any certificate. Only when the user asked for it: whoever sits between learns the password.
    Insecure,
}

/// Hash of a DER certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thumbprint {
    /// SHA-1, 20 bytes: what vSphere's tools print.
    Sha1([u8; 20]),
    /// SHA-256, 32 bytes.
    Sha256([u8; 32]),
}

/// The text is not the SHA-1 or SHA-256 thumbprint of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a thumbprint: expected 20 (SHA-1) or 32 (SHA-256) bytes in hex, as `AA:BB:…`")]
pub struct ParseThumbprintError(String);

impl Thumbprint {
    /// SHA-1 of a DER certificate.
    pub fn sha1_of(certificate: &[u8]) -> Self {
        use sha1::Digest as _;
        Self::Sha1(sha1::Sha1::digest(certificate).into())
    }

    /// SHA-256 of a DER certificate.
    pub fn sha256_of(certificate: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        Self::Sha256(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Whether this is the thumbprint of a DER certificate.
    pub fn is_of(&self, certificate: &[u8]) -> bool {
        match self {
            Self::Sha1(_) => *self == Self::sha1_of(certificate),
            Self::Sha256(_) => *self == Self::sha256_of(certificate),
        }
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        };
        for (i, byte) in bytes.iter().enumerate() {
            write!(f, "{}{byte:02X}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Thumbprint {
    type Err = ParseThumbprintError;

    fn from_str(text: &str) -> Result<Self, ParseThumbprintError> {
        let refused = || ParseThumbprintError(text.to_owned());
        let digits: Vec<char> = text.trim().chars().filter(|c| !matches!(c, ':' | ' ' | '-')).collect();
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some((high.to_digit(16)? * 16 + low.to_digit(16)?).to_le_bytes()[0]),
                _ => None,
            })
            .collect::<Option<_>>()
            .ok_or_else(refused)?;
        match bytes.len() {
            20 => Ok(Self::Sha1(bytes.try_into().expect("20 bytes"))),
            32 => Ok(Self::Sha256(bytes.try_into().expect("32 bytes"))),
            _ => Err(refused()),
        }
    }
}

/// How long things may take before they count as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// To open a connection, TLS included.
    pub connect: Duration,
    /// For one call and its reply, a new login included.
    pub call: Duration,
    /// Pause after the first refused login; doubles with each refusal. vCenter locks an account after five refusals in
    /// three minutes, and every node of a cluster may try: so it is long.
    pub login_pause: Duration,
    /// First pause between two looks at a task; doubles up to 5 s.
    pub task_poll: Duration,
    /// First pause before an operation is tried again; doubles up to 30 s.
    pub retry_pause: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            call: Duration::from_secs(120),
            login_pause: Duration::from_secs(200),
            task_poll: Duration::from_millis(100),
            retry_pause: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn thumbprints_are_taken_in_the_ways_people_paste_them() {
        let colons = "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD";
        let want: Thumbprint = colons.parse().unwrap();
        assert_eq!(want.to_string(), colons);
        assert_eq!(colons.to_lowercase().replace(':', "").parse::<Thumbprint>().unwrap(), want);
        assert_eq!(format!(" {} ", colons.replace(':', " ")).parse::<Thumbprint>().unwrap(), want);
        for bad in ["", "AA", "AA:B", &colons[3..], &colons.replace('A', "G"), &colons.replace(':', "é")] {
            assert!(bad.parse::<Thumbprint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ipv6_literal_is_bracketed_in_urls_and_only_there() {
        for host in ["fd00::10", "[fd00::10]"] {
            let config = Config::new(host, "u", "p".to_owned());
            assert_eq!((config.url_host().as_str(), config.bare_host()), ("[fd00::10]", "fd00::10"));
            assert_eq!(config.server(), "[fd00::10]:443");
        }
        assert_eq!(Config::new("vc.lab", "u", "p".to_owned()).server(), "vc.lab:443");
    }

    #[test]
    fn a_printed_configuration_does_not_show_the_password() {
        let shown = format!("{:?}", Config::new("vc", "u", "hunter2".to_owned()));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
