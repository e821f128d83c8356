//! What this node knows of the others before it has read the meta group, on disk: the data directories it has seen them
//! with (a wiped node with an old id is refused also by a node that has just started), and where they are.

use std::{collections::BTreeMap, fs::File, io::Write, path::Path};

use anyhow::Context;
use moorline_core::NodeId;

/// Reads a file of texts by node; none is an empty one.
fn read_texts(path: &Path) -> anyhow::Result<BTreeMap<u64, String>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    serde_json::from_slice(&text)
        .with_context(|| format!("{}: not what was written there", path.display()))
}

/// Reads where nodes are.
pub(crate) fn read_addresses(path: &Path) -> anyhow::Result<BTreeMap<NodeId, String>> {
    Ok(read_texts(path)?.into_iter().map(|(node, address)| (NodeId(node), address)).collect())
}

/// Replaces the file with where nodes are.
pub(crate) fn write_addresses(
    path: &Path,
    addresses: &BTreeMap<NodeId, String>,
) -> anyhow::Result<()> {
    write_texts(path, &addresses.iter().map(|(node, address)| (node.0, address.clone())).collect())
}

/// Reads the data directories of nodes.
pub(crate) fn read(path: &Path) -> anyhow::Result<BTreeMap<NodeId, u128>> {
    read_texts(path)?
        .into_iter()
        .map(|(node, store)| {
            let store = u128::from_str_radix(&store, 16)
                .with_context(|| format!("{}: not a store id", path.display()))?;
            Ok((NodeId(node), store))
        })
        .collect()
}

/// Replaces the file with the data directories of nodes: whole or not at all, and synced.
pub(crate) fn write(path: &Path, stores: &BTreeMap<NodeId, u128>) -> anyhow::Result<()> {
    write_texts(
        path,
        &stores.iter().map(|(node, store)| (node.0, format!("{store:032x}"))).collect(),
    )
}

fn write_texts(path: &Path, text: &BTreeMap<u64, String>) -> anyhow::Result<()> {
    Ok(put(path, &serde_json::to_vec(text)?)?)
}

/// Replaces a file: whole or not at all, and synced.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known.json");
        assert!(read(&path).unwrap().is_empty());
        let stores = BTreeMap::from([(NodeId(1), 7), (NodeId(3), u128::MAX)]);
        write(&path, &stores).unwrap();
        assert_eq!(read(&path).unwrap(), stores);
        std::fs::write(&path, "{").unwrap();
        assert!(read(&path).is_err());
    }
}
