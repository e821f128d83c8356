//! The arrows: who may use whom, and what pure crates must not know.

use std::fs;

use moorline_tidy::{
    lockfile::{LIGHT, weight_complaints},
    none,
    source::files,
    tokens,
    workspace::{PURE, Workspace, arrow_complaints, order_complaints, root},
};

#[test]
fn crates_depend_downwards_only() {
    none("see ARCHITECTURE.md, \"Arrows\"", &arrow_complaints(&Workspace::read()));
}

#[test]
fn every_crate_has_its_place_in_the_order() {
    none("chaos-tests/tidy/src/workspace.rs: ORDER", &order_complaints(&Workspace::read()));
}

#[test]
fn pure_crates_know_no_time_and_no_world() {
    let mut wrong = Vec::new();
    for file in files(&["rs"]).iter().filter(|file| !file.is_test()) {
        let pure = PURE.iter().any(|pure| file.path.starts_with(pure));
        if pure && !file.path.starts_with("protocols/fuzz/") {
            wrong.extend(tokens::world_complaints(file, false));
        }
    }
    none("time and chance are arguments; decide in pure code, act at the rim", &wrong);
}

#[test]
fn the_service_knows_no_socket() {
    let mut wrong = Vec::new();
    for file in files(&["rs"]).iter().filter(|file| file.path.starts_with("node/service/src/")) {
        wrong.extend(tokens::world_complaints(file, true));
    }
    none("sockets belong to node/edge", &wrong);
}

#[test]
fn the_agent_brings_no_database_along() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    none("a device's program stays small", &weight_complaints(&lock.parse().unwrap(), &LIGHT));
}

/// Files of crates that are not pure as a whole.
const PURE_FILES: [&str; 9] = [
    "agent/src/api/",
    "agent/src/question.rs",
    "agent/src/row.rs",
    "agent/src/uplink/attempts.rs",
    "node/outward/src/address.rs",
    "node/webhooks/src/decide.rs",
    "node/webhooks/src/filter.rs",
    "node/webhooks/src/batch.rs",
    "node/webhooks/src/signature.rs",
];

#[test]
fn pure_files_know_no_time_and_no_world() {
    let files = files(&["rs"]);
    for pure in PURE_FILES {
        assert!(files.iter().any(|file| file.path.starts_with(pure)), "{pure} is gone");
    }
    let pure =
        files.iter().filter(|file| PURE_FILES.iter().any(|pure| file.path.starts_with(pure)));
    let wrong: Vec<_> = pure.flat_map(|file| tokens::world_complaints(file, false)).collect();
    none("time and chance are arguments; decide in pure code, act at the rim", &wrong);
}
