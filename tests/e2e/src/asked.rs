//! Asking for a job as the programs of the original do: the object, then its phase. The driver begins at the phase; what
//! comes without one, as from `kubectl apply`, it leaves alone for some seconds first.

use std::fmt::Debug;

use anyhow::{Context as _, Result};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::DEADLINE;
use crate::world::LOOK;

/// Creates the object and writes phase `New` into its status; returns its name. An API server that is away is asked again: an
/// object has one name, so it is made once. Then its phase may stay unwritten, and the job begins some seconds later.
///
/// # Errors
/// When the API server refuses, or stays away.
pub async fn asked<K>(api: &Api<K>, object: &K) -> Result<String>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let due = tokio::time::Instant::now() + DEADLINE;
    let mut unanswered = false;
    let made = loop {
        match api.create(&PostParams::default(), object).await {
            Ok(made) => break made,
            Err(kube::Error::Api(status)) if unanswered && status.code == 409 => return Ok(object.name_any()),
            Err(error) if !is_away(&error) || tokio::time::Instant::now() > due => return Err(error.into()),
            Err(_) => {
                unanswered = true;
                tokio::time::sleep(LOOK).await;
            }
        }
    };
    let name = made.name_any();
    // what has changed since then has begun by itself
    let version = made.resource_version();
    let new = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": {"phase": "New"}}));
    match api.patch_status(&name, &PatchParams::default(), &new).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(name),
        Err(error) if !is_away(&error) => Err(error).with_context(|| format!("write a phase into {name}")),
        _ => Ok(name),
    }
}

/// Whether nobody has answered, or somebody who could not.
fn is_away(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500 || status.code == 429,
        _ => true,
    }
}
