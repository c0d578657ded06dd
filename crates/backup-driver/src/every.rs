//! A look that is taken every so often: what all sweeps are. It says nothing of what is looked for.

use std::time::Duration;

use lifecycle::Problem;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Looks at once and then after each `pause`, until `stop`, which also ends a look under way. A look that failed is logged with
/// `missed`, which says what was not done, and is taken again after the pause.
pub(crate) async fn every(
    pause: Duration,
    stop: &CancellationToken,
    missed: &str,
    mut look: impl AsyncFnMut() -> Result<(), Error>,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // on the heap: all sweeps together are one future, which the compiler has to measure
            looked = Box::pin(look()) => if let Err(error) = looked {
                tracing::warn!(error = Problem::chain(&error), "{missed}");
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
