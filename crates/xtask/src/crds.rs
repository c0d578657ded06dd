//! The custom resource definitions as files: for `kubectl apply`, and for the chart.

use anyhow::{Context, Result};

use crate::files::Files;

/// The chart renders these as templates, since helm never upgrades what lies in a chart's `crds` folder.
pub(crate) const CHART_FOLDER: &str = "charts/velero-plugin-for-vsphere/files/crds";

/// One file a kind, twice.
pub(crate) fn add(files: &mut Files) -> Result<()> {
    for definition in api::crd::all() {
        let name = definition.metadata.name.clone().context("name a definition")?;
        let yaml = serde_yaml_ng::to_string(&definition).with_context(|| format!("write {name} as YAML"))?;
        let text = format!("# Made from crates/api by `cargo xtask generate`.\n{yaml}");
        files.add(format!("deploy/crds/{name}.yaml"), text.clone());
        files.add(format!("{CHART_FOLDER}/{name}.yaml"), text);
    }
    Ok(())
}
