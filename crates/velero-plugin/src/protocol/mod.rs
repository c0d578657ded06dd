//! How Velero talks to an executable of plugins: hashicorp's go-plugin, gRPC over a unix socket, and a log on stderr.

pub mod kinds;
mod registry;

pub use registry::{Action, Registry, RegistryError};

/// What `build.rs` made of `proto/`.
#[allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    clippy::wildcard_imports,
    clippy::semicolon_if_nothing_returned
)]
pub mod wire {
    pub mod generated {
        tonic::include_proto!("generated");
    }
    pub mod v2 {
        tonic::include_proto!("v2");
    }
    pub mod plugin {
        tonic::include_proto!("plugin");
    }
    pub mod health {
        tonic::include_proto!("grpc.health.v1");
    }
    pub mod status {
        tonic::include_proto!("google.rpc");
    }
}
