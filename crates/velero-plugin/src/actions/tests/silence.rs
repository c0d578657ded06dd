//! A driver that does not answer.

use std::time::{Duration, Instant};

use super::{AT_THE_LATEST, reads, with_location};
use crate::actions::patience::Patience;
use crate::actions::reads::Reads;
use crate::actions::repositories;
use crate::protocol::kinds::ActionError;

const LONG: Duration = Duration::from_secs(3);
const SHORT: Duration = Duration::from_millis(500);

/// Asks for the repository of that namespace, and for how long.
async fn asked(reads: &Reads, namespace: &str) -> (Result<String, ActionError>, Duration) {
    let begun = Instant::now();
    let asking = tokio::time::timeout(AT_THE_LATEST, reads.repository_at(Some("default"), namespace));
    (asking.await.expect("the backup waits for ever"), begun.elapsed())
}

#[tokio::test]
async fn a_driver_that_was_silent_costs_the_next_claim_less_until_it_answers() {
    let server = with_location();
    let reads = reads(&server, Patience::new(LONG, SHORT));
    for (namespace, silent_for) in [("shop", LONG..AT_THE_LATEST), ("bank", SHORT..LONG), ("farm", SHORT..LONG)] {
        let (answer, took) = asked(&reads, namespace).await;
        let why = answer.unwrap_err();
        assert!(why.message().contains("DriverSilent"), "{why}");
        assert!(silent_for.contains(&took), "{namespace} waited {took:?}, not {silent_for:?}");
    }
    server.driver_answers("br-1");
    assert_eq!(asked(&reads, "mill").await.0.unwrap(), "br-1");
    assert_eq!(reads.patience.lasts(), LONG, "it is there again");
}

#[tokio::test]
async fn a_driver_has_two_minutes_and_after_silence_five_seconds() {
    let patience = repositories::patience();
    assert_eq!(patience.lasts(), Duration::from_secs(120));
    patience.ran_out();
    assert_eq!(patience.lasts(), Duration::from_secs(5));
}
