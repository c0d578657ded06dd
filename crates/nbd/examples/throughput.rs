//! Reads a whole disk to nowhere and prints how fast that was:
//! `cargo run --release -p nbd --example throughput -- URI [MiB per request] [requests in flight]`.

use std::time::Instant;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use nbd::{Client, ConnectOptions};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let uri = arguments.next().context("give an NBD URI")?.parse()?;
    let number = |text: Option<String>, otherwise: u64| text.map_or(Ok(otherwise), |text| text.parse());
    let request = number(arguments.next(), 1)? << 20;
    let in_flight = usize::try_from(number(arguments.next(), 16)?)?;

    let disk = Client::connect(&uri, ConnectOptions::default()).await?;
    let started = Instant::now();
    let starts = (0..disk.size()).step_by(usize::try_from(request)?);
    let reads = starts.map(|at| {
        let (disk, length) = (disk.clone(), request.min(disk.size() - at));
        async move { disk.read(at, usize::try_from(length).unwrap_or(usize::MAX)).await }
    });
    let bytes = stream::iter(reads)
        .buffered(in_flight)
        .try_fold(0u64, |sum, data| async move { Ok(sum + data.len() as u64) })
        .await?;
    let seconds = started.elapsed().as_secs_f64();
    disk.disconnect().await?;
    #[allow(clippy::cast_precision_loss)] // three digits are printed
    let speed = bytes as f64 / seconds / 1e9;
    println!("{bytes} bytes in {seconds:.2} s: {speed:.2} GB/s");
    Ok(())
}
