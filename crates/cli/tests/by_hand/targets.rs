//! What is at the target of a restore that failed, was cancelled or was killed, and what is said of it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::bench::{Bench, MIB, Running, Store, random, same, text, until};

/// A bucket with a restore point of a disk, whose packs are all there and of which one piece is damaged: a restore fails in
/// the middle.
fn damaged_in_the_middle(bench: &Bench) {
    bench.raw("disk.raw", 24 * MIB, &[(0, &random(24 << 20))]);
    bench.done(&["backup", "disk.raw"]);
    bench.spoil_a_pack();
}

#[test]
fn a_failed_restore_says_what_became_of_the_target() {
    let bench = Bench::new();
    damaged_in_the_middle(&bench);
    bench.refused(&["restore", "latest", "new.raw"], 1, &["new.raw (the file is removed again)", "--skip-damaged"]);
    assert!(!bench.file("new.raw").exists() && !bench.file("new.raw.partial").exists());
    bench.raw("old.raw", 24 * MIB, &[(0, b"old")]);
    let words = ["old.raw (it is incomplete: what it held may be partly overwritten)"];
    bench.refused(&["restore", "latest", "old.raw", "--force"], 1, &words);
}

/// A restore whose store falls silent when it has given two thirds of the disk, and that has begun to write. No machine is so slow or
/// so fast that it is over by then: the last third never comes.
fn stopped_in_the_middle(bench: &mut Bench, target: &str, force: bool) -> (Store, Running) {
    let store = Store::start(bench);
    bench.raw("disk.raw", 96 * MIB, &[(0, &random(96 << 20))]);
    bench.done(&["backup", "disk.raw"]);
    let args: &[&str] = if force { &["--force"] } else { &[] };
    let gateway = std::mem::replace(&mut bench.place, falls_silent(store.port, 64 << 20));
    let restore = bench.start(&[&["restore", "latest", target], args].concat());
    bench.place = gateway;
    let name = bench.file(&if force { target.to_owned() } else { format!("{target}.partial") });
    until("the first bytes", || {
        use std::os::unix::fs::MetadataExt;
        name.metadata().is_ok_and(|data| data.blocks() > 0)
    });
    (store, restore)
}

/// The store's place through a proxy that passes on so many bytes of answers and then neither another one nor an end. It ends with
/// the test's process.
fn falls_silent(store: u16, after: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let left = Arc::new(Mutex::new(after));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", store))) else { return };
            let (mut asked, mut asks) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            // who has gone away is no failure
            std::thread::spawn(move || drop(std::io::copy(&mut asked, &mut asks)));
            let left = left.clone();
            std::thread::spawn(move || pass_on(server, client, &left));
        }
    });
    format!("s3:http://127.0.0.1:{port}/bucket/some/prefix")
}

fn pass_on(mut server: TcpStream, mut client: TcpStream, left: &Mutex<usize>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = server.read(&mut bytes) {
        let mut left = left.lock().unwrap();
        let Some(rest) = left.checked_sub(length) else {
            loop {
                std::thread::park(); // holding both the connection and the others' turn
            }
        };
        *left = rest;
        drop(left);
        if client.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}

fn signal(process: &Running, name: &str) {
    let pid = process.0.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}

#[test]
fn a_cancelled_restore_says_what_became_of_the_target() {
    let mut bench = Bench::new();
    bench.raw("old.raw", 96 * MIB, &[]);
    let (_store, mut restore) = stopped_in_the_middle(&mut bench, "old.raw", true);
    signal(&restore, "INT");
    let mut said = String::new();
    restore.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(restore.0.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("old.raw") && said.contains("incomplete"), "{said}");
}

#[test]
fn a_killed_restore_leaves_no_file_that_looks_complete() {
    let mut bench = Bench::new();
    let (_store, mut restore) = stopped_in_the_middle(&mut bench, "new.raw", false);
    signal(&restore, "KILL");
    restore.0.wait().unwrap();
    assert!(!bench.file("new.raw").exists(), "it looks complete");
    assert!(bench.file("new.raw.partial").exists());
    bench.refused(&["restore", "latest", "new.raw"], 2, &["new.raw.partial", "killed", "--force"]);
    bench.done(&["restore", "latest", "new.raw", "--force"]);
    assert!(same(&bench.file("disk.raw"), &bench.file("new.raw")));
    assert!(!bench.file("new.raw.partial").exists());
}

#[test]
fn a_full_disk_is_told_of_the_file_and_not_of_a_socket() {
    let bench = Bench::new();
    let mut trial = Command::new("unshare");
    trial.args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    if !trial.output().is_ok_and(|output| output.status.success()) {
        eprintln!("file systems may not be mounted here: not tried");
        return;
    }
    bench.raw("disk.raw", 24 * MIB, &[(0, &random(24 << 20))]);
    bench.done(&["backup", "disk.raw"]);
    let small = bench.file("small");
    std::fs::create_dir(&small).unwrap();
    let mut command = bench.command("unshare");
    let line = r#"mount -t tmpfs -o size=8m tmpfs "$0" && "$@"; code=$?; ls -A "$0"; exit $code"#;
    command
        .args(["--map-root-user", "--mount", "bash", "-c", line])
        .arg(&small)
        .arg(env!("CARGO_BIN_EXE_vsphere-backup"));
    command.args(["restore", "latest"]).arg(small.join("new.raw")).args(["--repository", &bench.place]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left on device") && said.contains("free space where the file lies"), "{said}");
    assert!(!said.contains("socket") && !said.contains("NBD") && !said.contains("server"), "{said}");
    assert_eq!(said.matches("No space left").count(), 1, "{said}");
    assert!(output.stdout.is_empty(), "something is left: {output:?}");
}

#[test]
fn a_link_to_a_missing_file_is_refused_before_anything_is_copied() {
    let bench = Bench::new();
    bench.raw("disk.raw", MIB, &[(0, b"data")]);
    bench.done(&["backup", "disk.raw"]);
    std::os::unix::fs::symlink("missing.raw", bench.file("link.raw")).unwrap();
    bench.refused(&["restore", "latest", text(&bench.file("link.raw"))], 2, &["link to a file that is missing"]);
}
