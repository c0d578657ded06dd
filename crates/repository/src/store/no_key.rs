//! Why there is no key to sign a request with, in one line: the SDK's own words can fill a page.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::error::ErrorMetadata;

/// Longest that the SDK's words may be, in characters. `RUST_LOG=aws_config=debug` shows all of them.
const LONGEST: usize = 240;

/// A request that was not sent since there is no key to the bucket: the source of such an [`Error`](super::Error).
#[derive(Debug, thiserror::Error)]
#[error("there is no key to the bucket to sign the request with: {why}")]
pub struct NoKey {
    why: String,
    /// Whoever gives the keys could not be reached: nobody has refused any.
    pub(super) is_silent: bool,
}

impl NoKey {
    /// Looks for it along the causes of what kept a request from being sent.
    pub(super) fn of(error: Option<&(impl StdError + 'static)>) -> Option<Self> {
        let first = error.map(|error| error as &(dyn StdError + 'static));
        let mut causes = std::iter::successors(first, |&error| error.source());
        let error = causes.find_map(|error| error.downcast_ref::<CredentialsError>())?;
        let given = |name: &str| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
        // the second name of the secret is one of the SDK's
        let secret = given("AWS_SECRET_ACCESS_KEY") || given("SECRET_ACCESS_KEY");
        Some(Self { why: why(error, given("AWS_ACCESS_KEY_ID"), secret), is_silent: is_silent(error) })
    }
}

/// Where nothing was configured, or half a pair in the environment, the SDK goes through all places; else one place failed.
fn why(error: &CredentialsError, id: bool, secret: bool) -> String {
    match (error, id, secret) {
        (CredentialsError::CredentialsNotLoaded(_), true, false) => {
            "the environment sets AWS_ACCESS_KEY_ID without AWS_SECRET_ACCESS_KEY".to_owned()
        }
        (CredentialsError::CredentialsNotLoaded(_), false, true) => {
            "the environment sets AWS_SECRET_ACCESS_KEY without AWS_ACCESS_KEY_ID".to_owned()
        }
        (CredentialsError::CredentialsNotLoaded(_), ..) => {
            "neither the environment, a profile nor this machine's role gives one".to_owned()
        }
        _ => told(error),
    }
}

/// Whether whoever gives keys, as AWS' token service does, gave no answer.
fn is_silent(error: &CredentialsError) -> bool {
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    let no_line = |cause: &(dyn StdError + 'static)| {
        cause.downcast_ref::<ConnectorError>().is_some_and(|error| error.is_io() || error.is_timeout())
    };
    match error {
        CredentialsError::CredentialsNotLoaded(_) => false, // nobody was configured who could be silent
        CredentialsError::ProviderTimedOut(_) => true,
        _ => causes.any(no_line),
    }
}

/// The first line of each cause. What follows it may be what was signed, with a session's token in it.
fn told(error: &CredentialsError) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let said = causes.map(first_line).fold(String::new(), |text, cause| {
        let idle = cause.is_empty() || cause == "service error" || cause.starts_with("unhandled error");
        match (idle || text.contains(&cause), text.is_empty()) {
            (true, _) => text,
            (false, true) => cause,
            (false, false) => format!("{text}: {cause}"),
        }
    });
    let said = if said.is_empty() { error.to_string() } else { said };
    said.chars().take(LONGEST).collect()
}

fn first_line(cause: &(dyn StdError + 'static)) -> String {
    let text = match cause.downcast_ref::<ErrorMetadata>() {
        Some(answer) => [answer.code(), answer.message()].into_iter().flatten().collect::<Vec<_>>().join(": "),
        None => cause.to_string(),
    };
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn who_configured_nothing_is_told_apart_from_whose_login_has_expired() {
        let nothing = CredentialsError::not_loaded("no credentials found in chain. Attempted:\n  Environment: …");
        assert!(why(&nothing, false, false).starts_with("neither the environment"));
        assert!(
            why(&nothing, true, true).starts_with("neither the environment"),
            "both are there and nobody took them"
        );
        assert!(why(&nothing, true, false).ends_with("without AWS_SECRET_ACCESS_KEY"));
        assert!(why(&nothing, false, true).ends_with("without AWS_ACCESS_KEY_ID"));

        let expired = CredentialsError::provider_error("the SSO session has expired");
        let half = CredentialsError::invalid_configuration("profile missing aws_secret_access_key");
        let answer = ErrorMetadata::builder().code("AccessDenied").message("user/x may not assume role/y").build();
        let refused = CredentialsError::provider_error(answer);
        let late = CredentialsError::provider_timed_out(std::time::Duration::from_secs(5));
        let cases = [
            (expired, "the SSO session has expired"),
            (half, "profile missing aws_secret_access_key"),
            (refused, "AccessDenied: user/x may not assume role/y"),
            (late, "credentials provider timed out after 5 seconds"),
        ];
        for (error, said) in cases {
            assert_eq!(why(&error, false, false), said);
            assert_eq!(why(&error, true, false), said, "what failed counts more than what is not there");
        }
    }

    /// Who is told that a key was refused looks for another key.
    #[test]
    fn who_gives_keys_and_is_away_has_refused_none() {
        let refused = ErrorMetadata::builder().code("AccessDenied").message("you may not").build();
        let cases = [
            (CredentialsError::provider_error(ConnectorError::io("connection refused".into())), true),
            (CredentialsError::provider_error(ConnectorError::timeout("no answer".into())), true),
            (CredentialsError::provider_timed_out(std::time::Duration::from_secs(5)), true),
            (CredentialsError::provider_error(refused), false),
            (CredentialsError::not_loaded(ConnectorError::io("no such host".into())), false),
            (CredentialsError::invalid_configuration("profile missing aws_secret_access_key"), false),
        ];
        for (error, silent) in cases {
            assert_eq!(is_silent(&error), silent, "{error:?}");
        }
    }

    #[test]
    fn no_token_that_an_answer_repeats_is_told_and_no_page() {
        let answer = "the signature does not match\nx-amz-security-token:pw12345";
        let message = ErrorMetadata::builder().code("SignatureDoesNotMatch").message(answer).build();
        for error in [CredentialsError::provider_error(message), CredentialsError::unhandled(answer)] {
            let said = told(&error);
            assert!(said.ends_with("the signature does not match") && !said.contains("pw12345"), "{said}");
        }
        let page = CredentialsError::provider_error("é".repeat(10_000));
        assert_eq!(told(&page).chars().count(), LONGEST);
    }

    #[test]
    fn a_key_that_is_not_there_is_found_below_what_kept_the_request() {
        let inner = ConnectorError::other(CredentialsError::not_loaded_no_source().into(), None);
        let outer = ConnectorError::other(inner.into(), None);
        assert!(NoKey::of(Some(&outer)).unwrap().to_string().starts_with("there is no key to the bucket"));
        assert!(NoKey::of(Some(&ConnectorError::io("connection refused".into()))).is_none());
        assert!(NoKey::of(None::<&ConnectorError>).is_none());
    }
}
