//! Parameters of a repository that are not followed as they are written: names that nobody reads, and flags that are none.
//!
//! They stay accepted, as with the original, which passes over what it does not know; so nobody would see them. What can be used is for
//! [`RepositoryParameters::from_map`](api::parameters::RepositoryParameters::from_map) to say.

use std::collections::BTreeMap;

use api::parameters::{ParametersError, key};

use crate::flag;
use crate::near::{near, shown};

/// Every parameter that is read.
const KNOWN: [&str; 19] = [
    key::REGION,
    key::BUCKET,
    key::S3_FORCE_PATH_STYLE,
    key::S3_URL,
    key::PROFILE,
    key::CA_CERT,
    key::ACCESS_KEY_ID,
    key::SECRET_ACCESS_KEY,
    key::LEGACY_PREFIX,
    key::STORAGE_PREFIX,
    key::REPOSITORY_FORMAT,
    key::CA_CERT_SECRET,
    key::INSECURE_SKIP_TLS_VERIFY,
    key::SERVER_SIDE_ENCRYPTION,
    key::KMS_KEY_ID,
    key::CUSTOMER_KEY_FILE,
    key::CUSTOMER_KEY_SECRET,
    key::TAGGING,
    key::CHECKSUM_ALGORITHM,
];
/// Settings of a storage location that Velero or its S3 plugin reads and that make no difference here: who copies a location's `config`
/// made no mistake.
const OF_VELERO: [&str; 5] =
    ["publicUrl", "signatureVersion", "enableSharedConfig", "credentialsFile", "resticRepoPrefix"];
/// The parameters that are true or false.
const FLAGS: [&str; 2] = [key::S3_FORCE_PATH_STYLE, key::INSECURE_SKIP_TLS_VERIFY];

/// What is not followed as it is written, each with what may be meant or what counts. A value that nobody reads is not repeated: nobody
/// knows what it is.
pub fn slips(parameters: &BTreeMap<String, String>) -> Vec<String> {
    parameters.iter().filter_map(|(name, value)| slip(name, value)).collect()
}

fn slip(name: &str, value: &str) -> Option<String> {
    if FLAGS.contains(&name) {
        // the words of Go, and no blanks around them: so the original reads it
        let is_flag = value.is_empty() || (flag::read(value).is_some() && value.trim() == value);
        let counts =
            || format!("parameter `{name}` is `{}`, which is neither `true` nor `false`; `false` counts", shown(value));
        return (!is_flag).then(counts);
    }
    if KNOWN.contains(&name) || OF_VELERO.contains(&name) {
        return None;
    }
    let unread = format!("nobody reads parameter `{}`", shown(name));
    Some(match meant(name) {
        Some(key::LEGACY_PREFIX) => format!(
            "{unread}; `{}` may be meant, which counts in the original's layout alone: in ours it is `{}`",
            key::LEGACY_PREFIX,
            key::STORAGE_PREFIX
        ),
        Some(known) => format!("{unread}; `{known}` may be meant"),
        None => unread,
    })
}

/// The parameter that this name, which is none, may stand for.
fn meant(name: &str) -> Option<&'static str> {
    near(name, &KNOWN, |known| known).copied()
}

/// Why a map of parameters cannot be used, with the name that somebody wrote in place of one that is missing.
pub fn unusable(error: &ParametersError, parameters: &BTreeMap<String, String>) -> String {
    let ParametersError::Missing(missing) = error else { return error.to_string() };
    let unread = || parameters.keys().filter(|name| !KNOWN.contains(&name.as_str()));
    if let Some(written) = unread().find(|name| name.eq_ignore_ascii_case(missing)) {
        return format!("{error}; `{written}` is there, and names mind case");
    }
    match unread().find(|name| meant(name) == Some(*missing)) {
        Some(written) => format!("{error}; it may be meant by `{}`, which nobody reads", shown(written)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::parameters::RepositoryParameters;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_parameter_that_nobody_reads_is_told_with_the_one_that_may_be_meant() {
        let cases = [
            ("prefx", "nobody reads parameter `prefx`; `prefix` may be meant"),
            ("prefx", "in ours it is `storagePrefix`"),
            ("s3URL", "nobody reads parameter `s3URL`; `s3Url` may be meant"),
            ("Bucket", "nobody reads parameter `Bucket`; `bucket` may be meant"),
            ("storage_prefix", "`storagePrefix` may be meant"),
            ("ForcePathStyle", "`s3ForcePathStyle` may be meant"),
            ("something-else", "nobody reads parameter `something-else`"),
        ];
        for (name, expected) in cases {
            let [told] = &slips(&map(&[("region", ""), (name, "hunter2")]))[..] else { panic!("one slip: {name}") };
            assert!(told.contains(expected) && !told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn a_flag_that_is_neither_true_nor_false_is_told_with_what_counts() {
        for (name, value) in
            [("s3ForcePathStyle", "yes"), ("insecureSkipTLSVerify", "on"), ("s3ForcePathStyle", " true")]
        {
            let written = map(&[("region", ""), ("bucket", "b"), (name, value)]);
            let [told] = &slips(&written)[..] else { panic!("one slip: {name}") };
            for words in [name, value, "neither `true` nor `false`; `false` counts"] {
                assert!(told.contains(words), "`{words}` in {told}");
            }
            let read = RepositoryParameters::from_map(&written).expect("it stays accepted");
            assert!(!read.s3_force_path_style && !read.insecure_skip_tls_verify, "so it is: {told}");
        }
    }

    #[test]
    fn what_is_followed_and_what_velero_alone_reads_is_no_slip() {
        let all: Vec<(&str, &str)> = KNOWN.into_iter().chain(OF_VELERO).map(|name| (name, "T")).collect();
        assert_eq!(slips(&map(&all)), Vec::<String>::new());
        assert_eq!(slips(&map(&[("s3ForcePathStyle", ""), ("insecureSkipTLSVerify", "False")])), Vec::<String>::new());
    }

    #[test]
    fn a_parameter_that_is_missing_is_told_with_the_name_that_stands_in_its_place() {
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[("region", ""), ("Bucket", "b")], "`bucket` is missing; `Bucket` is there, and names mind case"),
            (&[("region", ""), ("bukcet", "b")], "`bucket` is missing; it may be meant by `bukcet`"),
            (&[("bucket", "b"), ("REGION", "")], "`region` is missing; `REGION` is there, and names mind case"),
            (&[("region", ""), ("profile", "b")], "`bucket` is missing"),
        ];
        for (pairs, expected) in cases {
            let written = map(pairs);
            let error = RepositoryParameters::from_map(&written).expect_err("one is missing");
            let told = unusable(&error, &written);
            assert!(told.ends_with(expected) || told.contains(&format!("{expected},")), "{told}");
        }
    }
}
