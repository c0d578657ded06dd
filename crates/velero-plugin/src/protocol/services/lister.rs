//! `generated.PluginLister`: what this executable holds.

use tonic::{Request, Response, Status};

use crate::protocol::registry::Registry;
use crate::protocol::wire::generated::plugin_lister_server::PluginLister;
use crate::protocol::wire::generated::{Empty, ListPluginsResponse, PluginIdentifier};

/// The list, made once.
pub(super) struct Lister(ListPluginsResponse);

impl Lister {
    /// `command` is our name as the server started us: it is what it will start again.
    pub(super) fn new(command: String, registry: &Registry) -> Self {
        let identifier = |(kind, name): (&'static str, &str)| PluginIdentifier {
            command: command.clone(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        Self(ListPluginsResponse { plugins: registry.list().map(identifier).collect() })
    }
}

#[tonic::async_trait]
impl PluginLister for Lister {
    async fn list_plugins(&self, _: Request<Empty>) -> Result<Response<ListPluginsResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }
}
