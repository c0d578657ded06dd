//! Ctrl-C and SIGTERM: every command ends soon, whatever it waits for, and a transfer leaves nothing behind.

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::{Bench, MIB, Running, Store, slow_disk, until};

fn signal(process: &Running, name: &str) {
    let pid = process.0.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}

/// Waits for the end, which is due `within`, with the exit code and the word of a cancelled command.
fn ends_cancelled(mut process: Running, within: Duration) {
    let asked = Instant::now();
    let mut ended = None;
    until("the end", || {
        ended = process.0.try_wait().unwrap();
        ended.is_some()
    });
    let mut said = String::new();
    process.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(ended.unwrap().code(), Some(130), "{said}");
    assert!(asked.elapsed() < within, "took {:?}: {said}", asked.elapsed());
    assert!(said.contains("cancelled"), "{said}");
}

/// A backup of a slow disk into a repository that exists, on until the program holds its lock.
fn backup_that_holds_its_lock(bench: &Bench, disk: &str) -> Running {
    bench.raw("first.raw", MIB, &[]);
    bench.done(&["backup", "first.raw"]);
    let backup = bench.start(&["backup", disk]);
    // its lock is the last thing before it begins to read
    until("the backup", || bench.locks() > 0);
    backup
}

#[test]
fn ctrl_c_ends_a_backup_and_leaves_no_restore_point() {
    let bench = Bench::new();
    let (_server, disk) = slow_disk(&bench);
    let backup = backup_that_holds_its_lock(&bench, &disk);
    signal(&backup, "INT");
    ends_cancelled(backup, Duration::from_secs(5));
    assert!(!bench.done(&["list"]).contains("/nbd"), "a cancelled backup is listed");
    assert_eq!(bench.locks(), 0, "a lock was left");
}

/// It has the repository's key in its memory.
#[test]
fn a_backup_that_crashes_leaves_no_core_dump_with_the_key() {
    let bench = Bench::new();
    let (_server, disk) = slow_disk(&bench);
    let backup = backup_that_holds_its_lock(&bench, &disk);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", backup.0.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let allowed: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert!(allowed.len() == 2 && allowed.iter().all(|bytes| ["0", "1"].contains(bytes)), "{core}");
    signal(&backup, "INT");
    ends_cancelled(backup, Duration::from_secs(5));
}

/// `restic unlock` sends SIGHUP to the holder of a lock to see whether it lives, and so does a shell that closes.
#[test]
fn unlocking_a_repository_with_restic_ends_no_backup_that_runs() {
    let bench = Bench::new();
    bench.raw("first.raw", MIB, &[]);
    bench.done(&["backup", "first.raw"]);
    let (_server, disk) = crate::bench::delayed_disk(&bench, 4 * MIB, "2");
    let mut backup = bench.start(&["backup", &disk]);
    until("the backup", || bench.locks() > 0);
    bench.restic(&["unlock"]);
    signal(&backup, "HUP");
    let mut ended = None;
    until("the end", || {
        ended = backup.0.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success(), "{ended:?}");
    assert!(bench.done(&["list"]).contains("/nbd"), "the backup is there");
}

#[test]
fn two_signals_at_once_are_one_wish_and_leave_no_lock() {
    let bench = Bench::new();
    let (_server, disk) = slow_disk(&bench);
    let backup = backup_that_holds_its_lock(&bench, &disk);
    let pid = backup.0.id();
    // `timeout` signals its child and the child's group; two kinds of signal are never merged into one
    let both = format!("kill -TERM {pid}; kill -INT {pid}");
    assert!(Command::new("sh").args(["-c", &both]).status().unwrap().success());
    ends_cancelled(backup, Duration::from_secs(5));
    assert_eq!(bench.locks(), 0, "a lock was left");
}

#[test]
fn a_store_that_never_answers_does_not_keep_anyone_from_leaving() {
    let mut bench = Bench::new();
    bench.keys_of_a_bucket();
    bench.raw("disk.raw", MIB, &[(0, b"data")]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    bench.place = format!("s3:http://{}/bucket", silent.local_addr().unwrap());
    let commands: [&[&str]; 5] =
        [&["list"], &["backup", "disk.raw"], &["restore", "latest", "new.raw"], &["verify", "latest"], &["prune"]];
    for (command, name) in commands.iter().zip(["INT", "TERM", "INT", "TERM", "INT"]) {
        let waiting = bench.start(command);
        let _question = silent.accept().unwrap(); // open for as long as the program waits for an answer
        signal(&waiting, name);
        ends_cancelled(waiting, Duration::from_secs(3));
    }
}

#[test]
fn a_disk_that_never_answers_does_not_keep_anyone_from_leaving() {
    let bench = Bench::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let waiting = bench.start(&["backup", &format!("nbd://{}/disk", silent.local_addr().unwrap())]);
    let _greeting = silent.accept().unwrap();
    signal(&waiting, "INT");
    ends_cancelled(waiting, Duration::from_secs(3));
}

#[test]
fn a_store_that_falls_silent_under_a_backup_ends_it_all_the_same() {
    let mut bench = Bench::new();
    let (_server, disk) = slow_disk(&bench);
    let store = Store::start(&mut bench);
    let backup = backup_that_holds_its_lock(&bench, &disk);
    signal(&store.process, "STOP");
    signal(&backup, "INT");
    ends_cancelled(backup, Duration::from_secs(8));
}
