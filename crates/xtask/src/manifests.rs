//! The chart's default rendering, one file for each template, as real helm makes it.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::files::Files;

const CHART: &str = "velero-plugin-for-vsphere";
const FOLDER: &str = "deploy/manifests";
const HEAD: &str =
    "# The chart's default rendering, made by `cargo xtask generate-manifests`. CRDs are in deploy/crds.\n";

/// Renders the chart; CRDs are left out because `deploy/crds` holds them already.
pub(crate) fn render(root: &Path) -> Result<Files> {
    let helm = env::var("HELM").unwrap_or_else(|_| "helm".to_owned());
    let output = Command::new(&helm)
        .args(["template", CHART, &format!("charts/{CHART}"), "--namespace", "velero", "--set", "crds.install=false"])
        .current_dir(root)
        .output()
        .with_context(|| format!("run `{helm}`; HELM may name another program"))?;
    if !output.status.success() {
        bail!("render the chart: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut files = split(&String::from_utf8(output.stdout).context("read the rendering as text")?)?;
    files.also_check_folder(root, FOLDER)?;
    Ok(files)
}

/// Sorts the documents of a rendering by the template they came from.
fn split(rendering: &str) -> Result<Files> {
    let mut files = Files::default();
    for document in rendering.split("---\n").filter(|d| !d.trim().is_empty()) {
        let (source, text) = document.split_once('\n').context("find the line that names the template")?;
        let template = source.rsplit('/').next().unwrap_or_default();
        if !source.starts_with("# Source: ") || !template.ends_with(".yaml") {
            bail!("a document of the rendering does not say which template it is from: {source}");
        }
        files.append(format!("{FOLDER}/{template}"), &format!("---\n{}\n", text.trim_end()));
    }
    files.prepend_to_all(HEAD);
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may fail where it stands

    use super::*;

    #[test]
    fn documents_of_one_template_end_in_one_file() {
        let rendering = "---\n# Source: c/templates/a.yaml\nkind: A\n---\n# Source: c/templates/b.yaml\nkind: B\n\
                         ---\n# Source: c/templates/a.yaml\nkind: C\n";
        let files = split(rendering).unwrap();
        let root = tempfile::tempdir().unwrap();
        files.write(root.path()).unwrap();
        let a = std::fs::read_to_string(root.path().join("deploy/manifests/a.yaml")).unwrap();
        assert!(a.starts_with(HEAD));
        assert!(a.ends_with("---\nkind: A\n---\nkind: C\n"), "{a}");
        assert!(split("kind: A\n").is_err());
    }
}
