//! Kubeconfig files: how programs reach the lab's API server.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::facts::write_private;

/// Who a kubeconfig speaks for.
pub(crate) enum Identity<'a> {
    /// A token that does not change.
    Token(&'a str),
    /// A file whose token is renewed while the lab lives.
    TokenFile(&'a Path),
}

/// Writes a kubeconfig with one cluster, one user and one context.
pub(crate) fn write(file: &Path, server: &str, authority: &Path, namespace: &str, who: &Identity<'_>) -> Result<()> {
    let user = match who {
        Identity::Token(token) => json!({"token": token}),
        Identity::TokenFile(token_file) => json!({"tokenFile": token_file}),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": authority}}],
        "users": [{"name": "lab", "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab", "namespace": namespace}}],
        "current-context": "lab",
    });
    write_private(file, &serde_yaml_ng::to_string(&config)?)
}
