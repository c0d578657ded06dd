//! Compiles `proto/` without protoc: docs/decisions says why.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 5] = ["generated.proto", "v2.proto", "go_plugin.proto", "health.proto", "status.proto"];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
