//! Limits have names, tasks have owners, queues have ends.

use moorline_tidy::{
    Complaint, none,
    source::{File, files},
    tokens,
};

fn shipped(complaints: impl Fn(&File) -> Vec<Complaint>) -> Vec<Complaint> {
    files(&["rs"]).iter().filter(|file| !file.is_test()).flat_map(complaints).collect()
}

#[test]
fn every_limit_has_a_name() {
    none("everything has a limit, and the limit has a name", &shipped(tokens::limit_complaints));
}

#[test]
fn no_task_is_without_an_owner_and_no_queue_without_an_end() {
    none("tasks have owners, queues have ends", &shipped(tokens::owner_complaints));
}
