//! The data directories this node has seen the others with, on disk: a wiped node with an old id is refused also by a
//! node that has just started and knows nothing yet.

use std::{collections::BTreeMap, fs::File, io::Write, path::Path};

use anyhow::Context;
use moorline_core::NodeId;

/// Reads the file; none is an empty one.
pub(crate) fn read(path: &Path) -> anyhow::Result<BTreeMap<NodeId, u128>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let stores: BTreeMap<u64, String> = serde_json::from_slice(&text)
        .with_context(|| format!("{}: not what was written there", path.display()))?;
    stores
        .into_iter()
        .map(|(node, store)| {
            let store = u128::from_str_radix(&store, 16)
                .with_context(|| format!("{}: not a store id", path.display()))?;
            Ok((NodeId(node), store))
        })
        .collect()
}

/// Replaces the file: whole or not at all, and synced.
pub(crate) fn write(path: &Path, stores: &BTreeMap<NodeId, u128>) -> anyhow::Result<()> {
    let text: BTreeMap<u64, String> =
        stores.iter().map(|(node, store)| (node.0, format!("{store:032x}"))).collect();
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec(&text)?)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
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
