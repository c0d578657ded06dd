//! Where a lab lies: the checkout it belongs to and its own folder. Reads the environment; writes nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// A lab's name and its folder.
#[derive(Debug, Clone)]
pub struct Place {
    /// The checkout: where `deploy/` and `tests/lab/peers` are.
    pub root: PathBuf,
    /// Everything the lab writes lies below it.
    pub folder: PathBuf,
    /// `lab` for the first one, else what `LAB` says.
    pub name: String,
}

/// The name of the lab that has no name.
pub const FIRST: &str = "lab";

impl Place {
    /// The lab that the variables `LAB` (its name) and `LAB_ROOT` (the checkout) mean.
    ///
    /// # Errors
    /// Outside a checkout, or when the name cannot be a folder's.
    pub fn from_environment() -> Result<Self> {
        let root = match std::env::var_os("LAB_ROOT").filter(|v| !v.is_empty()) {
            Some(root) => PathBuf::from(root),
            None => root_above(&std::env::current_dir().context("find the current folder")?)?,
        };
        Self::named(&root, &std::env::var("LAB").unwrap_or_default())
    }

    /// The lab of that name in a checkout; an empty name is the first lab's.
    ///
    /// # Errors
    /// When the name cannot be a folder's.
    pub fn named(root: &Path, name: &str) -> Result<Self> {
        let name = if name.is_empty() { FIRST } else { name };
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            bail!("a lab's name has letters, digits, - and _ only: {name:?}");
        }
        let folder = if name == FIRST { "lab".to_owned() } else { format!("lab-{name}") };
        let root = root.canonicalize().with_context(|| format!("find the checkout {}", root.display()))?;
        Ok(Self { folder: root.join("target").join(folder), root, name: name.to_owned() })
    }

    /// A lab with a folder of its own anywhere, as tests want it.
    ///
    /// # Errors
    /// When the checkout cannot be found from the current folder, or the folder cannot be made.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        let here = Self::named(&root_from_anywhere()?, "")?;
        let name = folder.file_name().map_or_else(|| FIRST.to_owned(), |n| n.to_string_lossy().into_owned());
        Ok(Self { root: here.root, folder, name })
    }
}

fn root_from_anywhere() -> Result<PathBuf> {
    match std::env::var_os("LAB_ROOT").filter(|v| !v.is_empty()) {
        Some(root) => Ok(PathBuf::from(root)),
        None => root_above(&std::env::current_dir().context("find the current folder")?),
    }
}

/// The checkout that a folder lies in: the first one upwards that holds the lab's peers.
fn root_above(start: &Path) -> Result<PathBuf> {
    let root = start.ancestors().find(|folder| folder.join("tests/lab/peers").is_dir());
    match root {
        Some(root) => Ok(root.to_owned()),
        None => bail!("{} is not inside the project's checkout; set LAB_ROOT to it", start.display()),
    }
}

/// The folder of our own programs: beside the running one, or above it when that is a test.
///
/// # Errors
/// When the running program cannot be found.
pub fn programs() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("find the running program")?;
    let beside = exe.parent().context("the running program lies in a folder")?;
    let folder = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may stop at the first surprise
    use super::*;

    #[test]
    fn two_labs_of_one_checkout_never_share_a_folder() {
        let root = root_from_anywhere().unwrap();
        let first = Place::named(&root, "").unwrap();
        let second = Place::named(&root, "b").unwrap();
        assert!(first.folder.ends_with("target/lab"), "{first:?}");
        assert!(second.folder.ends_with("target/lab-b"), "{second:?}");
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_target_folder() {
        let root = root_from_anywhere().unwrap();
        assert!(Place::named(&root, "../../etc").is_err());
    }
}
