//! NBD URIs: where a server listens and which export is meant.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::Error;

/// The port of NBD when a URI names none.
pub const DEFAULT_PORT: u16 = 10809;

/// Where an NBD server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// Name or address, an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One export of one server: `nbd://host[:port]/export` or `nbd+unix:///export?socket=PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Uri {
    /// Where the server listens.
    pub address: Address,
    /// The export's name; empty is the server's default export.
    pub export: String,
}

impl Uri {
    /// An export behind a Unix socket.
    pub fn unix(socket: impl AsRef<Path>, export: impl Into<String>) -> Self {
        Self { address: Address::Unix(socket.as_ref().to_owned()), export: export.into() }
    }

    /// An export behind a TCP port.
    pub fn tcp(host: impl Into<String>, port: u16, export: impl Into<String>) -> Self {
        Self { address: Address::Tcp { host: host.into(), port }, export: export.into() }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let export = escape(&self.export, b"/:@");
        match &self.address {
            Address::Tcp { host, port } => {
                let host = if host.contains(':') { format!("[{}]", escape(host, b":")) } else { escape(host, b"") };
                write!(f, "nbd://{host}:{port}/{export}")
            }
            Address::Unix(path) => {
                write!(f, "nbd+unix:///{export}?socket={}", escape(&path.to_string_lossy(), b"/:@"))
            }
        }
    }
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|problem| Error::Uri { text: text.to_owned(), problem })
    }
}

fn parse(text: &str) -> Result<Uri, String> {
    let (scheme, rest) = text.split_once("://").ok_or("it has no `://`")?;
    if rest.contains('#') {
        return Err("a fragment (`#`) has no meaning in it".into());
    }
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
    let export = unescape(export)?;
    match scheme {
        "nbd" => parse_tcp(authority, query).map(|address| Uri { address, export }),
        "nbd+unix" => parse_unix(authority, query).map(|address| Uri { address, export }),
        "nbds" | "nbds+unix" => Err("TLS (`nbds`) is not supported".into()),
        other => Err(format!("the scheme is `{other}`, not `nbd` or `nbd+unix`")),
    }
}

fn parse_tcp(authority: &str, query: Option<&str>) -> Result<Address, String> {
    if let Some(key) = query.and_then(|query| keys(query).next()) {
        return Err(format!("`{key}` is not supported with `nbd://`"));
    }
    if authority.contains('@') {
        return Err("a user name is not supported".into());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("`[` is never closed")?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some("")).ok_or("`]` is not followed by `:port`")?)
        }
        None => authority.rsplit_once(':').unwrap_or((authority, "")),
    };
    let host = if host.is_empty() { "localhost".to_owned() } else { unescape(host)? };
    let port = match port {
        "" => DEFAULT_PORT,
        digits => digits.parse().map_err(|_| format!("`{digits}` is not a port"))?,
    };
    Ok(Address::Tcp { host, port })
}

fn parse_unix(authority: &str, query: Option<&str>) -> Result<Address, String> {
    if !authority.is_empty() {
        return Err("`nbd+unix` takes no host: write `nbd+unix:///export?socket=PATH`".into());
    }
    let query = query.unwrap_or_default();
    if let Some(key) = keys(query).find(|key| *key != "socket") {
        return Err(format!("`{key}` is not supported"));
    }
    let socket = query.split('&').find_map(|pair| pair.strip_prefix("socket=")).unwrap_or_default();
    if socket.is_empty() {
        return Err("`?socket=PATH` is missing".into());
    }
    Ok(Address::Unix(unescape(socket)?.into()))
}

fn keys(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').map_or(pair, |(key, _)| key))
}

/// `+` stays `+`: this is a URI, not a web form, and socket paths hold pluses.
fn unescape(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.ok_or("`%` is not followed by two hexadecimal digits")?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".into())
}

fn escape(text: &str, also_plain: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also_plain.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops at the first surprise

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uris_as_users_write_them() {
        let cases = [
            ("nbd://example.com", Uri::tcp("example.com", 10809, "")),
            ("nbd://example.com/", Uri::tcp("example.com", 10809, "")),
            ("nbd://example.com:1234/disk", Uri::tcp("example.com", 1234, "disk")),
            ("nbd://[::1]:10810/a/b", Uri::tcp("::1", 10810, "a/b")),
            ("nbd://[fe80::1%25eth0]/", Uri::tcp("fe80::1%eth0", 10809, "")),
            ("nbd:///x", Uri::tcp("localhost", 10809, "x")),
            ("nbd+unix:///?socket=/run/a+b.sock", Uri::unix("/run/a+b.sock", "")),
            ("nbd+unix:///my%20disk?socket=/run/a%20b", Uri::unix("/run/a b", "my disk")),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<Uri>().unwrap(), want, "{text}");
        }
    }

    #[test]
    fn a_uri_that_means_something_else_is_refused_with_the_reason() {
        let cases = [
            ("/a/file", "no `://`"),
            ("http://host/", "scheme is `http`"),
            ("nbds://host/", "TLS"),
            ("nbd://host:port/", "not a port"),
            ("nbd://user@host/", "user name"),
            ("nbd://host/?socket=/x", "not supported"),
            ("nbd+unix:///", "socket=PATH"),
            ("nbd+unix:///?socket=", "socket=PATH"),
            ("nbd+unix://host/?socket=/x", "no host"),
            ("nbd+unix:///?socket=/x&tls-certificates=/y", "tls-certificates"),
            ("nbd://host/%zz", "hexadecimal"),
            ("nbd://[::1/x", "never closed"),
        ];
        for (text, reason) in cases {
            let error = text.parse::<Uri>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_uri_reads_back_as_written(export in any::<String>(), path in "/[ -~é]{1,40}", port: u16, unix: bool) {
            let uri = if unix { Uri::unix(path, export) } else { Uri::tcp("host-1.example", port, export) };
            prop_assert_eq!(uri.to_string().parse::<Uri>().unwrap(), uri);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = text.parse::<Uri>();
            let _ = format!("nbd+unix://{text}").parse::<Uri>();
        }
    }
}
