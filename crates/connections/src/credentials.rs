//! The AWS shared-credentials file, as Velero's `cloud-credentials` holds it: one section, three keys. Velero also takes a
//! shared configuration there, whose sections are called `profile NAME`.

use repository::Credentials;
use secrecy::SecretString;

/// Keys of a shared configuration that say where the keys to the bucket come from.
const ELSEWHERE: [&str; 4] = ["role_arn", "credential_process", "credential_source", "sso_session"];

/// The keys in section `profile`.
pub(crate) fn parse(text: &str, profile: &str) -> Result<Credentials, String> {
    let mut within = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    let mut elsewhere = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let name = name.trim();
            within = name == profile || name.strip_prefix("profile ").is_some_and(|name| name.trim() == profile);
        } else if let Some((key, value)) = line.split_once('=').filter(|_| within && !line.starts_with(['#', ';'])) {
            let value = value.trim().to_owned();
            match key.trim() {
                "aws_access_key_id" => id = Some(value),
                "aws_secret_access_key" => secret = Some(SecretString::from(value)),
                "aws_session_token" => token = Some(SecretString::from(value)),
                other if ELSEWHERE.contains(&other) => elsewhere = Some(other.to_owned()),
                _ => {}
            }
        }
    }
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Credentials::Given { id, secret, token }),
        _ => {
            let missing = format!("section [{profile}] has no aws_access_key_id and aws_secret_access_key");
            Err(elsewhere.map_or(missing.clone(), |key| format!("{missing}; `{key}` is not followed from a Secret")))
        }
    }
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
}
