//! The plugin under the real go-plugin library, set up as Velero sets it up, in the versions that Velero has been built
//! with: 1.4.3 (1.13), 1.6.0 (1.14 to 1.18.1) and 1.7.0 (later). The hosts are built from `tests/lab/plugin-host`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::host::Start;
use crate::rehearsal::STATE;
use crate::shipped;

crate::scenes!(
    go_plugin_1_4_3_runs_the_rehearsal,
    go_plugin_1_6_0_runs_the_rehearsal,
    go_plugin_1_7_0_runs_the_rehearsal,
    p02_go_plugin_of_every_velero_lists_the_shipped_program,
);

const VERSIONS: [&str; 3] = ["1.4.3", "1.6.0", "1.7.0"];

/// Until the host has its first answer, in milliseconds: the start, a connection, the list.
const ANSWERED_IN: u64 = 300;
/// From the host's wish until it has seen the end, in milliseconds. A plugin that waits for open streams takes a second.
const GONE_IN: u64 = 500;
/// Runs until one has to be as quick as that: what others take from two cores says nothing about the plugin, while a wait
/// of its own shows in each.
const MOST_RUNS: usize = 30;

/// What a host tells; `tests/lab/plugin-host/main.go` says what the fields are.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    start_millis: u64,
    #[serde(rename = "residentKiB")]
    resident_kib: u64,
    #[serde(rename = "peakKiB")]
    peak_kib: u64,
    plugins: Vec<HashMap<String, String>>,
    calls: HashMap<String, Called>,
    children: u32,
    shutdown_millis: u64,
    exit_code: i32,
    log: Vec<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct Called {
    code: u32,
    message: String,
    details: Option<HashMap<String, String>>,
    texts: Option<HashMap<String, String>>,
    size: usize,
    echoed: bool,
    progress: Option<HashMap<String, String>>,
}

async fn go_plugin_1_4_3_runs_the_rehearsal() -> Result<()> {
    rehearse("1.4.3")
}

async fn go_plugin_1_6_0_runs_the_rehearsal() -> Result<()> {
    rehearse("1.6.0")
}

async fn go_plugin_1_7_0_runs_the_rehearsal() -> Result<()> {
    rehearse("1.7.0")
}

async fn p02_go_plugin_of_every_velero_lists_the_shipped_program() -> Result<()> {
    // P-01: the one file that the image's `install` puts into Velero's folder, as Velero runs it from there
    let folder = tempfile::tempdir()?;
    let installed = Command::new(shipped::program()).arg("install").arg(folder.path()).status()?;
    assert!(installed.success(), "{installed}");
    let program = folder.path().join("velero-plugin-for-vsphere");
    let nowhere = tempfile::tempdir()?;
    for version in VERSIONS {
        let run = || host(version, &[], &program, "--features=EnableCSI --uploader-type=kopia", nowhere.path());
        let report = run()?;
        tell(version, &report);
        expect_good_manners(&report);
        for plugin in &report.plugins {
            assert_eq!(plugin["command"], program.to_string_lossy());
        }
        expect_quick(version, report, run)?;
    }
    Ok(())
}

fn rehearse(version: &str) -> Result<()> {
    let (program, state) = (Start::rehearsal().program, tempfile::tempdir()?);
    let report = host(version, &["-rehearse"], &program, "--log-level debug", state.path())?;
    tell(version, &report);
    expect_good_manners(&report);
    let kinds: Vec<&str> = report.plugins.iter().map(|p| p["kind"].as_str()).collect();
    assert_eq!(kinds, ["BackupItemActionV2", "RestoreItemActionV2", "DeleteItemAction", "VolumeSnapshotter"]);
    expect_answers(&report.calls);
    expect_errors(&report.calls);
    expect_structured_entries(&report.log);
    let later = host(version, &["-follow"], &program, "--log-level debug", state.path())?;
    expect_good_manners(&later);
    expect_followed(&later.calls);
    Ok(())
}

/// Runs it again until one run, `first` counted, was quick at both ends.
fn expect_quick(version: &str, first: Report, run: impl Fn() -> Result<Report>) -> Result<()> {
    let (mut answered, mut gone) = (first.start_millis, first.shutdown_millis);
    for _ in 1..MOST_RUNS {
        if answered < ANSWERED_IN && gone < GONE_IN {
            break;
        }
        let report = run()?;
        (answered, gone) = (answered.min(report.start_millis), gone.min(report.shutdown_millis));
    }
    assert!(answered < ANSWERED_IN, "go-plugin {version}: the first answer took {answered} ms at best");
    assert!(gone < GONE_IN, "go-plugin {version}: the end took {gone} ms at best");
    Ok(())
}

/// P-04, P-05: it is small, goes with 0 before it is killed, and leaves no process behind.
fn expect_good_manners(report: &Report) {
    assert!(report.resident_kib < 30_000_000 / 1_024, "{} KiB", report.resident_kib);
    assert_eq!((report.exit_code, report.children), (0, 0));
    for entry in &report.log {
        let message = entry["@message"].as_str().unwrap_or_default();
        assert!(!message.contains("failed to exit gracefully"), "{entry:?}");
        assert!(!message.contains("unrecognized remote plugin message"), "{entry:?}");
    }
}

fn expect_answers(calls: &HashMap<String, Called>) {
    for name in ["appliesTo", "large", "log", "operate", "finalizing", "restore", "both", "delete", "health"] {
        assert_eq!((calls[name].code, calls[name].message.as_str()), (0, ""), "{name}");
    }
    let text = |call: &str, field: &str| text(&calls[call], field);
    assert!(calls["large"].echoed && calls["large"].size > 12 << 20, "P-06: {} bytes", calls["large"].size);
    assert!(calls["log"].echoed, "P-10");
    assert_eq!(text("operate", "3").as_deref(), Some("app.part"));
    assert_eq!(text("restore", "3").as_deref(), Some("1"), "skipRestore");
    assert!(calls["restore"].echoed, "P-10: also of a skipped item");
    assert_eq!(text("health", "1").as_deref(), Some("1"));
    assert_eq!(text("finalizing", "3"), None, "P-12: no operation while the backup is finalizing");
    let (both, waits) = (text("both", "1").unwrap_or_default(), text("both", "5"));
    assert!(
        both.contains(r#""example.io/was":"part""#),
        "P-13: what to do stands in the item as it was backed up: {both}"
    );
    assert_eq!(waits.as_deref(), Some("1"), "P-13: its wishes arrive");
    expect_runs(&calls["lost"], "not known at the moment");
}

fn text(call: &Called, field: &str) -> Option<String> {
    call.texts.as_ref().and_then(|texts| texts.get(field).cloned())
}

/// P-03: another process knows the operation, and cancels it.
fn expect_followed(calls: &HashMap<String, Called>) {
    expect_runs(&calls["progress"], "under way");
    assert_eq!((calls["cancel"].code, calls["cancel"].message.as_str()), (0, ""));
    let ended = calls["cancelled"].progress.as_ref().expect("P-16");
    assert_eq!((ended["1"].as_str(), ended["2"].as_str()), ("1", "it was cancelled; start another backup"));
}

/// P-15, P-16: an operation that goes on, with all that the server reads of it.
fn expect_runs(call: &Called, description: &str) {
    let progress = call.progress.as_ref().expect("P-16");
    assert!(progress["6"].starts_with(description), "P-15: {progress:?}");
    assert!(progress.contains_key("7") && progress.contains_key("8"), "P-16: {progress:?}");
    assert!(!progress.contains_key("1") && !progress.contains_key("2"), "it goes on: {progress:?}");
}

fn expect_errors(calls: &HashMap<String, Called>) {
    let (panic, fail, stranger) = (&calls["panic"], &calls["fail"], &calls["stranger"]);
    let undeleted = &calls["undeleted"];
    assert_eq!((undeleted.code, undeleted.message.as_str()), (2, "the duty could not be written down"), "P-14");
    assert_eq!((panic.code, panic.message.as_str()), (10, "plugin panicked: the action tripped over part"));
    assert_eq!((fail.code, fail.message.as_str()), (2, "read the disk: No such file or directory (os error 2)"));
    let details = fail.details.as_ref().expect("an error has details");
    assert!(details.contains_key("type.googleapis.com/generated.Stack"), "{details:?}");
    assert_eq!(stranger.code, 2);
    assert!(stranger.message.contains("example.io/stranger was not found"), "{}", stranger.message);
}

/// P-07, P-08, P-09: what reached go-plugin as a line of ours is an entry of its own, with its level and strings only.
fn expect_structured_entries(log: &[Map<String, Value>]) {
    let of_plugin: Vec<_> = log.iter().filter(|e| e.contains_key("@logSourceSetBy")).collect();
    let levels = |message: &str| -> Vec<&str> {
        let found = of_plugin.iter().filter(|e| e["@message"] == message);
        found.filter_map(|e| e["@level"].as_str()).collect()
    };
    assert_eq!(levels("numbers"), ["info"]);
    assert_eq!(levels("coped"), ["warn"]);
    assert_eq!(levels("two\nlines"), ["error"]);
    assert_eq!(levels("quiet"), ["debug"]);
    assert_eq!(levels("failed with status 503"), ["info"]);
    assert_eq!(levels("plugin panicked: the action tripped over part"), ["error"]);
    for field in ["namespace", "resource", "name", "action", "logSource"] {
        assert!(of_plugin.iter().all(|e| e.get(field).is_none_or(Value::is_string)), "{field}");
    }
    assert!(log.iter().all(|e| !e["@message"].as_str().unwrap_or_default().contains("@level")), "a raw line");
}

/// Runs a plugin under a host and reads what it saw. `state` outlives the plugin's process.
fn host(version: &str, flags: &[&str], plugin: &Path, arguments: &str, state: &Path) -> Result<Report> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let program = lab::peer(&format!("plugin-host-{version}"))?.build(&root)?;
    let output = Command::new(program)
        .args(flags)
        .arg(plugin)
        .args(arguments.split_whitespace())
        .env(STATE, state)
        .env_remove("KUBECONFIG")
        .output()
        .context("run the host")?;
    if !output.status.success() {
        bail!("the host of go-plugin {version} said: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("read the host's report")
}

fn tell(version: &str, report: &Report) {
    eprintln!(
        "go-plugin {version}: first answer after {} ms, resident {} KiB then and {} KiB at most, gone after {} ms, {} plugins",
        report.start_millis,
        report.resident_kib,
        report.peak_kib,
        report.shutdown_millis,
        report.plugins.len(),
    );
}
