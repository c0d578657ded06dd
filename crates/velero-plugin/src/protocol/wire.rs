//! What `build.rs` makes of `proto/`: messages, and both ends of every service.
#![allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all)]

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
