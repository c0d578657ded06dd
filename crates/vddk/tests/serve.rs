//! A disk behind the real helper and the stand-in library: bytes, holes, writes, and who may see the password.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test stops at the first surprise; small sizes

mod stage;

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use nbd::{Fua, Kind, Zeroes};
use stage::{DISK, MIB, PASSWORD, Stage, client, eventually, options, snapshot, writable_disk};
use tokio::process::Command;
use tokio::task::JoinSet;
use vddk::{Connection, LaunchOptions, LibrarySettings};

#[tokio::test]
async fn a_snapshot_is_served_byte_for_byte() {
    let stage = Stage::new();
    let helper = stage.launch(snapshot()).await.unwrap();
    assert_eq!((helper.size(), helper.transport_mode()), (17 * MIB, "nbdssl"));
    let copy = stage.path("copy.raw");
    let copied = Command::new("nbdcopy").arg(helper.uri().to_string()).arg(&copy).output().await.unwrap();
    assert!(copied.status.success(), "{copied:?}");
    assert!(fs::read(&copy).unwrap() == fs::read(stage.snapshot_file()).unwrap(), "other bytes than the snapshot's");
    let process = helper.process_id();
    helper.stop().await.unwrap();
    stage.assert_clean(Some(process)).await;
    assert_eq!(stage.open_accesses(), 0);
}

#[tokio::test]
async fn the_transport_is_the_first_that_works_in_the_order_asked_for() {
    let stage = Stage::new();
    for (modes, in_use) in [("nbdssl:nbd", "nbdssl"), ("nbd:nbdssl", "nbd"), ("san:hotadd:nbd", "nbd")] {
        let preferred = LaunchOptions { transport_modes: modes.parse().unwrap(), ..options() };
        let helper = stage.launch_with(stage.connection(), snapshot(), preferred).await.unwrap();
        assert_eq!(helper.transport_mode(), in_use, "{modes}");
        helper.stop().await.unwrap();
    }
    let nowhere = LaunchOptions { transport_modes: "san:hotadd".parse().unwrap(), ..options() };
    let error = stage.launch_with(stage.connection(), snapshot(), nowhere).await.unwrap_err();
    assert_eq!(error.kind(), vddk::Kind::OpenFailed, "{error}");
}

/// A hole in VMware's library is not at once a way to everything in the network.
#[tokio::test]
async fn the_library_connects_to_the_ports_of_vcenter_and_hosts_and_to_no_other() {
    let stage = Stage::new();
    let dial = |port: u16| format!(r#"{{"function":"ConnectEx","action":"dial","port":{port},"code":13}}"#);
    let launched = async |vcenter: u16, port: u16, ports: &str| {
        stage.script(&dial(port));
        let connection = Connection { port: vcenter, ..stage.connection() };
        let options = LaunchOptions { ports: ports.parse().unwrap(), ..options() };
        stage.launch_with(connection, snapshot(), options).await
    };
    for (vcenter, port, ports) in
        [(443, 443, "443,902"), (443, 902, "443,902"), (8443, 8443, "902"), (443, 6443, "any"), (443, 6443, "6443")]
    {
        let helper = launched(vcenter, port, ports).await;
        helper.unwrap_or_else(|e| panic!("port {port} of {ports}: {e}")).stop().await.unwrap();
    }
    if !holds_ports() {
        let allowed = std::env::var_os("WITHOUT_LANDLOCK").is_some();
        let wanted = "Linux 6.7 with CONFIG_SECURITY_LANDLOCK, and landlock among its `lsm=`";
        assert!(allowed, "this kernel has no Landlock for ports: it takes {wanted}; WITHOUT_LANDLOCK=1 passes over it");
        return eprintln!("not shown here: this kernel has no Landlock for ports");
    }
    for (port, ports) in [(6443, "443,902"), (80, "443,902"), (902, "6443")] {
        let error = launched(443, port, ports).await.unwrap_err();
        assert_eq!(error.kind(), vddk::Kind::OpenFailed, "{port} of {ports}: {error}");
    }
}

/// Whether the kernel can: asked as landlock(7) says, for the version of its interface. Ports came with the fourth.
#[allow(unsafe_code, reason = "no library that we use tells it")]
fn holds_ports() -> bool {
    const VERSION_ONLY: libc::c_uint = 1;
    // SAFETY: with this flag the kernel reads no memory, and makes nothing
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION_ONLY) };
    version >= 4
}

/// One read after the other is a fifth of the speed on a real host.
#[tokio::test]
async fn reads_are_on_their_way_to_the_host_together() {
    let stage = Stage::new();
    let held = r#"{"function":"Travel","count":1000,"action":"hold"}"#;
    stage.script(held);
    let helper = stage.launch(snapshot()).await.unwrap();
    let disk = Arc::new(client(&helper).await);
    let mut reads = JoinSet::new();
    for mib in 0..4 {
        let disk = disk.clone();
        reads.spawn(async move { (mib, disk.read(mib * MIB, 8192).await.unwrap()) });
    }
    eventually("all of them are on their way", || stage.struck() == 4).await;
    stage.script("");
    let whole = fs::read(stage.snapshot_file()).unwrap();
    for (mib, data) in reads.join_all().await {
        let at = (mib * MIB) as usize;
        assert!(data[..] == whole[at..at + 8192], "other bytes than the snapshot's at {mib} MiB");
    }
    drop(disk);
    helper.stop().await.unwrap();
    stage.assert_clean(None).await;
}

/// The library may not be asked anything else about a disk that it reads.
#[tokio::test]
async fn a_question_about_holes_waits_for_the_reads_before_it() {
    let stage = Stage::new();
    stage.script(r#"{"function":"Travel","action":"slow","delayMs":20}"#);
    let helper = stage.launch(snapshot()).await.unwrap();
    let disk = Arc::new(client(&helper).await);
    let mut asked = JoinSet::new();
    for mib in 0..16 {
        let disk = disk.clone();
        asked.spawn(async move {
            disk.read(mib * MIB, 4096).await.unwrap();
            disk.block_status(mib * MIB, MIB).await.unwrap();
        });
    }
    asked.join_all().await; // the stand-in aborts at the first call that is made beside a read
    drop(disk);
    helper.stop().await.unwrap();
}

#[tokio::test]
async fn holes_are_not_read() {
    let stage = Stage::new();
    let helper = stage.launch(snapshot()).await.unwrap();
    let disk = client(&helper).await;
    assert!(disk.can_block_status() && disk.read_only() && disk.can_multi_conn());
    assert_eq!((disk.minimum_block(), disk.max_block()), (512, 2 << 20));
    let mut extents = Vec::new();
    let mut at = 0;
    while at < disk.size() {
        let found = disk.block_status(at, disk.size() - at).await.unwrap();
        at = found.last().unwrap().range.end();
        extents.extend(found);
    }
    let data: u64 = extents.iter().filter(|e| e.kind == Kind::Data).map(|e| e.range.length).sum();
    assert!(data < 2 * MIB, "{extents:?}");
    let hole = extents.iter().find(|e| e.kind == Kind::Hole).unwrap().range;
    assert!(disk.read(hole.offset, hole.length as usize).await.unwrap().iter().all(|byte| *byte == 0));
    disk.disconnect().await.unwrap();
    helper.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_restored_lies_on_the_disk() {
    let stage = Stage::new();
    let helper = stage.launch(writable_disk()).await.unwrap();
    let disk = client(&helper).await;
    assert!(!disk.read_only() && disk.can_fua() && disk.can_write_zeroes());
    let mut want = fs::read(stage.disk_file()).unwrap();
    let data: Vec<u8> = (0..5 * MIB).map(|i| (i % 251) as u8).collect();
    disk.write(3 * MIB + 512, Bytes::from(data.clone()), Fua::No).await.unwrap();
    want[(3 * MIB + 512) as usize..(8 * MIB + 512) as usize].copy_from_slice(&data);
    disk.write_zeroes(0, 3 * MIB, Zeroes::MayTrim, Fua::Yes).await.unwrap();
    want[..(3 * MIB) as usize].fill(0);
    disk.write(17 * MIB - 512, Bytes::from_static(&[9; 512]), Fua::Yes).await.unwrap();
    want[(17 * MIB - 512) as usize..].fill(9);
    disk.flush().await.unwrap();
    assert!(disk.read(0, 17 << 20).await.unwrap() == want, "read back through the helper");
    disk.disconnect().await.unwrap();
    helper.stop().await.unwrap();
    assert!(fs::read(stage.disk_file()).unwrap() == want, "on the disk");
    assert_eq!(stage.open_accesses(), 0);
}

#[tokio::test]
async fn a_restore_never_writes_to_what_was_opened_for_reading() {
    let stage = Stage::new();
    let before = fs::read(stage.snapshot_file()).unwrap();
    let helper = stage.launch(snapshot()).await.unwrap();
    let error = client(&helper).await.write(0, Bytes::from_static(&[1; 512]), Fua::No).await.unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    // a client that does not look at the flags is refused too
    let uri = helper.uri().to_string();
    let forced = Command::new("qemu-io").args(["-f", "raw", "-c", "write 0 512", &uri]).output().await.unwrap();
    assert!(!forced.status.success() || String::from_utf8_lossy(&forced.stderr).contains("read-only"), "{forced:?}");
    helper.stop().await.unwrap();
    assert!(fs::read(stage.snapshot_file()).unwrap() == before);

    let both = vddk::Target { access: vddk::Access::Write, ..snapshot() };
    let error = stage.launch(both).await.unwrap_err();
    assert_eq!(error.kind(), vddk::Kind::LaunchFailed);
    stage.assert_clean(None).await;
}

#[tokio::test]
async fn unaligned_requests_are_refused_and_do_not_reach_the_library() {
    let stage = Stage::new();
    let helper = stage.launch(snapshot()).await.unwrap();
    let disk = client(&helper).await;
    let error = disk.read(1, 511).await.unwrap_err();
    assert!(error.to_string().contains("aligned"), "{error}");
    assert_eq!(disk.read(512, 512).await.unwrap().len(), 512, "the connection still works");
    helper.stop().await.unwrap();
}

#[tokio::test]
async fn two_writers_of_one_disk_are_kept_apart() {
    let stage = Stage::new();
    let first = stage.launch(writable_disk()).await.unwrap();
    let other = vddk::Target { identity: "another-download".into(), ..writable_disk() };
    let error = stage.launch(other).await.unwrap_err();
    assert_eq!(error.code(), Some(15), "{error}");
    first.stop().await.unwrap();
    assert_eq!(stage.open_accesses(), 0);
}

#[tokio::test]
async fn several_connections_share_one_disk() {
    let stage = Stage::new();
    let helper = stage.launch(snapshot()).await.unwrap();
    let want = Bytes::from(fs::read(stage.snapshot_file()).unwrap());
    let mut reads = tokio::task::JoinSet::new();
    for part in 0..4u64 {
        let (disk, want) = (client(&helper).await, want.clone());
        reads.spawn(async move {
            for at in (part * 128 * 1024..17 * MIB).step_by(512 * 1024) {
                let length = (128 * 1024).min(17 * MIB - at) as usize;
                assert!(disk.read(at, length).await.unwrap() == want[at as usize..at as usize + length]);
            }
        });
    }
    while let Some(read) = reads.join_next().await {
        read.unwrap();
    }
    helper.stop().await.unwrap();
}

#[tokio::test]
async fn the_password_is_in_no_list_of_processes() {
    let stage = Stage::new();
    let helper = stage.launch(snapshot()).await.unwrap();
    let process = format!("/proc/{}", helper.process_id());
    let contains = |bytes: Vec<u8>, text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let environment = fs::read(format!("{process}/environ")).unwrap();
    assert!(contains(environment.clone(), "LD_LIBRARY_PATH="), "the right process");
    assert!(!contains(environment.clone(), PASSWORD));
    assert!(!contains(environment, "CARGO"), "nothing of ours is handed down");
    assert!(!contains(fs::read(format!("{process}/cmdline")).unwrap(), PASSWORD));
    // nor in a file: not in the folder of the socket, which holds the library's configuration
    let nbd::Address::Unix(socket) = helper.uri().address else { panic!("a Unix socket") };
    for file in fs::read_dir(socket.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()) {
        if file.is_file() {
            assert!(!contains(fs::read(&file).unwrap(), PASSWORD), "{}", file.display());
        }
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(socket.parent().unwrap()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700, "nobody else reaches the disk");
    assert!(!format!("{:?}", stage.connection()).contains(PASSWORD));
    helper.stop().await.unwrap();
}

/// M-7-7: a user who raises the library's log finds it raised, and our own settings beside it.
#[tokio::test]
async fn what_the_user_sets_of_the_library_is_in_its_configuration() {
    let stage = Stage::new();
    let set = [("vixDiskLib.nfc.LogLevel", "4"), ("vixDiskLib.nfc.AcceptTimeoutMs", "5000"), ("newer.Switch", "on")];
    let set = set.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let (library_settings, bad) = LibrarySettings::read(&set);
    assert_eq!(bad, []);
    let helper = stage
        .launch_with(stage.connection(), snapshot(), LaunchOptions { library_settings, ..options() })
        .await
        .unwrap(); // the stand-in refuses a configuration that it cannot read, or with a setting twice
    let nbd::Address::Unix(socket) = helper.uri().address else { panic!("a Unix socket") };
    let config = fs::read_to_string(socket.with_file_name("vddk.conf")).unwrap();
    let want = [
        "vixDiskLib.nfc.LogLevel=4",
        "vixDiskLib.nfc.AcceptTimeoutMs=5000",
        "newer.Switch=on",
        "vixDiskLib.transport.LogLevel=3",
        "vixDiskLib.nfc.RequestTimeoutMs=45000",
    ];
    assert!(want.iter().all(|line| config.lines().any(|l| l == *line)), "{config}");
    helper.stop().await.unwrap();
    stage.assert_clean(None).await;
}

#[tokio::test]
async fn a_helper_below_a_folder_with_a_long_path_serves_its_disk() {
    let stage = Stage::new();
    let deep = stage.path("sockets").join("long-".repeat(30));
    fs::create_dir(&deep).unwrap();
    let launched =
        vddk::Helper::launch(stage::helper_binary(), &deep, stage.connection(), snapshot(), stage::options());
    let helper = launched.await.unwrap();
    let read = client(&helper).await.read(0, 512).await.unwrap();
    assert_eq!(read, fs::read(stage.snapshot_file()).unwrap()[..512]);
    let process = helper.process_id();
    helper.stop().await.unwrap();
    fs::remove_dir(&deep).unwrap(); // fails unless it is empty
    stage.assert_clean(Some(process)).await;
}

#[tokio::test]
async fn an_export_is_named_after_disk_and_snapshot() {
    let stage = Stage::new();
    let helper = stage.launch(snapshot()).await.unwrap();
    let uri = helper.uri().to_string();
    let listed = Command::new("nbdinfo").args(["--json", &uri]).output().await.unwrap();
    assert!(listed.status.success(), "{listed:?}");
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&format!("{DISK}:{}", stage::SNAPSHOT)), "{listed:?}");
    helper.stop().await.unwrap();
}
