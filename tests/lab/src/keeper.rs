//! The keeper: a small process that renews the tokens of our programs while a lab lives. Starts and restarts nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::Lab;
use crate::Place;
use crate::cluster::accounts::{RENEW_EVERY, renew_all};

/// Name of the keeper among the processes of a lab.
pub(crate) const NAME: &str = "keeper";

/// Renews tokens until it is ended, or the lab's folder is gone.
///
/// # Errors
/// When the lab cannot be read.
pub async fn keep(place: Place) -> Result<()> {
    while exists(&place.folder) {
        tokio::time::sleep(RENEW_EVERY).await;
        if let Err(error) = renew(&place).await {
            eprintln!("keeper: {error:#}; trying again in a minute");
            tokio::time::sleep(Duration::from_secs(60)).await;
            if let Err(error) = renew(&place).await {
                eprintln!("keeper: {error:#}; trying again with the next renewal");
            }
        }
    }
    Ok(())
}

async fn renew(place: &Place) -> Result<()> {
    renew_all(Lab::open(place.clone()).await?.client(), &place.folder).await
}

fn exists(folder: &Path) -> bool {
    folder.join("lab.json").is_file()
}
