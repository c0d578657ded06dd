//! Backups by a list of changes: on the wrong restore point they would make a disk that never was, sound by every check.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use crate::bench::{Bench, MIB, Running, random, same, text, until};

/// A disk of three MiB; each change writes to a place of its own, and the list names the last one only.
struct Disk {
    bench: Bench,
    file: std::fs::File,
    raw: PathBuf,
}

const LIST: &str = "changes.json";

impl Disk {
    fn new() -> Self {
        let bench = Bench::new();
        let raw = bench.raw("disk.raw", 16 * MIB, &[(0, &random(12 << 20))]);
        let file = std::fs::File::options().write(true).open(&raw).unwrap();
        Self { bench, file, raw }
    }

    fn change(&self, at: u64) {
        self.file.write_all_at(&random(4096), at).unwrap();
        std::fs::write(self.bench.file(LIST), format!(r#"[{{"offset": {at}, "length": 4096}}]"#)).unwrap();
    }

    /// Backs it up; gives the id.
    fn back_up(&self, more: &[&str]) -> String {
        let done = self.bench.document(&[&["backup", "disk.raw"], more].concat(), 0);
        done["restorePoint"]["id"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_list_of_changes_is_not_applied_to_an_older_restore_point_because_the_newest_cannot_be_read() {
    let disk = Disk::new();
    let first = disk.back_up(&[]);
    disk.change(MIB);
    let second = disk.back_up(&["--changed", LIST]);
    disk.change(4 * MIB);
    disk.bench.spoil_restore_point(&second);
    let words = ["cannot be read", second.as_str(), "--base"];
    disk.bench.refused(&["backup", "disk.raw", "--changed", LIST], 3, &words);
    assert_eq!(disk.bench.locks(), 0, "a lock was left");
    // whoever says it, is believed: the sample is looked at all the same
    let done = disk.bench.document(&["backup", "disk.raw"], 0);
    assert_eq!(done["base"], serde_json::Value::Null, "{done}");
    let found = disk.bench.document(&["backup", "disk.raw", "--changed", LIST, "--base", &second], 1);
    assert!(found["error"].as_str().unwrap().contains(&second), "{found}");
    assert_ne!(first, second);
}

#[test]
fn a_list_of_changes_makes_no_repository_in_a_folder_that_is_not_mounted() {
    let mut disk = Disk::new();
    let base = disk.back_up(&[]);
    disk.change(MIB);
    let folder = disk.bench.file("not-mounted");
    std::fs::create_dir(&folder).unwrap();
    let mounted = std::mem::replace(&mut disk.bench.place, text(&folder).to_owned());
    disk.bench.refused(&["backup", "disk.raw", "--changed", LIST, "--base", &base], 10, &["not-mounted"]);
    disk.bench.refused(&["backup", "disk.raw", "--changed", LIST], 10, &["not-mounted"]);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "a repository was made in it");
    disk.bench.place = mounted;
    disk.back_up(&["--changed", LIST, "--base", &base]);
}

#[test]
fn a_list_of_changes_is_applied_to_the_restore_point_it_belongs_to_or_to_none() {
    let disk = Disk::new();
    let first = disk.back_up(&[]);
    disk.change(MIB);
    let second = disk.back_up(&["--changed", LIST, "--base", &first]);
    disk.change(4 * MIB);
    disk.bench.restic(&["forget", &second]);
    // without --base this would take over from `first`, which lacks the second change
    disk.bench.refused(&["backup", "disk.raw", "--changed", LIST, "--base", &second], 4, &[&second, "there is none"]);

    std::fs::write(disk.bench.file(LIST), format!(r#"[{{"offset": {MIB}, "length": {}}}]"#, 4 * MIB)).unwrap();
    let done = disk.bench.document(&["backup", "disk.raw", "--changed", LIST, "--base", &first[..12]], 0);
    assert_eq!(done["base"]["id"], first.as_str(), "{done}");
    let said = disk.bench.done(&["backup", "disk.raw", "--changed", LIST]);
    let third = done["restorePoint"]["id"].as_str().unwrap();
    assert!(said.contains(&format!("what did not change is from restore point {}", &third[..8])), "{said}");
    disk.bench.done(&["restore", "latest", "back.raw"]);
    assert!(same(&disk.raw, &disk.bench.file("back.raw")), "came back differently");

    disk.bench.raw("other.raw", 16 * MIB, &[]);
    let first_of_other = ["there is no restore point of", "without --changed first"];
    disk.bench.refused(&["backup", "other.raw", "--changed", LIST], 2, &first_of_other);
    let other = ["backup", "other.raw", "--changed", LIST, "--base", &first];
    disk.bench.refused(&other, 2, &["disk.raw", "other.raw", "--path"]);
    disk.bench.refused(&["backup", "disk.raw", "--base", &first], 2, &["--changed"]);
}

#[test]
fn two_disks_behind_sockets_are_not_mixed_because_both_are_called_nbd() {
    let bench = Bench::new();
    std::fs::write(bench.file(LIST), "[]").unwrap();
    let serve = |name: &str| {
        let raw = bench.raw(&format!("{name}.raw"), 8 * MIB, &[(0, &random(6 << 20))]);
        let socket = bench.file(&format!("{name}.sock"));
        let mut server = Command::new("qemu-nbd");
        server.args(["--persistent", "--shared=4", "--read-only", "--format=raw", "--socket"]).arg(&socket).arg(raw);
        let server = Running(server.spawn().unwrap());
        until("qemu-nbd", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        (server, format!("nbd+unix:///?socket={}", text(&socket)))
    };
    let ((_a, a), (_b, b)) = (serve("a"), serve("b"));
    let first = bench.document(&["backup", &a], 0)["restorePoint"]["id"].as_str().unwrap().to_owned();
    for uri in [&a, &b] {
        bench.refused(&["backup", uri, "--changed", LIST], 2, &["/nbd", "--base", "--path"]);
    }
    bench.done(&["backup", &a, "--changed", LIST, "--base", &first]);
    bench.done(&["backup", &b, "--path", "/b"]);
    bench.done(&["backup", &b, "--path", "/b", "--changed", LIST]);
    bench.done(&["verify", "latest", "--path", "/b", "--against", &b]);
    bench.done(&["verify", "latest", "--path", "/nbd", "--against", &a]);
}
