//! The arrows: who may use whom, and what pure crates must not know.

use moorline_tidy::{
    none,
    source::files,
    tokens,
    workspace::{PURE, Workspace, arrow_complaints, order_complaints},
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
