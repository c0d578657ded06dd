//! Files that are made from code: their contents, written or compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Contents by path below the root; `None` is a file that should not be there.
#[derive(Default)]
pub(crate) struct Files(BTreeMap<String, Option<String>>);

impl Files {
    /// Adds a file.
    pub(crate) fn add(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.0.insert(path.into(), Some(text.into()));
    }

    /// Adds text at the end of a file.
    pub(crate) fn append(&mut self, path: impl Into<String>, text: &str) {
        self.0.entry(path.into()).or_default().get_or_insert_default().push_str(text);
    }

    /// Puts a line before each file.
    pub(crate) fn prepend_to_all(&mut self, head: &str) {
        self.0.values_mut().flatten().for_each(|text| text.insert_str(0, head));
    }

    /// Whatever else lies in a folder should not be there.
    pub(crate) fn also_check_folder(&mut self, root: &Path, folder: &str) -> Result<()> {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { return Ok(()) };
        for entry in entries {
            let name = entry?.file_name();
            self.0.entry(format!("{folder}/{}", name.to_string_lossy())).or_insert(None);
        }
        Ok(())
    }

    /// Brings the tree in line.
    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        for path in self.stale(root) {
            let full = root.join(path);
            match &self.0[path] {
                Some(text) => {
                    fs::create_dir_all(full.parent().expect("a file lies in a folder"))?;
                    fs::write(&full, text).with_context(|| format!("write {path}"))?;
                    println!("wrote {path}");
                }
                None => {
                    fs::remove_file(&full).with_context(|| format!("remove {path}"))?;
                    println!("removed {path}");
                }
            }
        }
        Ok(())
    }

    /// Fails when the tree is not in line.
    pub(crate) fn check(&self, root: &Path, remedy: &str) -> Result<()> {
        let stale = self.stale(root);
        if !stale.is_empty() {
            bail!("these files are not what the code makes; run `{remedy}`:\n  {}", stale.join("\n  "));
        }
        println!("{} files are as the code makes them", self.0.len());
        Ok(())
    }

    fn stale(&self, root: &Path) -> Vec<&str> {
        let differs = |(path, text): &(&String, &Option<String>)| fs::read_to_string(root.join(path)).ok() != **text;
        self.0.iter().filter(differs).map(|(path, _)| path.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may fail where it stands

    use super::*;

    #[test]
    fn a_stale_and_a_forgotten_file_are_both_noticed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("out")).unwrap();
        fs::write(root.path().join("out/forgotten"), "x").unwrap();
        let mut files = Files::default();
        files.add("out/made", "y");
        files.also_check_folder(root.path(), "out").unwrap();
        let complaint = files.check(root.path(), "make it").unwrap_err().to_string();
        assert!(complaint.contains("out/forgotten") && complaint.contains("out/made"), "{complaint}");
        files.write(root.path()).unwrap();
        files.check(root.path(), "make it").unwrap();
        assert!(!root.path().join("out/forgotten").exists());
    }
}
