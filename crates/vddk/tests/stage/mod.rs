//! A store with disks, the stand-in library as a user would lay it out, and launches of the real helper on them.
//!
//! The shared library lies beside the tests because the stand-in is a dev-dependency: cargo builds it with them.
#![allow(dead_code, unreachable_pub, clippy::cast_possible_truncation)] // each test uses its part; small sizes

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nbd::{Client, ConnectOptions};
use tempfile::TempDir;
use vddk::{Access, Connection, Error, Helper, LaunchOptions, Target};

pub const USER: &str = "backup@vsphere.local";
pub const PASSWORD: &str = "s3cret-Passw0rd";
const PASSWORD_SHA256: &str = "e1dc394cdefa29e652162d7b879eebe7904d5758625ee9d3f3d10a847d761aef";
const THUMBPRINT: &str = "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD";
pub const DISK: &str = "3f5c1c9e-0000-4000-8000-00000000d15c";
pub const SNAPSHOT: &str = "9b0d3c11-0000-4000-8000-000000005a95";
pub const MIB: u64 = 1 << 20;

/// Everything that one test needs, in a folder that goes away.
pub struct Stage {
    folder: TempDir,
}

impl Stage {
    /// A stage with one disk of 17 MiB and its snapshot: data at the start, in the middle and in the last sector.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stage = Self { folder };
        for part in ["store", "vddk/lib64", "sockets"] {
            fs::create_dir_all(stage.path(part)).unwrap();
        }
        fs::create_dir_all(stage.path("store").join(DISK).join("snapshots")).unwrap();
        sparse(&stage.snapshot_file());
        sparse(&stage.disk_file());
        std::os::unix::fs::symlink(built_library(), stage.path("vddk/lib64/libvixDiskLib.so.8")).unwrap();
        let settings = format!(
            r#"{{"store":{:?},"user":"{USER}","password_sha256":"{PASSWORD_SHA256}","thumbprint":"{THUMBPRINT}"}}"#,
            stage.path("store")
        );
        fs::write(stage.path("vddk/lib64/stand-in.json"), settings).unwrap();
        stage
    }

    pub fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    pub fn disk_file(&self) -> PathBuf {
        self.path("store").join(DISK).join("disk.raw")
    }

    pub fn snapshot_file(&self) -> PathBuf {
        self.path("store").join(DISK).join("snapshots").join(format!("{SNAPSHOT}.raw"))
    }

    /// Writes the script of faults: the rules' JSON, without the brackets.
    pub fn script(&self, rules: &str) {
        let partial = self.path("store/.script");
        fs::write(&partial, format!(r#"{{"rules":[{rules}]}}"#)).unwrap();
        fs::rename(partial, self.path("store/vddk.json")).unwrap();
    }

    /// How often the rules that count have struck so far.
    pub fn struck(&self) -> u64 {
        let counts = fs::read(self.path("store/.vddk-counts")).unwrap_or_default();
        let counts: BTreeMap<String, u64> = serde_json::from_slice(&counts).unwrap_or_default();
        counts.values().sum()
    }

    pub fn connection(&self) -> Connection {
        Connection {
            library_dir: self.path("vddk"),
            server: "vcenter.example".into(),
            port: 443,
            thumbprint: THUMBPRINT.into(),
            user: USER.into(),
            password: PASSWORD.into(),
            datastore: "datastore-39".into(),
        }
    }

    pub async fn launch(&self, target: Target) -> Result<Helper, Error> {
        self.launch_with(self.connection(), target, options()).await
    }

    pub async fn launch_with(
        &self,
        connection: Connection,
        target: Target,
        options: LaunchOptions,
    ) -> Result<Helper, Error> {
        Helper::launch(helper_binary(), &self.path("sockets"), connection, target, options).await
    }

    /// Nothing is left: no socket, no process, no access.
    pub async fn assert_clean(&self, process_id: Option<u32>) {
        eventually("the sockets are gone", || fs::read_dir(self.path("sockets")).unwrap().next().is_none()).await;
        if let Some(process_id) = process_id {
            eventually("the process is gone", || !is_running(process_id)).await;
        }
    }

    /// Accesses that were announced and not ended.
    pub fn open_accesses(&self) -> usize {
        fs::read_dir(self.path("store/.vddk-access")).map_or(0, Iterator::count)
    }
}

pub fn helper_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_vddk-helper"))
}

/// Deadlines in which a test notices, and a busy machine does not fail.
pub fn options() -> LaunchOptions {
    LaunchOptions {
        start_deadline: Duration::from_secs(60),
        call_deadline: Duration::from_secs(60),
        stop_deadline: Duration::from_secs(60),
        silence_deadline: Duration::from_secs(60),
        ..LaunchOptions::default()
    }
}

pub fn snapshot() -> Target {
    Target {
        disk: DISK.parse().unwrap(),
        snapshot: Some(SNAPSHOT.parse().unwrap()),
        access: Access::Read,
        identity: "test-upload".into(),
    }
}

pub fn writable_disk() -> Target {
    Target { snapshot: None, access: Access::Write, ..snapshot() }
}

pub async fn client(helper: &Helper) -> Client {
    Client::connect(&helper.uri(), ConnectOptions::default()).await.unwrap()
}

/// Waits for something that happens soon after what was done.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let due = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < due, "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn is_running(process_id: u32) -> bool {
    // a zombie has ended: its status says so
    let status = fs::read_to_string(format!("/proc/{process_id}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn sparse(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(17 * MIB).unwrap();
    let noise: Vec<u8> = (0..MIB as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    file.write_all_at(&noise, 0).unwrap();
    file.write_all_at(&noise[..300_000], 8 * MIB + 512).unwrap();
    file.write_all_at(&noise[..512], 17 * MIB - 512).unwrap();
}

/// The stand-in, as cargo built it.
fn built_library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let beside = test.parent().unwrap();
    let places = [beside.to_owned(), beside.parent().unwrap().to_owned()];
    let files = places.iter().map(|place| place.join("libvixDiskLib.so")).filter(|file| file.is_file());
    // the one from this build, if `cargo build` left another
    files
        .max_by_key(|file| file.metadata().unwrap().modified().unwrap())
        .expect("cargo builds the stand-in with the tests")
}
