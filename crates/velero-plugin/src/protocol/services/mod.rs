//! The gRPC services: go-plugin's own, Velero's list, and one for each kind of action.

mod backup;
mod delete;
mod housekeeping;
mod lister;
mod restore;
mod snapshotter;

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::server::Router;

use super::registry::Registry;
use super::wire::generated::delete_item_action_server::DeleteItemActionServer;
use super::wire::generated::plugin_lister_server::PluginListerServer;
use super::wire::generated::volume_snapshotter_server::VolumeSnapshotterServer;
use super::wire::health::health_server::HealthServer;
use super::wire::plugin::grpc_controller_server::GrpcControllerServer;
use super::wire::plugin::grpc_stdio_server::GrpcStdioServer;
use super::wire::v2::backup_item_action_server::BackupItemActionServer;
use super::wire::v2::restore_item_action_server::RestoreItemActionServer;

/// An answer of many messages.
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The actions, for the services of their kinds.
struct Actions(Arc<Registry>);

/// The housekeeping of go-plugin: health, standard output and the end.
struct Housekeeping(CancellationToken);

/// Every service, with tonic's limits on messages lifted: an item may be of many MiB, and 4 is the default (P-06).
pub(super) fn all(registry: Registry, command: String, stop: &CancellationToken) -> Router {
    let registry = Arc::new(registry);
    macro_rules! unlimited {
        ($server:ident, $service:expr) => {
            $server::new($service).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
        };
    }
    tonic::transport::Server::builder()
        .add_service(unlimited!(PluginListerServer, lister::Lister::new(command, &registry)))
        .add_service(unlimited!(BackupItemActionServer, Actions(registry.clone())))
        .add_service(unlimited!(RestoreItemActionServer, Actions(registry.clone())))
        .add_service(unlimited!(DeleteItemActionServer, Actions(registry.clone())))
        .add_service(unlimited!(VolumeSnapshotterServer, Actions(registry)))
        .add_service(unlimited!(GrpcControllerServer, Housekeeping(stop.clone())))
        .add_service(unlimited!(GrpcStdioServer, Housekeeping(stop.clone())))
        .add_service(unlimited!(HealthServer, Housekeeping(stop.clone())))
}
