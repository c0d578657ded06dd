//! Repositories and places that have lost something: what is said, whether it is true, and whether the advice helps.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::bench::{Bench, MIB, random, same};

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files_below(&entry)) } else { found.push(entry) }
    }
    found
}

/// A repository with two restore points of one disk; gives their ids, oldest first.
fn two_restore_points(bench: &Bench) -> [String; 2] {
    bench.raw("disk.raw", 24 * MIB, &[(0, &random(20 << 20))]);
    [0, 1].map(|_| {
        let done = bench.document(&["backup", "disk.raw"], 0);
        done["restorePoint"]["id"].as_str().unwrap().to_owned()
    })
}

#[test]
fn latest_is_not_an_older_restore_point_because_the_newest_cannot_be_read() {
    let bench = Bench::new();
    let [first, second] = two_restore_points(&bench);
    bench.spoil_restore_point(&second);
    for args in [&["restore", "latest", "x.raw"][..], &["verify", "LATEST"], &["verify", "latest", "--path", "/other"]]
    {
        bench.refused(args, 3, &["cannot be read", &second, "give the id"]);
    }
    assert!(!bench.file("x.raw").exists());
    bench.done(&["restore", &first, "x.raw"]); // the advice
    assert!(same(&bench.file("disk.raw"), &bench.file("x.raw")));

    bench.refused(&["list"], 3, &["1 cannot be read", &second]);
    let shown = String::from_utf8(bench.run(&["list"]).stdout).unwrap();
    assert!(shown.contains(&first[..8]) && shown.contains(&second[..8]), "{shown}");
    let found = bench.document(&["list"], 3);
    assert_eq!(found["restorePoints"][0]["id"], first.as_str(), "{found}");
    assert_eq!(found["damaged"][0]["id"], second.as_str(), "{found}");
    assert_eq!(found["exitCode"], 3);
}

#[test]
fn the_beginning_of_an_id_does_not_mean_the_readable_one_of_two() {
    let bench = Bench::new();
    let [id, _] = two_restore_points(&bench);
    let (short, damaged) = (&id[..8], format!("{}{}", &id[..8], "0".repeat(56)));
    std::fs::write(bench.file(&format!("repository/snapshots/{damaged}")), "this has never been a snapshot file")
        .unwrap();
    bench.refused(&["restore", short, "x.raw"], 4, &[short, "2 begin like this"]);
    assert!(!bench.file("x.raw").exists());
    bench.refused(&["verify", &damaged], 1, &[&damaged]);
    bench.done(&["restore", &id, "x.raw"]);
}

#[test]
fn a_repository_without_its_config_is_not_called_an_empty_place() {
    let bench = Bench::new();
    two_restore_points(&bench);
    let (config, away) = (bench.file("repository/config"), bench.file("config"));
    std::fs::rename(&config, &away).unwrap();
    for args in [&["list"][..], &["restore", "latest", "x.raw"], &["backup", "disk.raw"]] {
        bench.refused(args, 3, &["config", "back from a copy"]);
    }
    std::fs::rename(&away, &config).unwrap();
    bench.done(&["list"]);
    files_below(&bench.file("repository/keys")).iter().for_each(|key| std::fs::remove_file(key).unwrap());
    bench.refused(&["list"], 3, &["keys", "back from a copy"]);
}

#[test]
fn who_has_lost_the_index_is_told_what_brings_it_back() {
    let bench = Bench::new();
    two_restore_points(&bench);
    files_below(&bench.file("repository/index")).iter().for_each(|index| std::fs::remove_file(index).unwrap());
    bench.refused(&["restore", "latest", "x.raw"], 1, &["no index lists", "restic rebuild-index"]);
    bench.refused(&["verify", "latest"], 1, &["no index lists", "restic rebuild-index"]);
    bench.restic(&["rebuild-index"]);
    bench.done(&["restore", "latest", "x.raw"]);
    assert!(same(&bench.file("disk.raw"), &bench.file("x.raw")));
}

#[test]
fn who_has_lost_packs_is_told_how_many_and_how_to_get_the_rest() {
    let bench = Bench::new();
    // the two largest packs hold nothing but the disk's data
    bench.raw("disk.raw", 64 * MIB, &[(0, &random(56 << 20))]);
    bench.done(&["backup", "disk.raw"]);
    let mut packs = files_below(&bench.file("repository/data"));
    packs.sort_by_key(|pack| std::cmp::Reverse(pack.metadata().unwrap().len()));
    packs[..2].iter().for_each(|pack| std::fs::remove_file(pack).unwrap());
    let words = ["2 of its ", "packs are damaged", "vsphere-backup verify", "--skip-damaged"];
    bench.refused(&["restore", "latest", "x.raw"], 1, &words);
    assert!(!bench.file("x.raw").exists());
    bench.refused(&["verify", "latest"], 3, &["missing", "--skip-damaged"]); // both are advice
    bench.refused(&["restore", "latest", "x.raw", "--skip-damaged"], 3, &["damaged in the repository"]);
    assert!(bench.file("x.raw").exists());
}

/// What is said, in one text.
fn said(bench: &Bench, args: &[&str], code: i32) -> String {
    let output = bench.run(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[test]
fn who_has_a_folder_is_not_told_about_keys_to_a_bucket() {
    let mut bench = Bench::new();
    bench.raw("disk.raw", MIB, &[(0, b"data")]);
    bench.raw("file", MIB, &[]);
    bench.place = bench.file("file/repository").display().to_string();
    let folder = said(&bench, &["backup", "disk.raw"], 1);
    assert!(folder.contains("name a folder"), "{folder}");
    assert!(!folder.contains("AWS_") && !folder.contains("log"), "{folder}");
}

#[test]
fn no_key_to_a_bucket_is_one_sentence() {
    let mut bench = Bench::new();
    bench.place = "s3:http://127.0.0.1:9/bucket".to_owned();
    let nowhere = bench.file("home").display().to_string();
    bench.variables.extend([("HOME", nowhere), ("AWS_EC2_METADATA_DISABLED", "true".to_owned())]);
    let bucket = said(&bench, &["list"], 1);
    assert_eq!(bucket.lines().count(), 2, "{bucket}");
    assert!(bucket.contains("there is no key to the bucket") && bucket.contains("set AWS_ACCESS_KEY_ID"), "{bucket}");
}

#[test]
fn who_gives_neither_a_cluster_nor_a_repository_is_told_so() {
    let bench = Bench::new();
    let commands = [
        (&["list"][..], true),
        (&["status"][..], false),
        (&["status", "--kubeconfig="][..], false),
        (&["tracking", "status"][..], false),
    ];
    for (args, takes_a_repository) in commands {
        let mut command = bench.command(env!("CARGO_BIN_EXE_vsphere-backup"));
        command.env("HOME", bench.folder.path()).env_remove("KUBERNETES_SERVICE_HOST");
        let output = command.args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("find the cluster: none was given") && said.contains("--kubeconfig"), "{said}");
        assert_eq!(said.contains("`list` takes --repository"), takes_a_repository, "{args:?}: {said}");
    }
}

#[test]
fn an_id_of_another_disk_than_asked_for_is_not_restored() {
    let bench = Bench::new();
    let [first, _] = two_restore_points(&bench);
    bench.refused(&["restore", &first, "x.raw", "--path", "/other"], 2, &["disk.raw", "not of /other"]);
    bench.refused(&["verify", &first, "--path", "/other"], 2, &["not of /other"]);
    bench.refused(&["restore", "", "x.raw"], 2, &["id of a restore point"]);
    assert!(!bench.file("x.raw").exists());
    bench.done(&["verify", &first.to_ascii_uppercase()[..10]]);
    bench.raw("two\nlines.raw", MIB, &[(0, b"data")]);
    bench.refused(&["backup", "two\nlines.raw"], 2, &["one line", "--path"]);
}

#[test]
fn a_folder_does_not_grow_by_what_killed_backups_left() {
    let bench = Bench::new();
    two_restore_points(&bench);
    let folder = files_below(&bench.file("repository/data")).pop().unwrap().parent().unwrap().to_owned();
    let left = |name: &str, hours: u64| {
        let path = folder.join(name);
        let file = std::fs::File::create_new(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let age = std::time::Duration::from_secs(hours * 3600);
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
        path
    };
    let (old, young) =
        (left("00.tmp-11111111111111111111111111111111", 2), left("00.tmp-22222222222222222222222222222222", 0));
    bench.done(&["prune", "--dry-run"]);
    assert!(old.exists(), "a dry run changes nothing");
    bench.done(&["prune"]);
    assert!(!old.exists(), "what a killed backup left stays for ever");
    assert!(young.exists(), "it may be being written");
    bench.done(&["verify", "latest"]);
}
