//! Asking for a job as the programs of the original do: the object, then its phase. The driver begins at the phase; what
//! comes without one, as from `kubectl apply`, it leaves alone for some seconds first.

use std::fmt::Debug;

use anyhow::{Context as _, Result};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Creates the object and writes phase `New` into its status; returns its name.
///
/// # Errors
/// When the API server refuses.
pub async fn asked<K>(api: &Api<K>, object: &K) -> Result<String>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let name = api.create(&PostParams::default(), object).await?.name_any();
    let new = Patch::Merge(json!({"status": {"phase": "New"}}));
    api.patch_status(&name, &PatchParams::default(), &new)
        .await
        .with_context(|| format!("write a phase into {name}"))?;
    Ok(name)
}
