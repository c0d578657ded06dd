//! What scripts read: one JSON document in every case, with everything that was found.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::bench::{Bench, MIB, random, text};

#[test]
fn verify_tells_scripts_where_a_disk_differs() {
    let bench = Bench::new();
    bench.raw("disk.raw", 3 * MIB, &[(0, b"one")]);
    bench.raw("other.raw", 3 * MIB, &[(0, b"one"), (2 * MIB + 7, b"two")]);
    bench.done(&["backup", "disk.raw"]);
    let found = bench.document(&["verify", "latest", "--against", "other.raw"], 3);
    assert_eq!(found["sound"], false, "{found}");
    assert_eq!(found["differences"], serde_json::json!([{ "offset": 2 * MIB + 7, "length": 3 }]), "{found}");
    assert_eq!(found["bytesDifferent"], 3);
    assert_eq!(found["exitCode"], 3);
    assert!(found["error"].as_str().unwrap().contains("differs in 3 bytes"), "{found}");
}

#[test]
fn verify_tells_scripts_what_is_damaged() {
    let bench = Bench::new();
    bench.raw("disk.raw", MIB, &[(0, &random(1 << 20))]);
    bench.done(&["backup", "disk.raw"]);
    spoil(&largest_below(&bench.file("repository/data")), 5000);
    let found = bench.document(&["verify", "latest"], 3);
    assert_eq!((&found["sound"], &found["damageCount"]), (&false.into(), &1.into()), "{found}");
    assert!(found["damages"][0].as_str().unwrap().contains("pack"), "{found}");
    assert_eq!(found["exitCode"], 3);
}

#[test]
fn verify_tells_the_whole_extent_of_what_is_lost() {
    let bench = Bench::new();
    bench.raw("disk.raw", 24 * MIB, &[(0, &random(24 << 20))]);
    bench.done(&["backup", "disk.raw"]);
    let spoilt = largest_below(&bench.file("repository/data"));
    [5000, 3 << 20].into_iter().for_each(|at| spoil(&spoilt, at));
    let found = bench.document(&["verify", "latest"], 3);
    let chunk = repository::CHUNK_SIZE;
    assert_eq!((&found["damageCount"], &found["bytesDamaged"]), (&2.into(), &(2 * chunk).into()), "{found}");
    // one place where they are neighbours: the order in the pack is not the disk's
    let places = found["damaged"].as_array().unwrap();
    assert_eq!(places.iter().map(|place| place["length"].as_u64().unwrap()).sum::<u64>(), 2 * chunk, "{found}");
    assert_eq!(found["bytesRead"], 24 * MIB - 2 * chunk, "all others were read: {found}");

    std::fs::remove_file(&spoilt).unwrap();
    let rest = largest_below(&bench.file("repository/data"));
    spoil(&rest, 5000);
    let found = bench.document(&["verify", "latest"], 3);
    assert_eq!(found["damageCount"], 2, "the pack that is gone, the chunk in the other: {found}");
    let lost = found["bytesDamaged"].as_u64().unwrap();
    assert!(lost > 15 * MIB && lost < 24 * MIB, "{found}");
    assert_eq!(found["bytesRead"], 24 * MIB - lost, "{found}");
    bench.refused(&["verify", "latest"], 3, &["2 pieces are damaged", &format!("{lost} bytes of the disk"), "missing"]);
}

#[test]
fn verify_goes_on_behind_a_damaged_tree_and_names_what_else_is_damaged() {
    const FOLDER: u64 = 4 << 30;
    let bench = Bench::new();
    // two folders with one chunk each: two trees
    let chunk = repository::CHUNK_SIZE;
    let parts = [0, FOLDER].map(|at| (at, random(usize::try_from(chunk).unwrap())));
    bench.raw("disk.raw", 2 * FOLDER, &parts.each_ref().map(|(at, bytes)| (*at, bytes.as_slice())));
    bench.done(&["backup", "disk.raw"]);
    let [.., trees, data] = &packs_by_length(&bench.file("repository/data"))[..] else { panic!("two kinds of packs") };
    spoil(trees, 20);
    // in the middle of either chunk, in whichever order they and the small ones came
    [chunk / 2, chunk + chunk / 2].into_iter().for_each(|at| spoil(data, at));
    let found = bench.document(&["verify", "latest"], 3);
    assert_eq!((&found["damageCount"], &found["bytesDamaged"]), (&2.into(), &(FOLDER + chunk).into()), "{found}");
    let whole_folder = |range: &serde_json::Value| range["length"].as_u64() >= Some(FOLDER);
    assert!(found["damaged"].as_array().unwrap().iter().any(whole_folder), "{found}");
    for pack in [trees, data] {
        let name = pack.file_name().unwrap().to_str().unwrap();
        let named = |damage: &serde_json::Value| damage.as_str().unwrap().contains(name);
        assert!(found["damages"].as_array().unwrap().iter().any(named), "{name}: {found}");
    }
    bench.refused(&["verify", "latest"], 3, &["2 pieces are damaged", &format!("{} bytes", FOLDER + chunk)]);
    let restored = bench.document(&["restore", "latest", "back.raw", "--skip-damaged"], 3);
    assert_eq!(restored["bytesDamaged"], found["bytesDamaged"], "{restored}");

    std::fs::remove_file(trees).unwrap();
    bench.refused(&["verify", "latest"], 1, &["missing", "restore another restore point"]); // nobody knows what belongs to it
}

#[test]
fn a_restore_that_skips_damage_says_so_to_scripts_and_keeps_the_rest() {
    let bench = Bench::new();
    let whole = random(24 << 20);
    bench.raw("disk.raw", 24 * MIB, &[(0, &whole)]);
    bench.done(&["backup", "disk.raw"]);
    spoil(&largest_below(&bench.file("repository/data")), 5000);
    bench.refused(&["restore", "latest", "back.raw"], 1, &["bytes at", "pack", "--skip-damaged"]);
    assert!(!bench.file("back.raw").exists(), "half a disk that nobody asked for");

    let found = bench.document(&["restore", "latest", "back.raw", "--skip-damaged"], 3);
    let chunk = repository::CHUNK_SIZE;
    assert_eq!(
        (&found["bytesDamaged"], &found["bytesWritten"]),
        (&chunk.into(), &(24 * MIB - chunk).into()),
        "{found}"
    );
    let at = usize::try_from(found["damaged"][0]["offset"].as_u64().unwrap()).unwrap();
    let mut want = whole;
    want[at..at + usize::try_from(chunk).unwrap()].fill(0);
    assert!(std::fs::read(bench.file("back.raw")).unwrap() == want, "zeroes where it is damaged, the rest as it was");
}

/// Changes the byte at `at`.
fn spoil(pack: &Path, at: u64) {
    let mut permissions = std::fs::metadata(pack).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(pack, permissions).unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(pack).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

fn packs_by_length(folder: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(folder).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    let mut files: Vec<_> = files.collect();
    files.sort_by_key(|file| file.metadata().unwrap().len());
    files
}

fn largest_below(folder: &Path) -> PathBuf {
    packs_by_length(folder).pop().unwrap()
}

#[test]
fn what_a_longer_disk_holds_behind_the_end_is_a_difference_unless_it_is_zero() {
    let bench = Bench::new();
    let size = 2 * MIB + 512; // the end lies within a chunk
    let data = random(1 << 20);
    bench.raw("disk.raw", size, &[(0, &data)]);
    bench.done(&["backup", "disk.raw"]);
    bench.raw("enlarged.raw", size + 5 * MIB, &[(0, &data)]);
    let said = bench.done(&["verify", "latest", "--against", "enlarged.raw"]);
    assert!(said.contains("equal") && said.contains(&format!("{} bytes of zeroes", 5 * MIB)), "{said}");
    for at in [size, size + 3 * MIB, size + 5 * MIB - 1] {
        bench.raw(&format!("other-{at}.raw"), size + 5 * MIB, &[(0, &data), (at, b"x")]);
        let found = bench.document(&["verify", "latest", "--against", &format!("other-{at}.raw")], 3);
        assert_eq!(found["differences"], serde_json::json!([{ "offset": at, "length": 1 }]), "{found}");
        assert_eq!((&found["bytesTotal"], &found["bytesBeyond"]), (&size.into(), &(5 * MIB).into()));
    }
    bench.raw("shorter.raw", size - 512, &[(0, &data)]);
    bench.refused(&["verify", "latest", "--against", "shorter.raw"], 3, &["differs in 512 bytes"]);
}

#[test]
fn a_shorter_disk_is_called_shorter_with_both_sizes_and_what_that_means() {
    let bench = Bench::new();
    let (size, shorter) = (2 * MIB + 512, 2 * MIB);
    bench.raw("disk.raw", size, &[(0, b"data")]);
    bench.raw("shorter.raw", shorter, &[(0, b"data")]);
    bench.done(&["backup", "disk.raw"]);
    let verify = ["verify", "latest", "--against", "shorter.raw"];
    let sizes = format!("shorter.raw is shorter than the restore point: {shorter} bytes, and the restore point {size}");
    let lacks = "the last 512 bytes of the restore point are not on it";
    bench.refused(&verify, 3, &[&sizes, lacks, "differs in 512 bytes", "to do: compare with a disk that is as large"]);
    let found = bench.document(&verify, 3);
    assert_eq!((&found["bytesLacking"], &found["bytesBeyond"]), (&512.into(), &0.into()), "{found}");
    assert_eq!(found["differences"], serde_json::json!([{ "offset": shorter, "length": 512 }]), "{found}");
}

#[test]
fn a_command_line_that_is_not_understood_is_a_document_too() {
    let bench = Bench::new();
    for args in [vec!["backup"], vec!["frobnicate"], vec!["list", "--pth", "x"], vec![]] {
        let found = bench.document(&args, 2);
        assert!(!found["error"].as_str().unwrap().is_empty(), "{found}");
        assert_eq!(found["exitCode"], 2);
    }
    let help = bench.run(&["--output", "json", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("Exit codes"));
}

/// The API server's answers to a list of BackupRepositories: one that nobody can open.
const REPOSITORIES: &str = r#"{"apiVersion":"backupdriver.cnsdp.vmware.com/v1alpha1","kind":"BackupRepositoryList",
"metadata":{"resourceVersion":"1"},"items":[{"apiVersion":"backupdriver.cnsdp.vmware.com/v1alpha1",
"kind":"BackupRepository","metadata":{"name":"odd-one"},"allowedNamespaces":["shop"],"repositoryDriver":"floppy"}]}"#;

/// Runs our program with a cluster that answers so: with a status, and what it says. One document, and the exit code.
fn on_a_cluster(answer: fn(&str) -> (&'static str, &'static str), args: &[&str]) -> (serde_json::Value, Option<i32>) {
    let bench = Bench::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in server.incoming() {
            let mut connection = connection.unwrap();
            let mut question = [0; 4096];
            let length = connection.read(&mut question).unwrap();
            let question = String::from_utf8_lossy(&question[..length]).into_owned();
            let (status, body) = answer(question.lines().next().unwrap_or_default());
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n");
            connection.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).unwrap();
        }
    });
    let kubeconfig = bench.file("kubeconfig");
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    std::fs::write(&kubeconfig, config).unwrap();
    let mut command = bench.command(env!("CARGO_BIN_EXE_vsphere-backup"));
    let output = command.args(args).args(["--output", "json", "--kubeconfig", text(&kubeconfig)]).output().unwrap();
    let document = serde_json::from_slice(&output.stdout);
    (document.unwrap_or_else(|why| panic!("one document, not {output:?}: {why}")), output.status.code())
}

#[test]
fn one_bad_repository_of_a_cluster_is_part_of_the_one_document() {
    let (found, code) = on_a_cluster(|_| ("200 OK", REPOSITORIES), &["list"]);
    assert_eq!(code, Some(1), "{found}");
    assert_eq!(found["restorePoints"], serde_json::json!([]));
    let failure = found["failures"][0].as_str().unwrap();
    assert!(failure.starts_with("odd-one (namespace shop): RepositoryInvalid"), "{found}");
    assert!(found["error"].as_str().unwrap().contains("floppy"), "{found}");
}

#[test]
fn a_script_stops_where_doctor_could_not_log_in() {
    const NOBODY: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized",
"reason":"Unauthorized","code":401}"#;
    let (found, code) = on_a_cluster(|_| ("401 Unauthorized", NOBODY), &["doctor"]);
    assert_eq!((code, &found["problems"], &found["warnings"]), (Some(1), &1.into(), &0.into()), "{found}");
    let told = &found["findings"][0];
    assert_eq!((told["matter"].as_str(), told["verdict"].as_str()), (Some("cluster"), Some("problem")), "{found}");
    assert!(told["fix"].as_str().unwrap().contains("log in to the cluster again"), "{found}");
    let (found, code) = on_a_cluster(|_| ("401 Unauthorized", NOBODY), &["status"]);
    assert_eq!(code, Some(1), "{found}");
    assert!(found["fix"].as_str().unwrap().contains("log in to the cluster again"), "{found}");
}

#[test]
fn a_slip_in_the_name_of_veleros_namespace_is_told_once() {
    const NONE: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
"message":"namespaces \"velro\" not found","reason":"NotFound","code":404}"#;
    const VERSION: &str = r#"{"major":"1","minor":"34","gitVersion":"v1.34.1","gitCommit":"","gitTreeState":"","buildDate":"",
"goVersion":"","compiler":"","platform":""}"#;
    let answer = |question: &str| match question.contains("/namespaces/velro") {
        true => ("404 Not Found", NONE),
        false => ("200 OK", VERSION),
    };
    let (found, code) = on_a_cluster(answer, &["doctor", "--velero-namespace", "velro"]);
    assert_eq!((code, &found["problems"], &found["warnings"]), (Some(1), &1.into(), &0.into()), "{found}");
    let told = found["findings"].as_array().and_then(|findings| findings.last()).unwrap();
    assert!(told["seen"].as_str().unwrap().contains("there is no namespace velro"), "{found}");
    assert!(told["fix"].as_str().unwrap().contains("--velero-namespace"), "{found}");
    let (found, code) = on_a_cluster(answer, &["list", "--velero-namespace", "velro"]);
    assert_eq!(code, Some(2), "{found}");
    assert!(found["error"].as_str().unwrap().ends_with("there is no namespace velro"), "{found}");
    assert!(found["fix"].as_str().unwrap().contains("--velero-namespace"), "{found}");
}
