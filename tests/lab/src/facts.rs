//! What a lab has chosen once and keeps: addresses, accounts, keys. One JSON file that only its owner may read.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Ports of servers: below those that the kernel gives to connections (ip(7), `ip_local_port_range`), of which one could
/// take a port before its server does.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// Ports that are tried before there is said to be none.
const TRIES: usize = 100;

/// Any of [`PORTS`], so that labs that start at once do not choose the same.
fn drawn_port() -> u16 {
    let (_, low) = Uuid::new_v4().as_u64_pair();
    let offset = low % u64::from(PORTS.end - PORTS.start);
    PORTS.start + u16::try_from(offset).expect("less than the range, which is of ports")
}

/// The choices of one lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// TCP ports on 127.0.0.1, by what listens there.
    pub ports: BTreeMap<String, u16>,
    /// The token of the cluster's administrator.
    pub admin_token: String,
    /// The S3 server, and who may use it.
    pub s3: S3,
    /// The account at vCenter.
    pub vcenter_user: String,
    /// Its password.
    pub vcenter_password: String,
    /// The key of the backup repositories.
    pub restic_password: String,
    /// The nodes of the cluster.
    pub nodes: Vec<String>,
}

/// The S3 server of a lab: its own, or that of another lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct S3 {
    /// The folder of the lab whose server it is.
    pub owner: PathBuf,
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    /// The server's own account, which may do everything.
    pub root: Keys,
    /// The account that owns [`BUCKET`] and [`SCRATCH_BUCKET`], and may make more.
    pub user: Keys,
    /// The account that owns [`SECOND_BUCKET`].
    pub second: Keys,
}

/// Bucket of the storage location `default`.
pub const BUCKET: &str = "velero";
/// Bucket for benchmarks and command-line tests.
pub const SCRATCH_BUCKET: &str = "scratch";
/// Bucket of the storage location `second`, which needs the second account.
pub const SECOND_BUCKET: &str = "second";
/// What the storage location `second` puts in front of its keys.
pub const SECOND_PREFIX: &str = "clusters/lab";
/// The region the S3 server says it is in.
pub const REGION: &str = "us-east-1";
/// The namespace that Velero and our programs live in.
pub const VELERO_NAMESPACE: &str = "velero";

/// An account at the S3 server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keys {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: String,
}

impl Keys {
    /// The text of an AWS credentials file with this account as its default profile.
    pub(crate) fn credentials_file(&self) -> String {
        format!("[default]\naws_access_key_id={}\naws_secret_access_key={}\n", self.id, self.secret)
    }

    fn new(who: &str) -> Self {
        Self { id: format!("LAB{}{}", who.to_uppercase(), &random()[..8].to_uppercase()), secret: random() }
    }
}

fn random() -> String {
    Uuid::new_v4().simple().to_string()
}

impl Facts {
    /// New ones for a lab with these nodes. `share` are the facts of the lab whose S3 server it uses: then the key of the
    /// repositories is that lab's too, as in a second cluster that restores the backups of the first.
    pub(crate) fn new(folder: &Path, nodes: &[String], share: Option<&Facts>) -> Self {
        let own_s3 = || S3 {
            owner: folder.to_owned(),
            endpoint: String::new(), // known once its port is
            root: Keys::new("root"),
            user: Keys::new("user"),
            second: Keys::new("second"),
        };
        Self {
            ports: BTreeMap::new(),
            admin_token: random(),
            s3: share.map_or_else(own_s3, |other| other.s3.clone()),
            vcenter_user: "administrator@vsphere.local".to_owned(),
            vcenter_password: random(),
            restic_password: share.map_or_else(random, |other| other.restic_password.clone()),
            nodes: nodes.to_vec(),
        }
    }

    fn file(folder: &Path) -> PathBuf {
        folder.join("lab.json")
    }

    /// The facts of the lab in that folder; nothing when there was never one.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let file = Self::file(folder);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("read {}", file.display())),
        };
        serde_json::from_str(&text).map(Some).with_context(|| format!("understand {}", file.display()))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        write_private(&Self::file(folder), &serde_json::to_string_pretty(self)?)
    }

    /// The port of a process that is about to be started: the one it had, if that is still free.
    pub(crate) fn choose_port(&mut self, what: &str) -> Result<u16> {
        if let Some(port) = self.ports.get(what)
            && TcpListener::bind(("127.0.0.1", *port)).is_ok()
        {
            return Ok(*port);
        }
        let is_free = |port: &u16| {
            // another of our processes may not listen yet
            !self.ports.values().any(|taken| taken == port) && TcpListener::bind(("127.0.0.1", *port)).is_ok()
        };
        let port = std::iter::repeat_with(drawn_port).take(TRIES).find(is_free);
        let port = port.with_context(|| format!("find a free port for {what}: none of {TRIES} that were tried is"))?;
        self.ports.insert(what.to_owned(), port);
        Ok(port)
    }

    /// The port that was chosen for a process.
    ///
    /// # Errors
    /// When it was never started.
    pub fn port(&self, what: &str) -> Result<u16> {
        self.ports.get(what).copied().with_context(|| format!("no port was chosen for {what} yet"))
    }

    /// `https://127.0.0.1:PORT` of the vCenter double.
    ///
    /// # Errors
    /// When it was never started.
    pub fn vcenter_url(&self) -> Result<String> {
        Ok(format!("https://127.0.0.1:{}", self.port("vcenter")?))
    }

    /// `http://127.0.0.1:PORT` where the vCenter double is told what to do.
    ///
    /// # Errors
    /// When it was never started.
    pub fn control_url(&self) -> Result<String> {
        Ok(format!("http://127.0.0.1:{}", self.port("vcenter-control")?))
    }

    /// `https://127.0.0.1:PORT` of the API server.
    ///
    /// # Errors
    /// When it was never started.
    pub fn api_url(&self) -> Result<String> {
        Ok(format!("https://127.0.0.1:{}", self.port("kube-apiserver")?))
    }
}

/// Writes a file that only its owner may read, all of it or nothing.
pub(crate) fn write_private(file: &Path, text: &str) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let half_made = file.with_added_extension("partial");
    let mut out = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&half_made)?;
    out.write_all(text.as_bytes())?;
    fs::rename(&half_made, file).with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may stop at the first surprise
    use super::*;

    #[test]
    fn a_restarted_process_keeps_its_port_unless_a_stranger_took_it() {
        let mut facts = Facts::new(Path::new("/lab"), &[], None);
        let port = facts.choose_port("etcd").unwrap();
        assert_eq!(facts.choose_port("etcd").unwrap(), port);
        let _stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert_ne!(facts.choose_port("etcd").unwrap(), port);
    }

    #[test]
    fn a_second_cluster_has_the_keys_of_the_first_ones_backups() {
        let first = Facts::new(Path::new("/lab"), &[], None);
        let second = Facts::new(Path::new("/lab-b"), &[], Some(&first));
        assert_eq!(second.restic_password, first.restic_password);
        assert_eq!(second.s3.owner, Path::new("/lab"));
        assert_ne!(second.vcenter_password, first.vcenter_password);
    }
}
