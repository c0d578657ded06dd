//! `datamgr server`: see the library.

use clap::Parser as _;
use data_manager::Command;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Server(config) => data_manager::server::run(config).await,
    }
}
