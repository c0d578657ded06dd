//! Which crate may use which: `docs/architecture.md` says it to people, this table to the build.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What programs may use: every room, never another program.
const ROOMS: &[&str] = &[
    "disk",
    "api",
    "lifecycle",
    "vsphere",
    "nbd",
    "vddk",
    "repository",
    "astrolabe",
    "data-path",
    "operator",
    "connections",
];

/// A crate and those of ours it may use. What only tests use is not counted.
const MAY_USE: &[(&str, &[&str])] = &[
    ("disk", &[]),
    ("api", &["disk"]),
    ("lifecycle", &["api", "disk"]),
    ("vsphere", &["disk"]),
    ("direct", &[]),
    ("nbd", &["disk", "direct"]),
    ("lanes", &[]),
    ("repository", &["disk", "direct", "lanes"]),
    ("astrolabe", &["disk", "repository"]),
    ("vddk", &["nbd", "disk"]),
    ("data-path", &["nbd", "repository", "astrolabe", "disk"]),
    ("operator", &["api"]),
    ("connections", &["api", "disk", "lifecycle", "vsphere", "repository", "astrolabe"]),
    ("backup-driver", ROOMS),
    ("data-manager", ROOMS),
    ("cli", ROOMS),
    ("velero-plugin", &["api", "lifecycle", "operator"]),
    ("xtask", &["api"]),
    ("vddk-stand-in", &[]),
];

/// Crates that hold tests alone, and may use what they test.
const TESTS: &[&str] = &["lab", "e2e"];

/// Fails when a crate uses one that it may not use, or is not in the table.
pub(crate) fn check(root: &Path) -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!("read the workspace: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata = serde_json::from_slice(&output.stdout).context("read cargo's answer")?;
    let complaints = complaints(&uses(&metadata));
    if !complaints.is_empty() {
        bail!("the table of crates is broken:\n  {}", complaints.join("\n  "));
    }
    println!("every crate uses only what it may use");
    Ok(())
}

/// The crates of ours that each of ours is built from.
fn uses(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let ours: Vec<String> = packages().map(|p| text(&p["name"])).collect();
    let built_from = |package: &Value| {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        dependencies.filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).filter(|d| ours.contains(d)).collect()
    };
    packages().map(|p| (text(&p["name"]), built_from(p))).collect()
}

fn complaints(uses: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, used) in uses.iter().filter(|(name, _)| !TESTS.contains(&name.as_str())) {
        let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| known == name) else {
            complaints.push(format!("`{name}` is not in the table of crates/xtask/src/crates.rs"));
            continue;
        };
        let forbidden = used.iter().filter(|u| !allowed.contains(&u.as_str()));
        complaints.extend(forbidden.map(|u| format!("`{name}` may not use `{u}`")));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortcut_between_crates_is_noticed() {
        let metadata = serde_json::json!({"packages": [
            {"name": "disk", "dependencies": [{"name": "serde", "kind": null}]},
            {"name": "data-path", "dependencies": [{"name": "vsphere", "kind": null}, {"name": "api", "kind": "dev"}]},
            {"name": "vsphere", "dependencies": [{"name": "disk", "kind": null}]},
            {"name": "api", "dependencies": []},
            {"name": "attic", "dependencies": []},
            {"name": "e2e", "dependencies": [{"name": "vsphere", "kind": null}]},
        ]});
        let complaints = complaints(&uses(&metadata));
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("attic"));
        assert_eq!(complaints[1], "`data-path` may not use `vsphere`");
    }
}
