//! Mail in the words of this platform: a command, with its body as it is.
//!
//! Invariant: a mail comes by one of the names that its device listens for, once. Checked by `tests/it/drogue/mail.rs`.

use super::inbox::{Inbox, is_command};

/// The topic by which a mail comes to `own`, which listens so; [`None`]: it does not listen for what is its own.
///
/// # Errors
///
/// Why it can't be said.
pub fn topic<'a>(
    mut listens: impl Iterator<Item = &'a Inbox>,
    own: &str,
    name: &str,
) -> Result<Option<String>, &'static str> {
    if !is_command(name) {
        return Err("a command's name has no +, no # and no zero");
    }
    Ok(listens.find_map(|inbox| inbox.topic(own, own, name)))
}
