//! Reading Secrets by name, the only way our accounts may.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use lifecycle::Problem;
use secrecy::SecretString;

use crate::from_kube;

/// A Secret by name; `None` when there is none.
pub(crate) async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, Problem> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    secrets.get_opt(name).await.map_err(|e| from_kube(&format!("read Secret {namespace}/{name}"), &e))
}

/// A key of a Secret as text.
pub(crate) fn text(secret: &Secret, key: &str) -> Option<SecretString> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok().map(SecretString::from)
}
