//! The glossary, and who does not keep to it; notes that need an issue.
//!
//! One word per thing: `docs/GLOSSARY.md` ends with a table of words we do not use and what we say instead. They are
//! looked for in code, logs, comments and documents; a name like `masterKey` or `MASTER_KEY` counts as its parts.

use crate::{Complaint, source::File};

/// The heading of the table of synonyms.
const HEADING: &str = "## Words we do not use";

/// Words that promise work: one with an issue (`(#7)`) is a note, one without is forgotten.
const NOTES: [&str; 4] =
    [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X"), concat!("HA", "CK")];

/// Macros that end a program where work is missing.
const GAPS: [&str; 2] = [concat!("to", "do!("), concat!("unimple", "mented!(")];

/// A word we do not use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synonym {
    /// Its parts, in lower case.
    pub not: Vec<String>,
    /// What we say instead.
    pub but: String,
}

/// The table of synonyms of a glossary.
#[must_use]
pub fn synonyms(glossary: &str) -> Vec<Synonym> {
    let table = glossary.split_once(HEADING).map_or("", |(_, table)| table);
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        Some((cells.next()?, cells.next()?))
    });
    // The first two rows are the heading and the line under it.
    let rows = rows.skip(2).flat_map(|(not, but)| not.split(',').map(move |not| (not, but)));
    rows.map(|(not, but)| Synonym { not: parts(not), but: but.to_owned() }).collect()
}

/// Where a file says one of them.
#[must_use]
pub fn synonym_complaints(file: &File, synonyms: &[Synonym]) -> Vec<Complaint> {
    let mut wrong = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let said = parts(line);
        for Synonym { not, but } in synonyms {
            let last = not.last().map(|last| format!("{last}s"));
            let matches = |window: &[String]| match (window.split_last(), not.split_last()) {
                (Some((a, start)), Some((b, expected))) => {
                    start == expected && (a == b || Some(a) == last.as_ref())
                }
                _ => false,
            };
            if said.windows(not.len().max(1)).any(matches) {
                let not = not.join(" ");
                wrong.push(format!("{}:{}: say {but}, not {not}", file.path, number + 1));
            }
        }
    }
    wrong
}

/// Notes that name no issue, and macros that stand where work is missing.
#[must_use]
pub fn note_complaints(file: &File) -> Vec<Complaint> {
    let mut wrong = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let at = format!("{}:{}", file.path, number + 1);
        for (place, note) in NOTES.iter().flat_map(|note| line.match_indices(note)) {
            let part_of_a_word = |c: char| c.is_alphanumeric() || c == '_';
            let before = line[..place].ends_with(part_of_a_word);
            let after = &line[place + note.len()..];
            let with_issue = note == NOTES[0] && after.starts_with("(#");
            if !before && !after.starts_with(part_of_a_word) && !with_issue {
                wrong.push(format!("{at}: {note} needs an issue: {}(#n)", NOTES[0]));
            }
        }
        let gaps = GAPS.iter().filter(|gap| line.contains(**gap));
        wrong.extend(gaps.map(|gap| format!("{at}: `{gap}…)`: build it or leave it out")));
    }
    wrong
}

/// The words of a text, names taken apart at `_` and at capitals, in lower case. What parts a sentence or an
/// expression stands between them as a word of its own, so that `message: Box` is no message box.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut after_lower = false;
    for c in text.chars() {
        let starts = c.is_uppercase() && after_lower;
        if starts || !c.is_alphanumeric() {
            parts.push(String::new());
        }
        if !c.is_alphanumeric() && ![' ', '_', '-'].contains(&c) {
            parts.extend([c.to_string(), String::new()]);
        }
        if c.is_alphanumeric() {
            parts.last_mut().expect("never empty").extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase();
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLOSSARY: &str = "
| word | meaning |
|---|---|
| leader | the replica that proposes |

## Words we do not use

| not | but |
|---|---|
| master, primary node | leader |
";

    fn file(text: &str) -> File {
        File { path: "a.rs".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_synonym_is_seen_wherever_it_hides() {
        let synonyms = synonyms(GLOSSARY);
        assert_eq!(synonyms.len(), 2, "{synonyms:?}");
        let table = [
            ("the leader of a shard", 0),
            ("the master of a shard", 1),
            ("two masters", 1),
            ("fn find_master()", 1),
            ("struct MasterNode;", 1),
            ("const MASTER: u8 = 1;", 1),
            ("a masterpiece", 0),
            ("the primary key", 0),
            ("the primary node", 1),
            ("primary_node", 1),
            ("primary: Node", 0),
        ];
        for (text, expected) in table {
            let found = synonym_complaints(&file(text), &synonyms);
            assert_eq!(found.len(), expected, "{text}: {found:?}");
        }
    }

    #[test]
    fn a_note_without_an_issue_is_seen() {
        let table = [
            (concat!("// FIX", "ME(#7): the other side answers twice"), 0),
            (concat!("// FIX", "ME: the other side answers twice"), 1),
            (concat!("# TO", "DO(#7) later"), 1),
            (concat!("let TO", "DOS = 1;"), 0),
            (concat!("fn f() { to", "do!(\"later\") }"), 1),
            ("fn f() { unreachable!(\"a shard has a leader\") }", 0),
        ];
        for (text, expected) in table {
            let found = note_complaints(&file(text));
            assert_eq!(found.len(), expected, "{text}: {found:?}");
        }
    }
}
