//! The file of keys to a bucket, as somebody wrote it into a Secret. The first line is the profile that is asked for.
#![no_main]

// without the rest of its crate, which is about Kubernetes and would be built with instrumentation for this one file
#[path = "../../../crates/connections/src/credentials.rs"]
mod credentials;

use libfuzzer_sys::fuzz_target;
use repository::Credentials;
use secrecy::ExposeSecret as _;

/// A key that stands in no other place.
const KEY: &str = "hunter2-of-this-target";

fuzz_target!(|text: &str| {
    let (profile, file) = text.split_once('\n').unwrap_or(("default", text));
    match credentials::parse(file, profile) {
        Ok(Credentials::Given { id, secret, token }) => {
            let token = token.as_ref().map(|token| token.expose_secret());
            for key in [id.as_str(), secret.expose_secret()].into_iter().chain(token) {
                assert!(!key.is_empty() && key == key.trim() && file.contains(key), "a key is what stands there");
            }
        }
        Ok(Credentials::Environment) => panic!("keys that are not of the file"),
        Err(why) => assert!(why.contains("section ["), "{why}"),
    }
    if text.contains(KEY) {
        return;
    }
    for line in [
        format!("aws_secret_access_key={KEY}"),
        format!("aws_secret_access_key: {KEY}"),
        format!("{KEY} = x"),
        KEY.to_owned(),
    ] {
        let Err(why) = credentials::parse(&format!("{file}\n{line}\n"), profile) else { continue };
        assert!(!why.contains(KEY), "a mistake is told without the key");
    }
});
