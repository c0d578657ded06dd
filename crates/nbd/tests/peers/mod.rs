//! Real servers and clients of other people: started on sockets of their own, ended with the test.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nbd::{Client, ConnectOptions, Export, Uri};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio_util::sync::{CancellationToken, DropGuard};

pub const MIB: u64 = 1 << 20;

/// A server of somebody else.
pub struct Peer {
    pub folder: TempDir,
    pub process: Child,
    export: String,
}

impl Peer {
    /// `nbdkit` with these arguments; `{dir}` in them is the test's folder.
    pub async fn nbdkit(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::nbdkit_in(folder, arguments).await
    }

    pub async fn nbdkit_in(folder: TempDir, arguments: &[&str]) -> Self {
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--exit-with-parent", "--unix"]).arg(folder.path().join("nbd.sock"));
        let dir = folder.path().to_str().unwrap().to_owned();
        command.args(arguments.iter().map(|argument| argument.replace("{dir}", &dir)));
        Self::start(folder, command, "").await
    }

    /// `qemu-nbd` serving the folder's `disk.raw` as `disk`.
    pub async fn qemu_nbd(folder: TempDir, arguments: &[&str]) -> Self {
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--shared=8", "--format=raw", "--export-name=disk", "--socket"]);
        command.arg(folder.path().join("nbd.sock")).args(arguments).arg(folder.path().join("disk.raw"));
        Self::start(folder, command, "disk").await
    }

    async fn start(folder: TempDir, mut command: Command, export: &str) -> Self {
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn();
        let mut peer = Self { folder, process: process.expect("the README names the packages"), export: export.into() };
        let due = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(peer.folder.path().join("nbd.sock")).is_err() {
            assert!(peer.process.try_wait().unwrap().is_none(), "the server ended: {command:?}");
            assert!(Instant::now() < due, "the server does not listen within 30 s: {command:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        peer
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn uri(&self) -> Uri {
        Uri::unix(self.file("nbd.sock"), self.export.clone())
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.uri(), ConnectOptions::default()).await.unwrap()
    }

    pub async fn client_with_deadline(&self, request_deadline: Duration) -> Client {
        let options = ConnectOptions { request_deadline, ..ConnectOptions::default() };
        Client::connect(&self.uri(), options).await.unwrap()
    }

    pub fn process_id(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(self.process.id().unwrap().cast_signed()).unwrap()
    }
}

/// A server of ours in this process; it ends with the value.
pub struct Ours {
    pub folder: TempDir,
    pub stop: CancellationToken,
    pub serving: tokio::task::JoinHandle<std::io::Result<()>>,
    _guard: DropGuard,
}

impl Ours {
    pub fn serve(export: Arc<dyn Export>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("nbd.sock")).unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(nbd::server::serve(listener, export, "disk", stop.clone()));
        Self { folder, serving, _guard: stop.clone().drop_guard(), stop }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn uri(&self) -> Uri {
        Uri::unix(self.file("nbd.sock"), "disk")
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.uri(), ConnectOptions::default()).await.unwrap()
    }
}

/// Runs a program and insists that it succeeds.
pub async fn run(program: &str, arguments: &[&str]) -> String {
    let output = try_run(program, arguments).await;
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub async fn try_run(program: &str, arguments: &[&str]) -> Output {
    let running = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let finished = tokio::time::timeout(Duration::from_secs(60), running).await;
    finished.expect("programs end within 60 s").expect("the README names the packages")
}

/// A folder with `disk.raw`, sparse: data at the start, in the middle and in the last sector. And its bytes.
pub fn sparse_disk(size: u64) -> (TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("disk.raw")).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(&noise(300_000), 0).unwrap();
    file.write_all_at(&noise(1_000_000), size / 2).unwrap();
    file.write_all_at(&noise(512), size - 512).unwrap();
    let bytes = read(&folder.path().join("disk.raw"));
    (folder, bytes)
}

pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state & 0xff) as u8
    };
    (0..length).map(|_| next()).collect()
}

pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
