//! Serves the open disk: the server on its own threads, the library on this one.

use std::os::unix::net::UnixListener;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use disk::{ByteRange, Ranges};
use nbd::server::ServeOptions;
use nbd::{Allocation, Fua, Kind};
use vddk::Access;
use vddk::address::Address;
use vddk::order::{Message, Order};

use crate::api::Failed;
use crate::disk::Disk;
use crate::export::{Job, Served};
use crate::watch::{Watch, emit};

/// Requests in flight need this much memory per connection, in bytes.
const MEMORY_PER_CONNECTION: u32 = 16 << 20;

/// Serves until the watch says stop. The message is for the parent.
pub(crate) fn serve(disk: &Disk<'_>, order: &Order, watch: &'static Watch) -> Result<(), Message> {
    let failed = |error: std::io::Error| Message::Error { function: "listen".into(), code: 0, text: error.to_string() };
    let address = Address::of(&order.socket).map_err(failed)?;
    let listener = UnixListener::bind(address.path()).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let (jobs, queue) = mpsc::channel();
    let export = Served {
        size: disk.size,
        read_only: order.access == Access::Read,
        knows_allocation: disk.knows_allocation,
        jobs: jobs.clone(),
    };
    let (name, drain) = (order.export.clone(), Duration::from_millis(order.stop_deadline_ms / 2));
    let server = std::thread::Builder::new().name("nbd".into()).spawn(move || {
        let ended = run_server(listener, export, &name, drain, watch);
        if let Err(error) = ended {
            eprintln!("the NBD server ended: {error}");
        }
        watch.request_stop();
        let _ = jobs.send(Job::Stop);
    });
    server.map_err(failed)?;
    emit(&Message::Ready { transport: disk.transport.clone(), size: disk.size });
    for job in queue {
        if matches!(job, Job::Stop) {
            break;
        }
        work(disk, job);
    }
    Ok(())
}

fn run_server(
    listener: UnixListener,
    export: Served,
    name: &str,
    drain_deadline: Duration,
    watch: &Watch,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let options = ServeOptions {
        connections: 8,
        memory_per_connection: MEMORY_PER_CONNECTION,
        drain_deadline,
        ..ServeOptions::default()
    };
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        nbd::server::serve_with(listener, Arc::new(export), name, watch.stop.clone(), options).await
    })
}

/// A client that is gone does not want its answer.
fn work(disk: &Disk<'_>, job: Job) {
    match job {
        Job::Read { offset, length, reply } => {
            if !reply.is_closed() {
                disk.answer_read(offset, length, reply);
            }
        }
        Job::Write { offset, data, fua, reply } => {
            let written = disk.write(offset, &data);
            let _ = reply.send(if fua == Fua::Yes { written.and_then(|()| disk.flush()) } else { written });
        }
        Job::Flush { reply } => drop(reply.send(disk.flush())),
        Job::Status { range, reply } => drop(reply.send(status(disk, range))),
        Job::Stop => {}
    }
}

/// What lies between allocated blocks reads as zeroes.
fn status(disk: &Disk<'_>, range: ByteRange) -> Result<Vec<Allocation>, Failed> {
    let Some((blocks, valid_to)) = disk.allocated(range.offset, range.length)? else {
        return Ok(vec![Allocation { range, kind: Kind::Data }]);
    };
    let known = ByteRange::between(range.offset, range.end().min(valid_to));
    let data: Ranges = blocks
        .iter()
        .map(|block| ByteRange::between(block.offset, block.offset.saturating_add(block.length)))
        .collect();
    let holes = data.complement_in(known);
    let of = |ranges: &Ranges, kind| {
        let parts = ranges.iter().map(|part| part.intersection(&known)).filter(|part| !part.is_empty());
        parts.map(|range| Allocation { range, kind }).collect::<Vec<_>>()
    };
    let mut extents = of(&data, Kind::Data);
    extents.extend(of(&holes, Kind::Hole));
    extents.sort_by_key(|extent| extent.range.offset);
    Ok(extents)
}
