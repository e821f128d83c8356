//! Words: one per thing, and no promise without an issue.

use std::fs;

use moorline_tidy::{none, source::files, words, workspace::root};

/// Where the synonyms are listed, so that they must stand there.
const GLOSSARY: &str = "docs/GLOSSARY.md";

#[test]
fn glossary_synonyms_do_not_appear() {
    let synonyms = words::synonyms(&fs::read_to_string(root().join(GLOSSARY)).unwrap());
    assert!(!synonyms.is_empty(), "{GLOSSARY} has no table of words we do not use");
    let mut wrong = Vec::new();
    for file in files(&["rs", "md", "toml", "proto", "py", "js", "yaml", "yml", "service", ""]) {
        // The checker's own tests plant some.
        if file.path != GLOSSARY && file.path != "chaos-tests/tidy/src/words.rs" {
            wrong.extend(words::synonym_complaints(&file, &synonyms));
        }
    }
    none("one word per thing: docs/GLOSSARY.md", &wrong);
}

#[test]
fn no_note_is_without_an_issue() {
    let files = files(&["rs", "toml", "proto", "py", "js", "yaml", "yml", "service", ""]);
    let wrong: Vec<_> = files.iter().flat_map(words::note_complaints).collect();
    none("a promise names its issue", &wrong);
}
