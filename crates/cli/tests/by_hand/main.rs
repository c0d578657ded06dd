//! The command line as a person calls it: exit codes, texts, and what restic says about the result.
#![allow(clippy::unwrap_used, missing_docs)] // a panic is how a test fails

mod answers;
mod bench;
mod changes;
mod full;
mod interrupts;
mod kills;
mod losses;
mod prune;
mod refusals;
mod targets;

use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bench::{Bench, KEY, MIB, Running, Store, delayed_disk, random, same, text, until};

#[test]
fn a_disk_comes_back_and_restic_agrees() {
    let bench = Bench::new();
    let files = bench.file("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("random"), random(3 << 20)).unwrap();
    std::fs::write(files.join("text"), "the quick brown fox\n".repeat(100_000)).unwrap();
    let source = bench.raw("disk.raw", 17 * MIB, &[]);
    let made = Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F", "-d"]).arg(&files).arg(&source).status().unwrap();
    assert!(made.success());

    let said = bench.done(&["backup", text(&source)]);
    assert!(said.contains("restore point") && said.contains("disk.raw"), "{said}");
    assert!(bench.done(&["list"]).contains(text(&source)));
    assert!(bench.done(&["verify", "latest", "--against", text(&source)]).contains("is sound and equal"));
    let copy = bench.file("copy.raw");
    bench.done(&["restore", "latest", text(&copy)]);
    assert!(same(&source, &copy), "came back differently");

    bench.restic(&["check", "--read-data"]);
    let dumped = bench.file("dumped.raw");
    bench.dumped_by_restic(&dumped);
    std::fs::OpenOptions::new().write(true).open(&dumped).unwrap().set_len(17 * MIB).unwrap(); // dd leaves a final hole out
    assert!(same(&source, &dumped), "restic gives other bytes");
}

#[test]
fn whoever_sits_at_a_terminal_sees_how_far_it_is() {
    let bench = Bench::new();
    let (_server, disk) = delayed_disk(&bench, 16 * MIB, "300ms");
    let line = format!("'{}' backup '{disk}' --repository '{}'", env!("CARGO_BIN_EXE_vsphere-backup"), bench.place);
    let mut terminal = bench.command("script");
    let output = terminal.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").output().unwrap();
    let seen = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{seen}");
    let percents = seen.split(" %").filter_map(|before| before.rsplit(' ').next()?.parse::<u64>().ok());
    let moved: std::collections::BTreeSet<u64> = percents.filter(|percent| (1..100).contains(percent)).collect();
    assert!(!moved.is_empty() && seen.contains("/16.00 MiB"), "no bar moves in {seen:?}");
    assert!(seen.rfind("restore point") > seen.rfind("/16.00 MiB"), "the result stands below the bar: {seen:?}");
    let into_a_file = bench.run(&["backup", &disk]);
    assert!(!String::from_utf8_lossy(&into_a_file.stderr).contains("MiB"), "{into_a_file:?}");
}

#[test]
fn a_list_of_changes_saves_reading_and_is_not_believed_blindly() {
    let bench = Bench::new();
    let source = bench.raw("disk.raw", 32 * MIB, &[(0, &random(24 << 20))]);
    let list = bench.file("changes.json");
    let changed = ["backup", "disk.raw", "--changed", text(&list)];
    std::fs::write(&list, "[]").unwrap();
    bench.refused(&changed, 10, &["there is none", "the first backup makes one"]);
    bench.done(&["backup", "disk.raw"]);

    let file = std::fs::OpenOptions::new().write(true).open(&source).unwrap();
    file.write_all_at(&random(100), 5 * MIB).unwrap();
    std::fs::write(&list, format!(r#"[{{"offset": {}, "length": 100}}]"#, 5 * MIB)).unwrap();
    let done = bench.document(&changed, 0);
    assert!(done["bytesRead"].as_u64().unwrap() <= 3 << 19, "{done}");
    bench.done(&["restore", "latest", "back.raw"]);
    assert!(same(&source, &bench.file("back.raw")), "came back differently");

    std::fs::write(&list, r#"[{"offset": 0, "length": 512, "type": 0, "description": "data"}]"#).unwrap();
    bench.refused(&changed, 2, &["another map", "dirty-bitmap"]);
    file.write_all_at(&random(24 << 20), 0).unwrap(); // any sample hits it
    std::fs::write(&list, "[]").unwrap();
    bench.refused(&changed, 3, &["have changed", "back it up without it"]);
    assert_eq!(bench.document(&["list"], 0).as_array().map(Vec::len), Some(2), "it looks like a restore point");
    assert_eq!(bench.locks(), 0, "a lock was left");
}

#[test]
fn scripts_get_one_document_and_a_file_of_odd_length_keeps_it() {
    let bench = Bench::new();
    let source = bench.raw("odd.raw", MIB + 333, &[(MIB, &[7; 333])]);
    let backup: serde_json::Value =
        serde_json::from_str(&bench.done(&["--output", "json", "backup", "odd.raw"])).unwrap();
    assert_eq!(backup["bytesTotal"], MIB + 333);
    assert_eq!(backup["restorePoint"]["path"], text(&source));
    let id = backup["restorePoint"]["id"].as_str().unwrap();
    bench.done(&["restore", &id[..10], "back.raw"]);
    assert!(same(&source, &bench.file("back.raw")));
    let list: serde_json::Value = serde_json::from_str(&bench.done(&["list", "--output", "json"])).unwrap();
    assert_eq!(list[0]["id"], id);
}

#[test]
fn an_existing_target_is_overwritten_only_when_asked_and_only_at_the_same_size() {
    let bench = Bench::new();
    let source = bench.raw("disk.raw", 2 * MIB, &[(0, &random(1000))]);
    bench.done(&["backup", "disk.raw"]);
    let target = bench.raw("target.raw", 2 * MIB, &[(0, &[0xAA; 2 << 20])]);
    bench.refused(&["restore", "latest", "target.raw"], 2, &["exists", "--force"]);
    assert_eq!(std::fs::read(&target).unwrap(), vec![0xAA; 2 << 20], "it was touched");
    bench.done(&["restore", "latest", "target.raw", "--force"]);
    assert!(same(&source, &target));
    for (name, size) in [("small.raw", MIB), ("large.raw", 3 * MIB)] {
        bench.raw(name, size, &[]);
        bench.refused(&["restore", "latest", name, "--force"], 2, &["bytes"]);
    }
}

#[test]
fn mistakes_are_told_with_their_fix_and_leave_nothing() {
    let mut bench = Bench::new();
    bench.refused(&["backup", "missing.raw"], 2, &["missing.raw", "to do:"]);
    assert!(!bench.file("repository").exists(), "a mistyped source left a repository");
    bench.raw("disk.raw", MIB, &[(5, b"data")]);
    bench.refused(&["list"], 10, &["the first backup makes one"]);
    bench.refused(&["restore", "latest", "x.raw"], 10, &["to do:"]);
    bench.done(&["backup", "disk.raw"]);
    bench.refused(&["restore", "feedbeef", "x.raw"], 4, &["feedbeef", "list"]);
    assert!(!bench.file("x.raw").exists());

    bench.variables = vec![("RESTIC_PASSWORD", "another".to_owned())];
    bench.refused(&["backup", "disk.raw"], 12, &["RESTIC_PASSWORD"]);
    bench.variables = vec![];
    bench.refused(&["list"], 2, &["RESTIC_PASSWORD_FILE"]);
    std::fs::write(bench.file("key"), format!("{KEY}\n")).unwrap();
    bench.variables = vec![("RESTIC_PASSWORD_FILE", bench.file("key").display().to_string())];
    bench.done(&["list"]);
    bench.variables.push(("RESTIC_PASSWORD", "another".to_owned()));
    bench.done(&["list"]); // restic takes the file, too
    bench.place = "rest:http://127.0.0.1/".to_owned();
    bench.refused(&["list"], 2, &["rest:http"]);
}

#[test]
fn a_list_that_could_not_be_written_is_a_failure() {
    let bench = Bench::new();
    bench.raw("disk.raw", MIB, &[(0, b"data")]);
    bench.done(&["backup", "disk.raw"]);
    for output in ["text", "json"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut list = bench.command(env!("CARGO_BIN_EXE_vsphere-backup"));
        list.args(["list", "--output", output, "--repository", &bench.place]).stdout(full);
        let ended = list.output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("write the result"), "{ended:?}");
    }
}

/// As after its terminal was closed: each line of the log fails.
#[test]
fn a_backup_goes_on_when_nobody_takes_its_log_any_more() {
    let bench = Bench::new();
    bench.raw("disk.raw", MIB, &[(0, b"data")]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut backup = bench.command(env!("CARGO_BIN_EXE_vsphere-backup"));
    backup.args(["backup", "disk.raw", "--repository", &bench.place]).env("RUST_LOG", "trace").stderr(full);
    let ended = backup.output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    bench.done(&["verify", "latest"]);
}

#[test]
fn latest_of_several_disks_is_refused_with_the_list() {
    let bench = Bench::new();
    bench.raw("a.raw", MIB, &[(0, b"a")]);
    let b = bench.raw("b.raw", MIB, &[(0, b"b")]);
    bench.done(&["backup", "a.raw"]);
    bench.done(&["backup", "b.raw", "--path", "/disks/b"]);
    bench.refused(&["restore", "latest", "x.raw"], 4, &["a.raw", "/disks/b", "--path"]);
    bench.done(&["restore", "latest", "x.raw", "--path", "/disks/b"]);
    assert!(same(&b, &bench.file("x.raw")));
}

#[test]
fn verify_tells_a_difference_by_its_exit_code() {
    let bench = Bench::new();
    bench.raw("disk.raw", MIB, &[(0, b"one")]);
    bench.raw("other.raw", MIB, &[(0, b"two")]);
    bench.done(&["backup", "disk.raw"]);
    bench.refused(&["verify", "latest", "--against", "other.raw"], 3, &["differs in 3 bytes"]);
}

#[test]
fn a_disk_goes_from_one_nbd_server_through_s3_to_another() {
    let mut bench = Bench::new();
    let store = Store::start(&mut bench);

    let source = bench.raw("disk.raw", 17 * MIB, &[(MIB, &random(5 << 20)), (17 * MIB - 512, &[1; 512])]);
    let target = bench.raw("target.raw", 17 * MIB, &[]);
    let mut running = Vec::new();
    for (file, socket) in [(&source, "source.sock"), (&target, "target.sock")] {
        let socket = bench.file(socket);
        let mut server = Command::new("qemu-nbd");
        server.args(["--persistent", "--shared=4", "--format=raw", "--socket"]).arg(&socket).arg(file);
        running.push(Running(server.spawn().unwrap()));
        until("qemu-nbd", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    }
    let uri = |socket: &str| format!("nbd+unix:///?socket={}", bench.file(socket).display());
    bench.done(&["backup", &uri("source.sock")]);
    assert!(bench.done(&["list"]).contains("/nbd"));
    bench.done(&["restore", "latest", &uri("target.sock")]);
    drop(running);
    assert!(same(&source, &target), "came back differently");
    bench.restic(&["check", "--read-data"]);

    bench.place = store.place("no-such-bucket");
    bench.refused(&["backup", "disk.raw"], 10, &["bucket"]);
}

#[test]
fn a_disk_of_four_gib_passes_through_bounded_memory() {
    let bench = Bench::new();
    let source = bench.raw("disk.raw", 4 << 30, &[]);
    let file = std::fs::OpenOptions::new().write(true).open(&source).unwrap();
    let part = random(64 << 20);
    for at in 0..6 {
        // another first byte in each chunk makes all of them new
        let mut part = part.clone();
        part.chunks_mut(4096).for_each(|page| page[0] ^= at + 1);
        file.write_all_at(&part, u64::from(at) << 29).unwrap();
    }
    drop(file);
    for args in [vec!["backup", "disk.raw"], vec!["restore", "latest", "back.raw"]] {
        let mut command = bench.command(env!("CARGO_BIN_EXE_vsphere-backup"));
        let mut child = Running(command.args(&args).args(["--repository", &bench.place]).spawn().unwrap());
        let status = PathBuf::from(format!("/proc/{}/status", child.0.id()));
        let mut peak = 0;
        let ended = loop {
            peak = high_water(&status).unwrap_or(0).max(peak);
            if let Some(ended) = child.0.try_wait().unwrap() {
                break ended;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(ended.success(), "{args:?}");
        assert!(peak > 0 && peak <= data_path::limits::PROCESS_BYTES, "{args:?}: {} MiB resident", peak >> 20);
    }
    let mut back = std::fs::File::open(bench.file("back.raw")).unwrap();
    assert_eq!(back.seek(SeekFrom::End(0)).unwrap(), 4 << 30);
    assert!(same(&source, &bench.file("back.raw")));
}

/// The kernel's high-water mark of resident memory, in bytes.
fn high_water(status: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}
