//! `moorline backup prune`: deletes old backups, and the pieces that no other needs. What keeps it safe is in [`super::directory`].

use super::{
    PruneArgs,
    directory::{Directory, Pruned},
};

pub(super) fn run(args: &PruneArgs) -> anyhow::Result<()> {
    let directory = Directory::open(&args.dir)?;
    let _writing = directory.writing()?;
    let Pruned { backups, pieces, bytes } = directory.prune(args.keep as usize)?;
    for name in &backups {
        println!("backup {name}: deleted");
    }
    println!("{} backups and {pieces} pieces of {bytes} bytes are deleted", backups.len());
    Ok(())
}
