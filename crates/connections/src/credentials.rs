//! The AWS shared-credentials file, as Velero's `cloud-credentials` holds it: one section, three keys. Velero also takes a
//! shared configuration there, whose sections are called `profile NAME`.

use repository::Credentials;
use secrecy::SecretString;

/// Keys of a shared configuration that say where the keys to the bucket come from.
const ELSEWHERE: [&str; 4] = ["role_arn", "credential_process", "credential_source", "sso_session"];

/// Keys of a section that have to be there.
const KEY_ID: &str = "aws_access_key_id";
const KEY: &str = "aws_secret_access_key";

/// The keys in section `profile`. What is wrong is told by lines, counted from 1, and never by what stands there.
pub(crate) fn parse(text: &str, profile: &str) -> Result<Credentials, String> {
    let (mut within, mut begins) = (false, None);
    let (mut id, mut secret, mut token) = (None, None, None);
    let mut elsewhere = None;
    let (mut others, mut odd) = (Vec::new(), Vec::new());
    for (number, line) in (1_usize..).zip(text.lines().map(str::trim)) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let name = name.trim();
            within = name == profile || name.strip_prefix("profile ").is_some_and(|name| name.trim() == profile);
            if within {
                begins = begins.or(Some(number));
            } else {
                others.push(format!("[{name}]"));
            }
        } else if line.is_empty() || line.starts_with(['#', ';']) {
            // nothing is said
        } else if let Some((key, value)) = line.split_once('=') {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match key.trim() {
                _ if !within => {}
                KEY_ID => id = value,
                KEY => secret = value.map(SecretString::from),
                "aws_session_token" => token = value.map(SecretString::from),
                other if ELSEWHERE.contains(&other) => elsewhere = Some(other.to_owned()),
                _ => {}
            }
        } else if within || begins.is_none() {
            odd.push(number.to_string());
        }
    }
    let (id, secret) = match (id, secret) {
        (Some(id), Some(secret)) => return Ok(Credentials::Given { id, secret, token }),
        (id, secret) => (id, secret),
    };
    let missing: Vec<&str> = [(KEY_ID, id.is_none()), (KEY, secret.is_none())]
        .into_iter()
        .filter_map(|(key, is_missing)| is_missing.then_some(key))
        .collect();
    let missing = missing.join(" and ");
    let mut told = match begins {
        Some(line) => format!("section [{profile}] (line {line}) has no {missing}"),
        None if others.is_empty() => format!("expected a section [{profile}] with {missing}, and there is no section"),
        None => format!("expected a section [{profile}] with {missing}, and there is only {}", others.join(", ")),
    };
    if !odd.is_empty() {
        told.push_str(&format!("; expected `key = value` in line {}", odd.join(", ")));
    }
    if let Some(key) = elsewhere {
        told.push_str(&format!("; `{key}` is not followed from a Secret"));
    }
    Err(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn the_section_of_the_profile_counts() {
        let text = "[default]\naws_access_key_id = A\naws_secret_access_key=x\n\n# other\n[lab]\naws_access_key_id=B\naws_secret_access_key = y=z\naws_session_token = t\n";
        let Ok(Credentials::Given { id, secret, token }) = parse(text, "lab") else { panic!("keys are there") };
        assert_eq!((id.as_str(), secret.expose_secret()), ("B", "y=z"));
        assert!(token.is_some());
        assert!(parse(text, "nowhere").is_err());
        assert!(parse("aws_access_key_id = A", "default").is_err(), "keys outside of a section");
        let shared = "[profile lab]\nregion = eu\naws_access_key_id=B\naws_secret_access_key = y\n[profile role]\nrole_arn = r\n";
        assert!(parse(shared, "lab").is_ok(), "as a shared configuration has it");
        let Err(why) = parse(shared, "role") else { panic!("there are no keys") };
        assert!(why.contains("[role]") && why.contains("`role_arn`"), "{why}");
    }

    #[test]
    fn a_mistake_in_the_keys_file_names_its_line_and_what_was_expected_but_no_key() {
        let cases = [
            ("no file at all", "", "default", "expected a section [default]"),
            ("another section", "[lab]\naws_access_key_id = A\n", "default", "there is only [lab]"),
            ("a key is missing", "# keys\n[default]\naws_access_key_id = A\n", "default", "(line 2) has no aws_secret"),
            (
                "an empty key",
                "[default]\naws_access_key_id =\naws_secret_access_key = hunter2",
                "default",
                "no aws_access_key_id",
            ),
            (
                "a colon",
                "[default]\naws_access_key_id = A\naws_secret_access_key: hunter2",
                "default",
                "`key = value` in line 3",
            ),
            ("no section", "hunter2\nhunter2\n", "default", "`key = value` in line 1, 2"),
        ];
        for (situation, text, profile, want) in cases {
            let Err(why) = parse(text, profile) else { panic!("{situation}: there are no keys") };
            assert!(why.contains(want) && !why.contains("hunter2"), "{situation}: {why}");
        }
        let odd = "[default]\nnonsense\naws_access_key_id = A\naws_secret_access_key = x\n";
        assert!(parse(odd, "default").is_ok(), "what is not needed keeps no keys from it");
    }
}
