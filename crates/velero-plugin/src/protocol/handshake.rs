//! The first words between a server and a plugin: a magic variable in the environment one way, one line on stdout the other.

use std::io::Write;
use std::path::Path;

/// Set to [`COOKIE_VALUE`] by a Velero server, and by nobody else.
const COOKIE: &str = "VELERO_PLUGIN";
const COOKIE_VALUE: &str = "hello";
/// Versions of Velero's protocol that the server accepts, with commas.
const VERSIONS: &str = "PLUGIN_PROTOCOL_VERSIONS";
/// The certificate of a host that wants TLS on both sides. Velero does not.
const CLIENT_CERTIFICATE: &str = "PLUGIN_CLIENT_CERT";

/// go-plugin's own protocol.
const CORE_VERSION: u32 = 1;
/// Velero's protocol, the only one there has ever been since it speaks gRPC.
const APPLICATION_VERSION: u32 = 2;

/// Why a host cannot be served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Somebody who is no Velero server.
    #[error("this is a plugin of Velero, started by the Velero server itself and of no use on its own")]
    NotAHost,
    /// A host of another time.
    #[error("the host accepts versions {0} of the plugin protocol, and this plugin speaks version 2")]
    Version(String),
    /// A host with other habits.
    #[error("the host asks for TLS (PLUGIN_CLIENT_CERT), which Velero's plugins do not speak")]
    Tls,
}

/// Whether the process that set this environment is a Velero server that we can serve.
pub(super) fn check(environment: impl Fn(&str) -> Option<String>) -> Result<(), Refusal> {
    if environment(COOKIE).as_deref() != Some(COOKIE_VALUE) {
        return Err(Refusal::NotAHost);
    }
    if let Some(versions) = environment(VERSIONS).filter(|v| !v.is_empty())
        && !versions.split(',').any(|v| v.trim().parse() == Ok(APPLICATION_VERSION))
    {
        return Err(Refusal::Version(versions));
    }
    match environment(CLIENT_CERTIFICATE) {
        Some(certificate) if !certificate.is_empty() => Err(Refusal::Tls),
        _ => Ok(()),
    }
}

/// Tells the host where we listen. It has to be the first thing on stdout (P-05), and is the last.
pub(super) fn announce(socket: &Path, mut out: impl Write) -> std::io::Result<()> {
    let line = format!("{CORE_VERSION}|{APPLICATION_VERSION}|unix|{}|grpc|\n", socket.display());
    out.write_all(line.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(variables: &[(&str, &str)]) -> Result<(), Refusal> {
        check(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn only_a_velero_server_is_served() {
        let cookie = (COOKIE, COOKIE_VALUE);
        let cases = [
            ("a person", vec![], Err(Refusal::NotAHost)),
            ("another cookie", vec![(COOKIE, "hi")], Err(Refusal::NotAHost)),
            ("no versions", vec![cookie], Ok(())),
            ("Velero", vec![cookie, (VERSIONS, "2")], Ok(())),
            ("a later Velero", vec![cookie, (VERSIONS, "3,2")], Ok(())),
            ("too late", vec![cookie, (VERSIONS, "3,22")], Err(Refusal::Version("3,22".to_owned()))),
            ("TLS", vec![cookie, (CLIENT_CERTIFICATE, "-----BEGIN")], Err(Refusal::Tls)),
        ];
        for (who, variables, want) in cases {
            assert_eq!(answer(&variables), want, "{who}");
        }
    }

    #[test]
    fn the_line_has_six_fields_and_one_end() {
        let mut out = Vec::new();
        announce(Path::new("/tmp/plugin-1.sock"), &mut out).unwrap();
        assert_eq!(out, b"1|2|unix|/tmp/plugin-1.sock|grpc|\n");
    }
}
