//! The vCenter Secret: the configuration file of the CSI driver, in its own grammar.
//!
//! Lines end in LF (a CR before it is dropped); `;` and `#` begin a comment outside quotes. A header is `[Name]` or
//! `[Name "sub"]`; a variable is `name = value`, or `name` alone for *true*. Parts of a value may stand in double
//! quotes, where `\\`, `\"`, `\n` and `\t` mean what they look like and any other escape is an error; outside quotes a
//! backslash may only stand before a line's end or a double quote. Unknown sections and variables are passed over,
//! later values win. Values never appear in errors: one of them is a password.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::config::{Config, Thumbprint, Trust};

mod lines;
mod slips;

pub use slips::{Slip, slips};

use lines::{Header, Line, Value};

/// One `[VirtualCenter "…"]` section, with what `[Global]` says for all of them.
#[derive(Debug, Clone)]
pub struct VirtualCenter {
    /// The section's name: host name or address of the vCenter.
    pub host: String,
    /// `port`, 443 when not set.
    pub port: u16,
    /// `user`.
    pub user: String,
    /// `password`.
    pub password: SecretString,
    /// `ca-file`: path of a PEM bundle.
    pub ca_file: Option<PathBuf>,
    /// `thumbprint`.
    pub thumbprint: Option<Thumbprint>,
    /// `insecure-flag`.
    pub insecure: bool,
    /// `cluster-id` of `[Global]`: the cluster's name in CNS.
    pub cluster_id: Option<String>,
    /// `datacenters`, as written.
    pub datacenters: Option<String>,
    /// The line of the section's header, from 1.
    pub line: usize,
    /// The line that sets `ca-file`; 0 where none does.
    pub ca_file_line: usize,
}

/// Why a section cannot be used, though the grammar allows it. It keeps no other section from being used.
#[derive(Debug, thiserror::Error)]
pub enum SectionError {
    /// Its name is no host name or address.
    #[error(transparent)]
    Host(#[from] ParseError),
    /// The CA file that it names cannot be read.
    #[error("line {line}: read the file `{path}` that `ca-file` names for [VirtualCenter \"{host}\"]")]
    CaFile {
        /// The line that names it.
        line: usize,
        /// The section's name.
        host: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl VirtualCenter {
    /// The configuration of a client. `read` returns the text of the CA file, wherever it is kept: on disk, or under
    /// its name in the Secret. Of several ways to trust, the strictest counts: thumbprint, CA file, then
    /// `insecure-flag`, and the system's roots when nothing is set.
    ///
    /// # Errors
    /// The section's name is no host name or address; or the CA file that counts cannot be read.
    pub fn config(&self, read: impl FnOnce(&Path) -> std::io::Result<String>) -> Result<Config, SectionError> {
        self.check_host()?;
        let unread = |path: &Path, source| SectionError::CaFile {
            line: self.ca_file_line,
            host: self.host.clone(),
            path: path.to_path_buf(),
            source,
        };
        let trust = match (&self.thumbprint, &self.ca_file) {
            (Some(thumbprint), _) => Trust::Thumbprint(*thumbprint),
            (None, Some(path)) => Trust::CaFile(read(path).map_err(|source| unread(path, source))?),
            (None, None) if self.insecure => Trust::Insecure,
            (None, None) => Trust::SystemRoots,
        };
        let config = Config::new(self.host.clone(), self.user.clone(), self.password.clone());
        Ok(Config { port: self.port, trust, cluster_id: self.cluster_id.clone(), ..config })
    }

    /// Whether the section's name can be one of a host. What else is wrong with it shows when it is connected to.
    fn check_host(&self) -> Result<(), ParseError> {
        let host = self.host.trim();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_ipv6 = bare.parse::<std::net::Ipv6Addr>().is_ok();
        let expected = if bare.contains('/') {
            "a host name or an address only in the header, as in `[VirtualCenter \"host\"]`: without `https://` and \
             without a path"
        } else if bare.contains(':') && !is_ipv6 {
            "a host name or an address only in the header, as in `[VirtualCenter \"host\"]`: a port is set with `port` \
             in the section"
        } else {
            return Ok(());
        };
        Err(ParseError::new(self.line, expected))
    }
}

/// Why a text is no configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// What would have been right there.
    pub expected: Expected,
}

/// What the parser looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected(pub(crate) String);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ParseError {
    fn new(line: usize, expected: impl Into<String>) -> Self {
        Self { line, expected: Expected(expected.into()) }
    }
}

/// The section of a vCenter.
const CENTER: &str = "VirtualCenter";
/// The variables that [`Settings::set`] reads.
const VARIABLES: [&str; 8] =
    ["port", "user", "password", "ca-file", "thumbprint", "insecure-flag", "cluster-id", "datacenters"];

/// What sections may set; `None` where they do not.
#[derive(Default, Clone)]
struct Settings {
    port: Option<u16>,
    user: Option<String>,
    password: Option<SecretString>,
    ca_file: Option<String>,
    ca_file_line: usize,
    thumbprint: Option<Thumbprint>,
    insecure: Option<bool>,
    cluster_id: Option<String>,
    datacenters: Option<String>,
    /// Names that are a slip away from one that is read: that one, the name as it is written, and its line.
    slips: Vec<(&'static str, String, usize)>,
}

struct Section {
    line: usize,
    host: String,
    own: Settings,
}

#[derive(Clone, Copy)]
enum Within {
    Global,
    Center(usize),
    Unknown,
}

/// Reads the text of the Secret and returns its vCenters in the order in which they first appear. There is at least
/// one, and each has a user and a password.
pub fn parse(text: &str) -> Result<Vec<VirtualCenter>, ParseError> {
    let mut global = Settings::default();
    let mut centers: Vec<Section> = Vec::new();
    let mut within = None;
    let mut misspelt = None;
    let lines = lines::read(text)?;
    for (number, line) in lines {
        match (line, within) {
            (Line::Header(header), _) => {
                if slips::section(&header.name) == Some(CENTER) {
                    misspelt = misspelt.or(Some(number));
                }
                within = Some(enter(header, number, &mut centers)?);
            }
            (Line::Variable { .. }, None) => {
                return Err(ParseError::new(
                    number,
                    "a section such as `[VirtualCenter \"host\"]` before any variable",
                ));
            }
            (Line::Variable { name, value }, Some(Within::Global)) => global.set(&name, value, number)?,
            (Line::Variable { name, value }, Some(Within::Center(at))) => centers[at].own.set(&name, value, number)?,
            (Line::Variable { .. }, Some(Within::Unknown)) => {}
        }
    }
    if centers.is_empty() {
        let expected = "a section `[VirtualCenter \"host\"]`, and there is none";
        return Err(match misspelt {
            Some(line) => ParseError::new(line, format!("{expected}; `{CENTER}` may be meant in this header")),
            None => ParseError::new(text.lines().count().max(1), expected),
        });
    }
    centers.into_iter().map(|center| center.finish(&global)).collect()
}

fn enter(header: Header, line: usize, centers: &mut Vec<Section>) -> Result<Within, ParseError> {
    match (header.name.to_ascii_lowercase().as_str(), header.sub) {
        ("global", _) => Ok(Within::Global),
        ("virtualcenter", None) => {
            Err(ParseError::new(line, "the vCenter's address in the header, as in `[VirtualCenter \"host\"]`"))
        }
        ("virtualcenter", Some(host)) => {
            let known = centers.iter().position(|center| center.host == host);
            Ok(Within::Center(known.unwrap_or_else(|| {
                centers.push(Section { line, host, own: Settings::default() });
                centers.len() - 1
            })))
        }
        _ => Ok(Within::Unknown),
    }
}

impl Settings {
    fn set(&mut self, written: &str, value: Value, line: usize) -> Result<(), ParseError> {
        let name = written.to_ascii_lowercase();
        let set = |value: Value| match value {
            Value::Text(text) => Ok(text),
            Value::Alone => Err(ParseError::new(line, format!("`{name} = …`: this variable needs a value"))),
        };
        match name.as_str() {
            "port" => self.port = port(&set(value)?, line)?,
            "user" => self.user = Some(set(value)?),
            "password" => self.password = Some(set(value)?.into()),
            "ca-file" => {
                self.ca_file = Some(set(value)?);
                self.ca_file_line = line;
            }
            "thumbprint" => self.thumbprint = thumbprint(&set(value)?, line)?,
            "insecure-flag" => self.insecure = Some(boolean(value, line)?),
            "cluster-id" => self.cluster_id = Some(set(value)?),
            "datacenters" => self.datacenters = Some(set(value)?),
            // a word alone may be a value, and none is repeated
            _ if matches!(value, Value::Alone) => {}
            _ => self.slips.extend(slips::variable(written).map(|meant| (meant, written.to_owned(), line))),
        }
        Ok(())
    }

    /// Where the name of a variable is written in another way.
    fn slip_of(&self, name: &str) -> Option<String> {
        let (_, written, line) = self.slips.iter().find(|(meant, ..)| *meant == name)?;
        Some(format!("; `{written}` on line {line} may be meant"))
    }
}

fn port(text: &str, line: usize) -> Result<Option<u16>, ParseError> {
    match text.trim().parse() {
        Ok(0) | Err(_) if !text.trim().is_empty() => Err(ParseError::new(line, "a port from 1 to 65535")),
        parsed => Ok(parsed.ok()),
    }
}

fn thumbprint(text: &str, line: usize) -> Result<Option<Thumbprint>, ParseError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let expected = "a thumbprint: 20 (SHA-1) or 32 (SHA-256) bytes in hex, as `AA:BB:…`";
    text.parse().map(Some).map_err(|_| ParseError::new(line, expected))
}

fn boolean(value: Value, line: usize) -> Result<bool, ParseError> {
    let Value::Text(text) = value else { return Ok(true) };
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(ParseError::new(line, "one of true, yes, on, 1, false, no, off, 0")),
    }
}

impl Section {
    fn finish(self, global: &Settings) -> Result<VirtualCenter, ParseError> {
        let (line, own) = (self.line, self.own);
        let ca_file_line = if own.ca_file.is_some() { own.ca_file_line } else { global.ca_file_line };
        let slip = |name| [&own, global].into_iter().find_map(|settings| settings.slip_of(name)).unwrap_or_default();
        let slips = [slip("user"), slip("password")];
        let missing = |name, slip: &str| {
            ParseError::new(line, format!("`{name}` in this [VirtualCenter] section or in [Global]{slip}"))
        };
        let [no_user, no_password] = &slips;
        let text = |own: Option<String>, global: &Option<String>| {
            own.or_else(|| global.clone()).filter(|text| !text.is_empty())
        };
        Ok(VirtualCenter {
            port: own.port.or(global.port).unwrap_or(443),
            user: text(own.user, &global.user).ok_or_else(|| missing("user", no_user))?,
            password: own
                .password
                .or_else(|| global.password.clone())
                .ok_or_else(|| missing("password", no_password))?,
            ca_file: text(own.ca_file, &global.ca_file).map(PathBuf::from),
            thumbprint: own.thumbprint.or(global.thumbprint),
            insecure: own.insecure.or(global.insecure).unwrap_or(false),
            cluster_id: text(own.cluster_id, &global.cluster_id),
            datacenters: text(own.datacenters, &global.datacenters),
            line,
            ca_file_line,
            host: self.host,
        })
    }
}

#[cfg(test)]
mod tests;
