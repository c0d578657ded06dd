//! The AWS shared-credentials file, as Velero's `cloud-credentials` holds it: one section, three keys.

use repository::Credentials;
use secrecy::SecretString;

/// The keys in section `profile`.
pub(crate) fn parse(text: &str, profile: &str) -> Result<Credentials, String> {
    let mut within = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            within = name.trim() == profile;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| within && !line.starts_with(['#', ';'])) {
            let value = value.trim().to_owned();
            match key.trim() {
                "aws_access_key_id" => id = Some(value),
                "aws_secret_access_key" => secret = Some(SecretString::from(value)),
                "aws_session_token" => token = Some(SecretString::from(value)),
                _ => {}
            }
        }
    }
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Credentials::Given { id, secret, token }),
        _ => Err(format!("section [{profile}] has no aws_access_key_id and aws_secret_access_key")),
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
    }
}
