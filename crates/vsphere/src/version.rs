//! Which API version to declare: the older of the server's and the newest we know.

/// The newest vim25 version whose replies we have read about.
const NEWEST_VIM: &str = "9.1.0.0";

/// vSAN versions are words, not numbers, and belong to a first vCenter release; newest first.
const VSAN: [(&str, &str); 4] =
    [("7.0.3.0", "vSAN 7.0U3"), ("7.0.1.0", "vSAN 7.0U1"), ("7.0.0.0", "7.0"), ("0", "vSAN 6.7U3")];

/// What we declare to one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// For `/sdk`.
    pub(crate) vim: String,
    /// For `/vsanHealth`, and for reading the results of its tasks.
    pub(crate) vsan: &'static str,
}

impl Declared {
    /// For a server that says `api_version`, such as `8.0.3.0`.
    pub(crate) fn for_server(api_version: &str) -> Self {
        let vim = if is_older(api_version, NEWEST_VIM) { api_version } else { NEWEST_VIM };
        let vsan = VSAN.iter().find(|(first, _)| !is_older(api_version, first)).map_or("vSAN 6.7U3", |(_, word)| word);
        Self { vim: vim.to_owned(), vsan }
    }

    /// Whether CNS knows the field `clusterFlavor`.
    pub(crate) fn knows_cluster_flavor(&self) -> bool {
        self.vsan != "vSAN 6.7U3"
    }
}

fn is_older(a: &str, b: &str) -> bool {
    let numbers = |text: &str| {
        let mut parts: Vec<u32> = text.trim().split('.').map(|part| part.parse().unwrap_or(0)).collect();
        parts.resize(parts.len().max(8), 0); // 8.0 is not older than 8.0.0.0
        parts
    };
    numbers(a) < numbers(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_is_told_a_version_it_does_not_know() {
        let cases = [
            ("6.7.3", "6.7.3", "vSAN 6.7U3"),
            ("7.0.0.0", "7.0.0.0", "7.0"),
            ("7.0.2.0", "7.0.2.0", "vSAN 7.0U1"),
            ("7.0.3.0", "7.0.3.0", "vSAN 7.0U3"),
            ("8.0.3.0", "8.0.3.0", "vSAN 7.0U3"),
            ("9.1.0.0", "9.1.0.0", "vSAN 7.0U3"),
            ("9.10.0.0", "9.1.0.0", "vSAN 7.0U3"),
            ("10.0", "9.1.0.0", "vSAN 7.0U3"),
        ];
        for (server, vim, vsan) in cases {
            assert_eq!(Declared::for_server(server), Declared { vim: vim.to_owned(), vsan }, "{server}");
        }
    }
}
