//! What go-plugin asks of every plugin: to say that it is well, to have a standard output, and to end.

use futures::{FutureExt, StreamExt, stream};
use tonic::{Request, Response, Status};

use super::{Housekeeping, Messages};
use crate::protocol::wire::health::health_check_response::ServingStatus;
use crate::protocol::wire::health::health_server::Health;
use crate::protocol::wire::health::{HealthCheckRequest, HealthCheckResponse};
use crate::protocol::wire::plugin::grpc_controller_server::GrpcController;
use crate::protocol::wire::plugin::grpc_stdio_server::GrpcStdio;
use crate::protocol::wire::plugin::{Empty, StdioData};

/// The name under which go-plugin asks whether a plugin is well.
const SERVICE: &str = "plugin";

impl Housekeeping {
    /// A stream that says nothing until the end.
    fn silence<T: Send + 'static>(&self) -> impl futures::Stream<Item = T> + Send + 'static {
        self.0.clone().cancelled_owned().into_stream().filter_map(|()| async { None })
    }
}

#[tonic::async_trait]
impl GrpcController for Housekeeping {
    /// Ends the process once this answer is on its way. Without it the server waits two seconds and kills us.
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.0.cancel();
        Ok(Response::new(Empty {}))
    }
}

#[tonic::async_trait]
impl GrpcStdio for Housekeeping {
    type StreamStdioStream = Messages<StdioData>;

    /// Open and silent: our log goes to the real stderr, and nothing goes to stdout.
    async fn stream_stdio(&self, _: Request<()>) -> Result<Response<Self::StreamStdioStream>, Status> {
        Ok(Response::new(Box::pin(self.silence())))
    }
}

#[tonic::async_trait]
impl Health for Housekeeping {
    type WatchStream = Messages<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match serves(&request.get_ref().service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("there is no such service")),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let status = HealthCheckResponse { status: serves(&request.get_ref().service).into() };
        let then = self.silence::<Result<HealthCheckResponse, Status>>();
        Ok(Response::new(Box::pin(stream::iter([Ok(status)]).chain(then))))
    }
}

fn serves(service: &str) -> ServingStatus {
    match service {
        "" | SERVICE => ServingStatus::Serving,
        _ => ServingStatus::ServiceUnknown,
    }
}
