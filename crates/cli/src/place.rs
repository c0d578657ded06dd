//! Where a disk is, as typed: a file or an NBD URI. Parsing only; opens nothing.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A disk's place.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A raw file or a block device.
    File(PathBuf),
    /// An export of an NBD server.
    Nbd(nbd::Uri),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a disk is a file or an NBD URI, not an empty text".to_owned());
        }
        match text.split_once("://") {
            Some((scheme, _)) if scheme.starts_with("nbd") => {
                text.parse().map(Self::Nbd).map_err(|error: nbd::Error| error.to_string())
            }
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') => Err(format!(
                "`{scheme}://` is not known; give a file, nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH"
            )),
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Nbd(uri) => write!(f, "{uri}"),
        }
    }
}

impl Place {
    /// What the disk is called in the repository when nobody says otherwise: the absolute file, the URI without its
    /// query, or for a socket the export's name, `/nbd` when it has none. `None`: a file name that is not UTF-8.
    pub(crate) fn default_path(&self) -> std::io::Result<Option<String>> {
        match self {
            Self::File(path) => Ok(std::path::absolute(path)?.to_str().map(str::to_owned)),
            Self::Nbd(uri) => Ok(Some(nbd_path(&uri.to_string()))),
        }
    }
}

impl Place {
    /// Whether another disk may well have the same [`Place::default_path`]: exports of different sockets are called alike.
    pub(crate) fn default_path_is_shared(&self) -> bool {
        matches!(self, Self::Nbd(uri) if uri.to_string().starts_with("nbd+unix:"))
    }
}

fn nbd_path(uri: &str) -> String {
    let without_query = uri.split('?').next().unwrap_or(uri);
    match without_query.split_once(":///") {
        Some((_, "")) => "/nbd".to_owned(),
        Some((_, export)) => format!("/{}", export.trim_start_matches('/')),
        None => without_query.trim_end_matches('/').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    #[test]
    fn a_disk_keeps_its_name_when_only_the_socket_changes() {
        let cases = [
            ("nbd://10.0.0.1:10809/disk", "nbd://10.0.0.1:10809/disk"),
            ("nbd+unix:///disk?socket=/tmp/a", "/disk"),
            ("nbd+unix:///?socket=/tmp/a", "/nbd"),
            ("nbd+unix:///?socket=/tmp/b", "/nbd"),
        ];
        for (uri, want) in cases {
            assert_eq!(nbd_path(uri), want, "{uri}");
        }
    }

    #[test]
    fn a_socket_does_not_tell_which_disk_it_is() {
        let shared = |text: &str| text.parse::<Place>().unwrap().default_path_is_shared();
        assert!(shared("nbd+unix:///?socket=/tmp/a") && shared("nbd+unix:///disk?socket=/tmp/a"));
        assert!(!shared("nbd://10.0.0.1/disk") && !shared("/dev/sda"));
    }

    #[test]
    fn a_relative_file_is_named_by_its_absolute_path() {
        let place: Place = "disk.raw".parse().unwrap();
        let path = place.default_path().unwrap().unwrap();
        assert!(path.starts_with('/') && path.ends_with("/disk.raw"), "{path}");
    }

    #[test]
    fn another_scheme_is_not_taken_for_a_file() {
        assert!("http://host/disk".parse::<Place>().is_err());
        assert!("".parse::<Place>().is_err());
        assert!(matches!("/odd:name/a".parse::<Place>(), Ok(Place::File(_))));
    }
}
