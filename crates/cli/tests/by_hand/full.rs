//! A repository on a file system that takes nothing more gives back what it holds.

use std::process::{Command, Output};

use crate::bench::{Bench, MIB, random, same};

/// Copies the repository `$1` onto a file system of its own at `$2`, makes that full or read-only (`$3`), proves it, and
/// runs the rest. The file system goes with the process that is its only user.
const ON_ITS_OWN: &str = r#"
    mount -t tmpfs -o size=24m tmpfs "$2" && cp -a "$1/." "$2/"
    case "$3" in
        full) cat /dev/zero > "$2/filler" 2> /dev/null || true ;;
        read-only) mount -o remount,ro "$2" ;;
    esac
    if echo x 2> /dev/null > "$2/locks/probe"; then echo "it takes more" >&2; exit 99; fi
    test ! -e "$2/locks/probe" || rm "$2/locks/probe"
    shift 3
    exec "$@"
"#;

/// `None` where file systems may not be mounted: there, `repository`'s tests with a failing store say the same.
fn run_on(bench: &Bench, state: &str, args: &[&str]) -> Option<Output> {
    let mut trial = Command::new("unshare");
    trial.args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    if !trial.output().is_ok_and(|output| output.status.success()) {
        eprintln!("file systems may not be mounted here: not tried");
        return None;
    }
    let own = bench.file("own");
    std::fs::create_dir_all(&own).unwrap();
    let mut command = bench.command("unshare");
    command.args(["--map-root-user", "--mount", "bash", "-e", "-c", ON_ITS_OWN, "bash", &bench.place]).arg(&own);
    command.args([state, env!("CARGO_BIN_EXE_vsphere-backup")]).args(args).arg("--repository").arg(&own);
    Some(command.output().unwrap())
}

#[test]
fn a_disk_comes_back_from_a_folder_that_is_full_or_read_only() {
    let bench = Bench::new();
    let disk = bench.raw("disk.raw", 3 * MIB, &[(MIB, &random(1 << 20))]);
    bench.done(&["backup", "disk.raw"]);
    for state in ["full", "read-only"] {
        let restored = format!("{state}.raw");
        for args in [&["list"][..], &["verify", "latest"], &["restore", "latest", &restored]] {
            let Some(output) = run_on(&bench, state, args) else { return };
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{state}: {args:?}: {said}");
            assert_eq!(said.contains("without a lock"), args[0] != "list", "{state}: {args:?}: {said}");
        }
        assert!(same(&disk, &bench.file(&restored)), "{state}");
        let backup = run_on(&bench, state, &["backup", "disk.raw"]).unwrap();
        assert!(!backup.status.success(), "{state}: what cannot be stored is no backup");
    }
}
