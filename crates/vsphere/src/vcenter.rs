//! The client's handle, and the questions about the server itself.

use std::sync::Arc;

use crate::config::Config;
use crate::error::{Cause, Error};
use crate::fault::Act;
use crate::pace::Pace;
use crate::session::{Call, Session, Shared};
use crate::transport::{Endpoint, Reply, bad_reply};
use crate::xml::{Element, Request};

/// A client of one vCenter. Clones share the session, the limits and the connections.
#[derive(Debug, Clone)]
pub struct Vcenter {
    pub(crate) shared: Arc<Shared>,
    operation: Option<Arc<str>>,
}

/// What a vCenter says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Such as `8.0.3.0`.
    pub api_version: String,
    /// Identifies the installation; empty where the server does not say.
    pub instance_uuid: String,
}

impl About {
    pub(crate) fn from_element(about: &Element) -> Result<Self, Cause> {
        let api_version =
            about.text_of("apiVersion").ok_or_else(|| bad_reply("the server does not say its API version"))?;
        Ok(Self { api_version, instance_uuid: about.text_of("instanceUuid").unwrap_or_default() })
    }
}

impl Vcenter {
    /// A client for `config`. Connects and logs in at the first call.
    ///
    /// # Errors
    /// When the configuration cannot be used: the host is none, or the CA file holds no certificate.
    pub fn new(config: Config) -> Result<Self, Error> {
        let server = config.server();
        let shared = Shared::new(config).map_err(|cause| Error::new(Act::Login, server, cause))?;
        Ok(Self { shared, operation: None })
    }

    /// The same client, whose calls carry `operation` (a backup's or upload's id) into vCenter's logs.
    pub fn for_operation(&self, operation: impl Into<Arc<str>>) -> Self {
        Self { shared: self.shared.clone(), operation: Some(operation.into()) }
    }

    /// The configuration in use.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// What the server is. Needs no login.
    pub async fn about(&self) -> Result<About, Error> {
        self.shared.about().await.map_err(|cause| Error::new(Act::ReadAbout, self.shared.transport.server(), cause))
    }

    /// SHA-1 thumbprint of the server's certificate as VDDK wants it, `AA:BB:…`, read from a connection whose
    /// certificate was accepted by [`crate::Trust`]. Needs no login.
    pub async fn server_thumbprint(&self) -> Result<String, Error> {
        let Shared { transport, config, .. } = &*self.shared;
        let read = transport.thumbprint(config.deadlines.call).await;
        read.map(|t| t.to_string()).map_err(|cause| Error::new(Act::ReadThumbprint, transport.server(), cause))
    }

    /// Logs in if nobody is, so that wrong credentials show before anything is begun.
    pub async fn log_in(&self) -> Result<(), Error> {
        self.shared
            .ensure_session()
            .await
            .map_err(|cause| Error::new(Act::Login, self.shared.transport.server(), cause))
    }

    /// Ends the session: to be called when the process stops. The next call would log in again.
    pub async fn logout(&self) {
        self.shared.log_out().await;
    }

    pub(crate) async fn call(
        &self,
        endpoint: Endpoint,
        repeatable: bool,
        pace: Option<&Pace>,
        request: impl Fn(&Session) -> Request,
    ) -> Result<Reply, Cause> {
        let call = Call { endpoint, repeatable, operation: self.operation.as_deref(), pace };
        self.shared.call(call, request).await
    }

    /// A read from VSLM, `_this` being the manager of disks.
    pub(crate) async fn read_disks(
        &self,
        method: &'static str,
        pace: Option<&Pace>,
        fill: impl Fn(Request) -> Request,
    ) -> Result<Reply, Cause> {
        self.call(Endpoint::Vslm, true, pace, |session| fill(Request::new(method, session.disks()))).await
    }
}
