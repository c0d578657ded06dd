//! `datamgr server`: see the library.

use clap::Parser as _;
use data_manager::Command;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse_from(operator::without_klog_flags(std::env::args_os())) {
        Command::Server(config) => data_manager::server::run(config).await,
    }
}
