//! `moorline backup restore`: the data directory of the first node of a new cluster, out of a backup.
//!
//! ```text
//!   mark "restoring" ─► identity, empty stores ─► rows, group by group, the meta group last ─► the node's own rows of it
//!                    ─► each group's log begins, with this node as the only voter ─► remove the mark
//! ```
//!
//! The other nodes of the new cluster begin with empty directories: they are in the meta group's rows as nodes of which nobody has
//! heard yet, and once all are there votes move onto them as onto any node that joins.
//!
//! # Invariants
//!
//! - **A directory that is restored in part is used by nobody**: `moorline server` refuses it while the mark is there.
//! - **A restored directory says the level of its rows** before it may be used, so that a program of before refuses it.
//! - **Each piece is checked before its rows are written.** One that is damaged ends the restore, and the mark stays.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, Permissions},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use moorline_core::{Incarnation, NodeId, ShardId, Text, UnixMillis};
use moorline_group::{Disk, Restored, RowsAt};
use moorline_machine::{
    command::NodeRecord,
    restore::{Carried, NewCluster, OldCluster, carried, meta_rows, route},
};
use moorline_storage::{Batch, Store};
use moorline_storage_rocks::note_level;
use prometheus::Registry;

use super::{
    RestoreArgs,
    directory::Directory,
    manifest::{Group, Manifest},
    verify::rows,
};
use crate::{
    config::Config,
    server::{RESTORING, open_disk_for_restore},
};

pub(super) async fn run(args: &RestoreArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let directory = Directory::open(&args.dir)?;
    // Nothing is deleted while it is read.
    let _reading = directory.reading()?;
    let (name, manifest) = directory.choose(args.name.as_deref())?;
    if let Some(why) = refusal(&config, &manifest, args.same_name) {
        bail!("backup {name}: {why}");
    }
    let data = &config.node.data_dir;
    begin(data)?;
    let disk = open_disk_for_restore(&config, &Registry::new())?;
    let store = disk.identity.store;
    let disk_of_groups = Disk { store: disk.store.clone(), log: disk.log.clone() };
    let old = write_rows(&directory, &manifest, &*disk.store)?;
    config.cluster.fits(old.level).context("the rows of this backup")?;
    let new = new_cluster(&config, store);
    let changes = meta_rows(&new, &old).into_iter().map(|(key, row)| (key, Some(row))).collect();
    disk.store.write(Batch { changes })?;
    let addresses = config.cluster.addresses();
    let address = addresses.get(&new.first).cloned().unwrap_or_default();
    for Group { group, term, index, time_ms, .. } in &manifest.groups {
        let at = RowsAt { term: *term, index: *index, time: UnixMillis(*time_ms) };
        let restored =
            Restored { shard: ShardId(*group), node: new.first, address: address.clone(), at };
        moorline_group::restore(&disk_of_groups, restored).await?;
    }
    drop((disk_of_groups, disk));
    // Before it may be used: a program of before must not take the directory for one of its own level.
    note_level(data, old.level)?;
    end(data)?;
    println!("{}", next_steps(&name, &manifest, &config, &args.config));
    Ok(())
}

/// Why this backup can't become the cluster of this file.
fn refusal(config: &Config, manifest: &Manifest, same_name: bool) -> Option<String> {
    let cluster = &config.cluster;
    let me = config.node.id;
    if manifest.shards != cluster.shards {
        return Some(format!(
            "it has {} shards, and cluster.shards is {}: a backup is restored into as many shards as it was made of",
            manifest.shards, cluster.shards
        ));
    }
    if let Err(misfit) = cluster.fits(manifest.level) {
        return Some(misfit.to_string());
    }
    if manifest.cluster == cluster.name && !same_name {
        return Some(format!(
            "it is of a cluster named {:?}, too: give the new one another cluster.name, so that nodes of the two never take each \
             other for their own, or say --same-name if no node of the old one can ever start again",
            cluster.name
        ));
    }
    if !cluster.peers.iter().any(|peer| peer.id == me) {
        return Some(format!(
            "node {me} is none of cluster.peers, which are the nodes of the new cluster"
        ));
    }
    (!cluster.join.is_empty()).then(|| {
        "cluster.join is for a node that joins: the first node of a new cluster joins none"
            .to_owned()
    })
}

/// An empty directory with the mark, for its owner alone.
fn begin(data: &Path) -> anyhow::Result<()> {
    let at = || format!("node.data-dir: {}", data.display());
    // What devices said and what is kept of their secrets is nobody else's.
    DirBuilder::new().recursive(true).mode(0o700).create(data).with_context(at)?;
    for entry in fs::read_dir(data).with_context(at)? {
        // A new disk has that one.
        if entry.with_context(at)?.file_name() != "lost+found" {
            bail!("{} is not empty: a backup is restored into an empty one", at());
        }
    }
    let mark = File::create_new(data.join(RESTORING)).with_context(at)?;
    let (owner, own) = (fs::metadata(data).with_context(at)?.uid(), mark.metadata()?.uid());
    if owner != own {
        fs::remove_file(data.join(RESTORING)).with_context(at)?;
        bail!(
            "{} belongs to user {owner}, who could not read what user {own} puts there: as that user: runuser -u NAME -- moorline backup \
             restore …",
            at()
        );
    }
    fs::set_permissions(data, Permissions::from_mode(0o700)).with_context(at)?;
    mark.sync_all().with_context(at)?;
    File::open(data).and_then(|dir| dir.sync_all()).with_context(at)
}

/// The directory may be used.
fn end(data: &Path) -> anyhow::Result<()> {
    let at = || format!("node.data-dir: {}", data.display());
    fs::remove_file(data.join(RESTORING)).with_context(at)?;
    File::open(data).and_then(|dir| dir.sync_all()).with_context(at)
}

/// Writes all rows that are carried over, and the routes that they ask for. Answers what they say of the old cluster.
fn write_rows(
    directory: &Directory,
    manifest: &Manifest,
    store: &impl Store,
) -> anyhow::Result<OldCluster> {
    let mut old = OldCluster::default();
    for group in &manifest.groups {
        for piece in &group.pieces {
            let at = || directory.path(piece).display().to_string();
            let bytes = directory.read(piece).with_context(at)?;
            let rows = rows(bytes, group, piece).with_context(at)?;
            let changes = changes(&rows, &mut old).with_context(at)?;
            store.write(Batch { changes })?;
        }
        println!("group {}: {} pieces", group.group, group.pieces.len());
    }
    store.flush()?;
    Ok(old)
}

type Change = (Bytes, Option<Bytes>);

fn changes(rows: &[(Bytes, Bytes)], old: &mut OldCluster) -> anyhow::Result<Vec<Change>> {
    let mut changes = Vec::with_capacity(rows.len());
    for (key, row) in rows {
        match carried(key, row)? {
            Carried::AsItIs => changes.push((key.clone(), Some(row.clone()))),
            said @ (Carried::Left | Carried::OldNode(_) | Carried::OldLevel(_)) => old.note(said),
        }
        changes.extend(route(key, row)?.map(|(key, row)| (key, Some(row))));
    }
    Ok(changes)
}

/// The cluster of this file. Only the node whose directory is made says which one it has; the others are expected.
fn new_cluster(config: &Config, store: u128) -> NewCluster {
    let first = config.node_id();
    let record = |(node, address): (NodeId, String)| NodeRecord {
        node,
        store: if node == first { store } else { 0 },
        incarnation: Incarnation(0),
        address: Text::from(address.as_str()),
    };
    NewCluster {
        cluster: rand::random(),
        shards: config.cluster.shards,
        replicas: config.cluster.replicas,
        first,
        nodes: config.cluster.addresses().into_iter().map(record).collect(),
    }
}

fn next_steps(name: &str, manifest: &Manifest, config: &Config, file: &Path) -> String {
    let me = config.node.id;
    let others: BTreeSet<u64> =
        config.cluster.peers.iter().map(|peer| peer.id).filter(|id| *id != me).collect();
    let mut text = format!(
        "backup {name} of cluster {:?} is node {me} of cluster {:?} now; start it: moorline server --config {}",
        manifest.cluster,
        config.cluster.name,
        file.display()
    );
    if !others.is_empty() {
        text += &format!(
            "\nthen start the nodes {others:?} with empty data directories; no `cluster init`: the cluster is made"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_empty_is_marked_and_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/er");
        fs::create_dir_all(data.join("lost+found")).unwrap();
        fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
        begin(&data).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        let problem = format!("{:#}", begin(&data).unwrap_err());
        assert!(problem.contains("is not empty"), "{problem}");
        end(&data).unwrap();
        assert!(!data.join(RESTORING).exists());
        begin(&dir.path().join("new/one")).unwrap();
    }
}
