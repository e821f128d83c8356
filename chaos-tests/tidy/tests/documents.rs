//! The documents: what they say about the code is so.

use std::fs;

use moorline_tidy::{
    conformance, documents, none,
    source::{File, files},
    workspace::{Workspace, root},
};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn below(folder: &str) -> Vec<File> {
    let all = files(&["md"]);
    all.into_iter().filter(|file| file.path.starts_with(folder)).collect()
}

#[test]
fn every_crate_is_in_the_code_map() {
    let map = read("ARCHITECTURE.md");
    none("the map is for newcomers", &documents::map_complaints(&map, &Workspace::read()));
}

#[test]
fn every_library_has_its_sentence() {
    let sentences = read("docs/decisions/002-libraries.md");
    let complaints = documents::library_complaints(&sentences, &Workspace::read());
    none("docs/decisions/002-libraries.md", &complaints);
}

#[test]
fn decisions_are_numbered_one_after_the_other() {
    none("docs/decisions", &documents::decision_complaints(&below("docs/decisions/")));
}

#[test]
fn every_change_note_says_its_kind() {
    none("changelog.d", &documents::fragment_complaints(&below("changelog.d/")));
}

#[test]
fn no_link_leads_nowhere() {
    let root = root();
    let there = |path: &str| root.join(path).exists();
    let files = files(&["md"]);
    let wrong: Vec<_> = files.iter().flat_map(|f| documents::link_complaints(f, there)).collect();
    none("links between documents", &wrong);
}

#[test]
fn every_statement_of_mqtt_has_its_row() {
    none(
        "docs/mqtt-conformance.md",
        &conformance::row_complaints(&read("docs/mqtt-conformance.md")),
    );
}

#[test]
fn every_test_of_the_conformance_table_exists() {
    let text = read("docs/mqtt-conformance.md");
    let complaints = conformance::test_complaints(&text, &files(&["rs", "py"]), &Workspace::read());
    none("docs/mqtt-conformance.md", &complaints);
}
