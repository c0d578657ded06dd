//! `backup-driver server`: see the crate's documentation.

use clap::Parser;

use backup_driver::arguments::{Arguments, Command};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Server(server) => backup_driver::server::run(server).await,
    }
}
