//! Trees: restic's folders. Written field by field, so that equal folders are equal bytes whoever writes them.
//!
//! The order of the fields is restic's own; programs that rewrite a tree check that they get the same bytes again.
//! No inode and no device: restic would take files with equal ones for hard links and restore one extent everywhere.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::hash::{ChunkId, from_hex, hex};

const TIMES: &str =
    r#""mtime":"1970-01-01T00:00:00Z","atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:00Z","uid":0,"gid":0"#;

/// A folder being written. Names must come in bytewise order and hold nothing that JSON escapes.
pub(crate) struct TreeText {
    json: String,
    first: bool,
}

impl TreeText {
    pub(crate) fn new() -> Self {
        Self { json: r#"{"nodes":["#.to_owned(), first: true }
    }

    fn node(&mut self, name: &str, kind: &str, mode: u32) {
        if !std::mem::take(&mut self.first) {
            self.json.push(',');
        }
        let _ = write!(self.json, r#"{{"name":"{name}","type":"{kind}","mode":{mode},{TIMES}"#); // a String takes it all
    }

    /// A file of `size` bytes made of these chunks.
    pub(crate) fn file<'a>(&mut self, name: &str, size: u64, content: impl Iterator<Item = &'a ChunkId>) {
        self.node(name, "file", 0o600);
        let _ = write!(self.json, r#","size":{size},"links":1,"content":["#);
        for (at, id) in content.enumerate() {
            self.json.push_str(if at == 0 { "\"" } else { ",\"" });
            self.json.push_str(&hex(&id.0));
            self.json.push('"');
        }
        self.json.push_str("]}");
    }

    /// A folder.
    pub(crate) fn folder(&mut self, name: &str, subtree: &[u8; 32]) {
        const DIRECTORY: u32 = 1 << 31;
        self.node(name, "dir", DIRECTORY | 0o700);
        let _ = write!(self.json, r#","content":null,"subtree":"{}"}}"#, hex(subtree));
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.json.push_str("]}\n");
        self.json.into_bytes()
    }
}

/// A folder as read.
#[derive(Debug, Deserialize)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
}

/// What matters to us of a file or folder.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    content: Option<Vec<String>>,
    #[serde(default)]
    subtree: Option<String>,
}

impl Tree {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|cause| cause.to_string())
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

impl Node {
    /// The chunks of a file; `None` when one is no id.
    pub(crate) fn chunks(&self) -> Option<Vec<ChunkId>> {
        self.content.as_deref().unwrap_or_default().iter().map(|id| from_hex(id).map(ChunkId)).collect()
    }

    /// All that it refers to: a folder's tree and a file's chunks; `None` when one is no id.
    pub(crate) fn refers_to(&self) -> Option<(Option<[u8; 32]>, Vec<ChunkId>)> {
        let subtree = match &self.subtree {
            Some(id) => Some(from_hex(id)?),
            None => None,
        };
        Some((subtree, self.chunks()?))
    }

    pub(crate) fn subtree(&self) -> Option<[u8; 32]> {
        from_hex(self.subtree.as_deref()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    #[test]
    fn the_bytes_of_a_tree_are_frozen() {
        let mut tree = TreeText::new();
        tree.file("00000000", 3, [ChunkId([0xab; 32])].iter());
        tree.folder("x", &[1; 32]);
        let want = format!(
            concat!(
                r#"{{"nodes":[{{"name":"00000000","type":"file","mode":384,{times},"size":3,"links":1,"content":["{chunk}"]}},"#,
                r#"{{"name":"x","type":"dir","mode":2147484096,{times},"content":null,"subtree":"{tree}"}}]}}"#,
                "\n"
            ),
            times = TIMES,
            chunk = "ab".repeat(32),
            tree = "01".repeat(32),
        );
        let bytes = tree.finish();
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), want);
        let read = Tree::parse(&bytes).unwrap();
        assert_eq!(read.node("00000000").unwrap().chunks().unwrap(), [ChunkId([0xab; 32])]);
        assert_eq!(read.node("x").unwrap().subtree().unwrap(), [1; 32]);
    }
}
