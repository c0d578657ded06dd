//! Tokens of service accounts: asked for as a kubelet would, written where a process finds them, renewed in time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};

use crate::facts::write_private;
use crate::processes::Processes;

/// Seconds that a token is good for.
const LIFETIME: i64 = 3600;

/// How long the keeper lets a token be: a third of its life, so that one missed renewal does no harm.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(LIFETIME.unsigned_abs() / 3);

/// A process that speaks as an account, and the file that its token is in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) namespace: String,
    pub(crate) account: String,
    pub(crate) token_file: PathBuf,
}

impl Holder {
    /// Asks for a new token and puts it in place.
    pub(crate) async fn renew(&self, client: &Client) -> Result<()> {
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &self.namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(LIFETIME), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let made = api.create_token_request(&self.account, &PostParams::default(), &request).await;
        let made = made.with_context(|| format!("ask for a token of account {}/{}", self.namespace, self.account))?;
        let token = made.status.context("a token request is answered with a token")?.token;
        write_private(&self.token_file, &token)
    }

    fn file(pod: &Path) -> PathBuf {
        pod.join("account.json")
    }

    pub(crate) fn remember(&self, pod: &Path) -> Result<()> {
        write_private(&Self::file(pod), &serde_json::to_string(self)?)
    }
}

/// Renews the tokens of all processes of a lab; called again and again by the keeper.
pub(crate) async fn renew_all(client: &Client, lab: &Path) -> Result<()> {
    let processes = Processes::new(lab);
    for record in processes.all()? {
        let file = Holder::file(&lab.join("pods").join(&record.name));
        let Ok(text) = std::fs::read_to_string(&file) else { continue }; // it has no account
        let holder: Holder = serde_json::from_str(&text).with_context(|| format!("understand {}", file.display()))?;
        holder.renew(client).await?;
    }
    Ok(())
}
