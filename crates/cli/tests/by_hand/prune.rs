//! `prune`: the space of deleted restore points comes back, and nothing else goes.

use std::path::Path;

use crate::bench::{Bench, MIB, random};

/// Bytes of all packs.
fn stored(bench: &Bench) -> u64 {
    let folders = std::fs::read_dir(bench.file("repository/data")).unwrap().map(|folder| folder.unwrap().path());
    let size = |folder: &Path| -> u64 {
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    folders.map(|folder| size(&folder)).sum()
}

/// A repository with two disks, of which the second's restore point was deleted; gives the size with the first alone.
fn with_a_deleted_disk() -> (Bench, u64) {
    let bench = Bench::new();
    bench.raw("kept.raw", 6 * MIB, &[(0, &random(6 << 20))]);
    bench.raw("deleted.raw", 20 * MIB, &[(0, &random(20 << 20))]);
    bench.done(&["backup", "kept.raw", "--path", "/kept"]);
    let small = stored(&bench);
    let made = bench.document(&["backup", "deleted.raw", "--path", "/deleted"], 0);
    bench.restic(&["forget", made["restorePoint"]["id"].as_str().unwrap()]);
    (bench, small)
}

fn agrees(bench: &Bench) {
    bench.restic(&["check", "--read-data"]);
    bench.done(&["verify", "latest", "--against", "kept.raw"]);
    assert_eq!(bench.locks(), 0);
}

#[test]
fn the_space_of_a_deleted_disk_comes_back_and_restic_agrees() {
    let (bench, small) = with_a_deleted_disk();
    let all = stored(&bench);
    let now = ["--grace", "0s", "--allow-short-grace"];
    let planned = bench.document(&[&["prune", "--dry-run"], &now[..]].concat(), 0);
    assert_eq!((&planned["dryRun"], &planned["bytes"]), (&true.into(), &all.into()), "{planned}");
    assert_eq!(planned["bytesRemoved"], all - small, "{planned}");
    assert_eq!(stored(&bench), all, "a dry run removes nothing");
    assert!(!bench.file("repository/maintenance").exists(), "and notes nothing");
    let freed = bench.document(&[&["prune"], &now[..]].concat(), 0);
    assert_eq!((&freed["dryRun"], &freed["bytesRemoved"]), (&false.into(), &(all - small).into()), "{freed}");
    assert_eq!(stored(&bench), small);
    agrees(&bench);
    let again = bench.done(&["prune"]);
    assert!(again.contains("freed: 0 packs"), "{again}");
}

#[test]
fn what_running_backups_may_still_take_over_stays_for_the_grace() {
    let (bench, _) = with_a_deleted_disk();
    let all = stored(&bench);
    let said = bench.done(&["prune"]);
    assert!(said.contains("freed: 0 packs") && said.contains("kept for the grace"), "{said}");
    bench.refused(&["prune", "--grace", "71h"], 2, &["--allow-short-grace", "below 72 hours"]);
    assert_eq!(stored(&bench), all);
    agrees(&bench);
    // data that is noted as unused is taken over all the same
    bench.done(&["backup", "deleted.raw", "--path", "/deleted"]);
    let taken = bench.document(&["prune"], 0);
    assert_eq!(taken["packsRemoved"], 0, "{taken}");
    bench.restic(&["check", "--read-data"]);
    bench.done(&["verify", "latest", "--path", "/deleted", "--against", "deleted.raw"]);
}

#[test]
fn a_prune_that_cannot_have_the_repository_to_itself_removes_nothing() {
    let (bench, _) = with_a_deleted_disk();
    let all = stored(&bench);
    // restic reads its input to the end before it unlocks; the input does not end
    let mut restic = bench.command("restic");
    restic.args(["-r", &bench.place, "backup", "--stdin"]).stdin(std::process::Stdio::piped());
    let mut restic = crate::bench::Running(restic.stdout(std::process::Stdio::null()).spawn().unwrap());
    crate::bench::until("restic's lock", || bench.locks() == 1);
    bench.refused(&["prune", "--grace", "0s", "--allow-short-grace"], 11, &["restic unlock"]);
    assert_eq!(stored(&bench), all);
    restic.0.kill().unwrap();
    restic.0.wait().unwrap();
}
