//! What the agent says about itself, for people: lines on standard error, which `start` has put into a file.
//!
//! There are no levels and no filter. What is logged happens seldom: changes of the uplink, and what ends the agent. A device
//! that flaps for years fills no disk all the same: the file is begun anew when it is long.

use std::sync::OnceLock;

use moorline_core::{UnixMillis, calendar::http_date};

use crate::{clock::unix_ms, directory::Directory};

/// Where standard error leads, if it leads into a file of ours.
static FILE_OF: OnceLock<Directory> = OnceLock::new();

/// From now on standard error is the log of this directory.
pub(crate) fn goes_to(directory: &Directory) {
    // It is said once, at the start.
    let _already = FILE_OF.set(directory.clone());
}

/// One line.
pub(crate) fn log(text: &str) {
    if let Some(directory) = FILE_OF.get() {
        directory.shorten_log();
    }
    eprintln!("{} {text}", http_date(UnixMillis(unix_ms())));
}
