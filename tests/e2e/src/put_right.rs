//! What a scenario has put wrong for those after it, and puts right however it ended.

use std::fmt::Debug;

use anyhow::Result;
use kube::Api;
use kube::api::DeleteParams;
use serde::de::DeserializeOwned;

/// How a scenario ended, once all is put right again: each act was done, whatever became of the others, and the first error counts,
/// that of the scenario before theirs. The others are printed.
///
/// # Errors
/// The first one.
pub fn put_right<T>(mut outcome: Result<T>, acts: impl IntoIterator<Item = Result<()>>) -> Result<T> {
    for error in acts.into_iter().filter_map(Result::err) {
        let error = error.context("put right what the scenario has put wrong");
        if outcome.is_ok() {
            outcome = Err(error);
        } else {
            eprintln!("{error:?}");
        }
    }
    outcome
}

/// Deletes an object that a scenario may or may not have come to make.
///
/// # Errors
/// When the API server refuses.
pub async fn delete_if_there<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => Ok(deleted.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn fails(why: &'static str) -> Result<()> {
        bail!(why)
    }

    #[test]
    fn the_first_error_counts_and_a_good_end_keeps_its_value() {
        let cases = [
            ("all went well", Ok(1), vec![Ok(()), Ok(())], "1"),
            ("the scenario failed", Err("it failed"), vec![Ok(())], "it failed"),
            ("both failed", Err("it failed"), vec![fails("one"), fails("two")], "it failed"),
            (
                "two acts failed",
                Ok(1),
                vec![Ok(()), fails("one"), fails("two")],
                "put right what the scenario has put wrong: one",
            ),
        ];
        for (situation, outcome, acts, want) in cases {
            let ended = put_right(outcome.map_err(anyhow::Error::msg), acts);
            let told = ended.map_or_else(|error| format!("{error:#}"), |value: u8| value.to_string());
            assert_eq!(told, want, "{situation}");
        }
    }
}
