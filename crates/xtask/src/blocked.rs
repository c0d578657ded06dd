//! The default list of blocked resources as a ConfigMap, for those who want another list: made once, theirs from then on.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::files::Files;

/// The list, one entry a line.
const LIST: &str = "crates/lifecycle/src/velero/blocked.txt";
const HEAD: &str = "# Resources that backups and restores refuse; made from crates/lifecycle by `cargo xtask generate`. Without this ConfigMap
# the same list counts. With it, it is the whole list and yours: set entries to \"false\", take them out or add others.
# Make it with `kubectl create`, which leaves alone one that is there; `kubectl apply` would undo your changes.
";

/// One file.
pub(crate) fn add(root: &Path, files: &mut Files) -> Result<()> {
    let list = fs::read_to_string(root.join(LIST)).with_context(|| format!("read {LIST}"))?;
    let mut text = format!(
        "{HEAD}apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {}\n  namespace: velero\ndata:\n",
        api::names::BLOCKED_RESOURCES
    );
    for entry in list.lines() {
        writeln!(text, "  {entry}: \"true\"")?;
    }
    files.add("deploy/blocked-resources.yaml", text);
    Ok(())
}
