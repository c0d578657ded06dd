//! Real NBD servers for the tests: each has its own folder and socket, and ends with its value.

#![allow(unreachable_pub, reason = "the test files of this folder share it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use data_path::Disk;
use nbd::{ConnectOptions, Uri};

/// Longest time a server may take to listen.
const START: Duration = Duration::from_secs(20);

/// A running server.
pub struct Server {
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    /// `qemu-nbd` on a raw file.
    pub fn qemu(file: &Path) -> Self {
        let args = ["--persistent", "--shared=4", "--format=raw", "--discard=unmap", "--detect-zeroes=off"];
        Self::start("qemu-nbd", |command, socket| {
            command.args(args).arg("--socket").arg(socket).arg(file);
        })
    }

    /// `nbdkit` with these arguments (filters, plugin, parameters).
    pub fn nbdkit(args: &[&str]) -> Self {
        Self::start("nbdkit", |command, socket| {
            command.args(["--foreground", "--exit-with-parent", "--unix"]).arg(socket).args(args);
        })
    }

    fn start(program: &str, configure: impl FnOnce(&mut Command, &Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("disk.sock");
        let mut command = Command::new(program);
        configure(&mut command, &socket);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("start {program}: {error}"));
        let due = Instant::now() + START;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{program} ended at once: {status}");
            }
            assert!(Instant::now() < due, "{program} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, folder }
    }

    pub fn uri(&self) -> Uri {
        Uri::unix(self.folder.path().join("disk.sock"), "")
    }

    pub async fn disk(&self) -> Disk {
        Disk::connect(&self.uri(), ConnectOptions::default()).await.unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // ended already is fine
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A raw file of `size` bytes with `parts` written into it; the rest is a hole.
pub fn raw_file(folder: &Path, name: &str, size: u64, parts: &[(u64, Vec<u8>)]) -> PathBuf {
    use std::os::unix::fs::FileExt;
    let path = folder.join(name);
    let file = std::fs::File::create_new(&path).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in parts {
        file.write_all_at(bytes, *offset).unwrap();
    }
    path
}

/// Bytes that neither compress nor repeat.
pub fn random(length: usize, seed: u64) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut bytes = vec![0; length];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Whether two files hold the same, without reading both into memory.
pub fn same(a: &Path, b: &Path) -> bool {
    Command::new("cmp").arg(a).arg(b).stdout(Stdio::null()).status().unwrap().success()
}
