//! Starts a vCenter double of one test's own, with a certificate of its own CA, and ends it with the test.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use disk::DiskId;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vsphere::{ClusterFlavor, Config, Deadlines, NewVolume, Trust, Vcenter};

pub(crate) const USER: &str = "backup@vsphere.local";
pub(crate) const PASSWORD: &str = "correct <horse> & \"battery\" 'staple'";
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Time for what cannot succeed: many tries on a quiet machine, and more than one on a busy one.
pub(crate) const WHILE: Duration = Duration::from_secs(2);

/// A certificate for the loopback addresses, and the CA that signed it.
pub(crate) struct Identity {
    pub(crate) ca: String,
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca_text = ca.self_signed(&ca_key).unwrap().pem();
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        Self { ca: ca_text, certificate, key }
    }
}

/// Short pauses, so that tests of retries take no longer than they must.
pub(crate) fn deadlines() -> Deadlines {
    Deadlines {
        connect: Duration::from_secs(10),
        call: Duration::from_secs(30),
        login_pause: Duration::from_millis(300),
        task_poll: Duration::from_millis(5),
        retry_pause: Duration::from_millis(20),
    }
}

/// A running vCenter double.
pub(crate) struct Double {
    pub(crate) identity: Identity,
    pub(crate) address: SocketAddr,
    control: SocketAddr,
    process: Child,
    folder: tempfile::TempDir,
}

impl Double {
    pub(crate) async fn start() -> Self {
        Self::start_on(free(Ipv4Addr::LOCALHOST.into())).await
    }

    pub(crate) async fn start_on_ipv6() -> Self {
        Self::start_on(free(Ipv6Addr::LOCALHOST.into())).await
    }

    async fn start_on(address: SocketAddr) -> Self {
        let identity = Identity::new();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), identity.certificate.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), identity.key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
        let control = free(Ipv4Addr::LOCALHOST.into());
        let process = launch(folder.path(), address, control);
        let double = Self { identity, address, control, process, folder };
        double.wait_until_ready().await;
        double
    }

    /// SIGKILL, and the same again on the same port: disks stay, sessions and tasks are forgotten.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        self.process = launch(self.folder.path(), self.address, self.control);
        self.wait_until_ready().await;
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.process.kill(); // it may have ended by itself
        let _ = self.process.wait();
    }

    async fn wait_until_ready(&self) {
        let ends = Instant::now() + MINUTE;
        loop {
            match self.try_tell("GET", "/healthz", None).await {
                Ok((200, _)) => return,
                Ok(other) => panic!("the double's control address says {other:?}"),
                Err(e) => assert!(Instant::now() < ends, "the double did not start: {e}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new(self.address.ip().to_string(), USER, PASSWORD.to_owned());
        config.port = self.address.port();
        config.trust = Trust::CaFile(self.identity.ca.clone());
        config.deadlines = deadlines();
        config
    }

    pub(crate) fn client(&self) -> Vcenter {
        Vcenter::new(self.config()).unwrap()
    }

    async fn try_tell(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<(u16, String)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = tokio::net::TcpStream::connect(self.control).await?;
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.0\r\nHost: control\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        let (head, body) = reply.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
        Ok((status, body.to_owned()))
    }

    /// A control request; see the README of tests/lab/vcenter.
    pub(crate) async fn tell(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, text) = self.try_tell(method, path, body.as_ref()).await.unwrap();
        assert!((200..300).contains(&status), "{method} {path} {body:?}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// A control request that may be refused: its status and what it says.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
        self.try_tell(method, path, body.as_ref()).await.unwrap()
    }

    pub(crate) async fn rule(&self, rule: Value) {
        self.tell("POST", "/faults", Some(rule)).await;
    }

    pub(crate) async fn calls(&self, method: &str) -> u64 {
        self.tell("GET", "/calls", None).await[method].as_u64().unwrap_or(0)
    }

    pub(crate) async fn logins(&self, kind: &str) -> u64 {
        self.tell("GET", "/logins", None).await[kind].as_u64().unwrap()
    }

    pub(crate) async fn sessions(&self) -> usize {
        self.tell("GET", "/sessions", None).await.as_array().unwrap().len()
    }

    /// The snapshots that are really there, as their descriptions.
    pub(crate) async fn snapshots(&self, disk: &DiskId) -> Vec<String> {
        let shown = self.tell("GET", &format!("/disks/{disk}"), None).await;
        let list = shown["snapshots"].as_array().unwrap();
        list.iter().map(|s| s["description"].as_str().unwrap().to_owned()).collect()
    }

    /// A disk of 2 MiB.
    pub(crate) async fn disk(&self, vcenter: &Vcenter) -> DiskId {
        vcenter.create_volume(&volume("pvc-1", 2 << 20), MINUTE).await.unwrap().id
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn volume(name: &str, capacity_bytes: u64) -> NewVolume {
    NewVolume {
        name: name.to_owned(),
        capacity_bytes,
        datastores: Vec::new(),
        storage_policy: None,
        cluster_id: "lab".to_owned(),
        cluster_flavor: ClusterFlavor::Vanilla,
    }
}

/// Fault rules as the control address takes them.
pub(crate) fn fault(method: &str, place: &str, fault: &str, count: u64) -> Value {
    json!({"method": method, "where": place, "fault": fault, "count": count})
}

fn launch(folder: &Path, address: SocketAddr, control: SocketAddr) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(binary());
    command.args(["--listen", &address.to_string(), "--control", &control.to_string(), "--user", USER]);
    command.arg("--store").arg(folder.join("store"));
    command.arg("--cert").arg(folder.join("cert.pem")).arg("--key").arg(folder.join("key.pem"));
    command.arg("--password-file").arg(folder.join("password"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// A port that was free a moment ago.
pub(crate) fn free(ip: std::net::IpAddr) -> SocketAddr {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// The double's program: what `LAB_VCENTER_BIN` names, or built here from its source.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("LAB_VCENTER_BIN") {
            return path.into();
        }
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vcenter");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/lab/vcenter");
        let mut go = Command::new("go");
        go.current_dir(source).arg("build").arg("-o").arg(&built).arg("./cmd/vcenter");
        let status = go.status().expect("Go is installed, as the README asks");
        assert!(status.success(), "build the vCenter double: {status}");
        built
    })
}
