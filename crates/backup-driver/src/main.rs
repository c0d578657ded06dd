//! `backup-driver server`: see the crate's documentation.

use clap::Parser;

use backup_driver::arguments::{Arguments, Command};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse_from(operator::without_klog_flags(std::env::args_os())).command {
        Command::Server(server) => backup_driver::server::run(server).await,
    }
}
