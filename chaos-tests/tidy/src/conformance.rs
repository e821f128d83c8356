//! The table of the standard's statements (docs/mqtt-conformance.md): each once, in order, with a test that exists or a
//! reason.

use crate::{Complaint, source::File, workspace::Workspace};

/// What the last column may begin with instead of a test.
const REASONS: [&str; 4] = ["client", "not offered: ", "never sent: ", "by construction: "];

/// Tests in Python, which are no crate's: how the table calls their folder, and where it is.
const CLIENTS: (&str, &str) = ("clients", "chaos-tests/clients");

/// Rows out of order, twice there, or without a test or a reason. A heading begins a new standard.
#[must_use]
pub fn row_complaints(table: &str) -> Vec<Complaint> {
    let mut wrong = Vec::new();
    let mut last: Vec<u32> = Vec::new();
    let mut rows = 0;
    for line in table.lines() {
        if line.starts_with("## ") {
            last.clear();
        }
        let Some(row) = line.strip_prefix("| MQTT-") else { continue };
        rows += 1;
        let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").map(str::trim).collect();
        let [id, asks, checked] = cells[..] else {
            wrong.push(format!("MQTT-{row} should have three cells"));
            continue;
        };
        let numbers: Option<Vec<u32>> =
            id.split(['.', '-']).map(|part| part.parse().ok()).collect();
        match numbers {
            Some(numbers) if numbers > last => last = numbers,
            Some(_) => wrong.push(format!("MQTT-{id} is there twice or out of order")),
            None => wrong.push(format!("MQTT-{id} is no number of a statement")),
        }
        let has_reason = REASONS.iter().any(|reason| checked.starts_with(reason));
        if asks.is_empty() || tests_in(checked).next().is_none() && !has_reason {
            wrong.push(format!("MQTT-{id} has neither a test nor a reason"));
        }
    }
    if rows == 0 {
        wrong.push("there are no rows".to_owned());
    }
    wrong
}

/// Tests that the text names and no file has.
#[must_use]
pub fn test_complaints(text: &str, files: &[File], workspace: &Workspace) -> Vec<Complaint> {
    let mut named: Vec<&str> = tests_in(text).collect();
    named.sort_unstable();
    named.dedup();
    let missing = named.into_iter().filter(|test| !exists(test, files, workspace));
    missing.map(|test| format!("there is no test `{test}`")).collect()
}

/// What stands in backticks and looks like `crate::file::test`.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|quoted| quoted.split("::").count() == 3 && !quoted.ends_with('…'))
}

fn exists(test: &str, files: &[File], workspace: &Workspace) -> bool {
    let parts: Vec<&str> = test.split("::").collect();
    let [package, module, name] = parts[..] else { return false };
    let (folder, opening) = if package == CLIENTS.0 {
        (CLIENTS.1, format!("def {name}("))
    } else {
        let full = format!("moorline-{package}");
        let found = workspace.packages.iter().find(|found| found.name == full);
        let Some(found) = found else { return false };
        (found.folder.as_str(), format!("fn {name}("))
    };
    files.iter().any(|file| {
        let inside = file.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        inside && file.stem() == module && is_test(&file.text, &opening)
    })
}

/// Whether the function that opens so is a test: in Rust its attribute stands above it, with other attributes at most
/// in between.
fn is_test(text: &str, opening: &str) -> bool {
    let Some(at) = text.find(opening) else { return false };
    if opening.starts_with("def ") {
        return true;
    }
    let above = text[..at].rsplit_once('\n').map_or("", |(above, _)| above).lines().rev();
    let mut attributes = above.take_while(|line| line.trim_start().starts_with('#'));
    attributes.any(|line| line.contains("test]") || line.contains("test("))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Package;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn good_rows_pass_and_the_same_number_may_stand_in_both_standards() {
        let table = "## MQTT 5.0\n| MQTT-1.5.4-1 | text | `mqtt::codec::a` |\n\
            | MQTT-1.5.4-2 | x | client |\n| MQTT-3.1.2-9 | x | not offered: wills |\n\
            | MQTT-3.1.2-10 | x | `mqtt::codec::a`, `mqtt::codec::b` |\n| MQTT-4.2-1 | x | client |\n\
            ## MQTT 3.1.1\n| MQTT-1.5.4-1 | text | never sent: x |\n";
        assert_eq!(row_complaints(table), [""; 0]);
    }

    #[test]
    fn bad_rows_are_seen() {
        #[rustfmt::skip]
        let table = [
            ("| MQTT-1.1.1-1 | x | client |\n| MQTT-1.1.1-1 | x | client |", "twice"),
            ("| MQTT-3.1.2-10 | x | client |\n| MQTT-3.1.2-9 | x | client |", "out of order"),
            ("| MQTT-1.1.1-1 | x | because |", "neither"),
            ("| MQTT-1.1.1-1 | x | `one` |", "neither"),
            ("| MQTT-1.1.1-1 | x |", "three cells"),
            ("| MQTT-1.1.1-a | x | client |", "no number"),
            ("nothing", "no rows"),
        ];
        for (rows, complaint) in table {
            let complaints = row_complaints(rows);
            assert!(complaints.len() == 1 && complaints[0].contains(complaint), "{complaints:?}");
        }
    }

    #[test]
    fn a_test_that_is_gone_is_seen() {
        let files = [
            file(
                "protocols/mqtt/tests/it/codec.rs",
                "#[test]\n#[ignore]\nfn is_there() {}\nfn helper() {}",
            ),
            file("protocols/core/src/codec.rs", "#[test]\nfn elsewhere() {}"),
            file("chaos-tests/clients/test_a.py", "def test_b(cluster):\n"),
        ];
        let package = Package {
            name: "moorline-mqtt".to_owned(),
            folder: "protocols/mqtt".to_owned(),
            manifest: toml::Table::new(),
        };
        let workspace = Workspace { manifest: toml::Table::new(), packages: vec![package] };
        let complaints = |text: &str| test_complaints(text, &files, &workspace);
        assert_eq!(complaints("`mqtt::codec::is_there`, `clients::test_a::test_b`"), [""; 0]);
        let gone = [
            "`mqtt::codec::is_gone`",
            "`mqtt::other::is_there`",
            "`mqtt::codec::elsewhere`",
            "`core::codec::elsewhere`",
            "`mqtt::codec::helper`",
            "`clients::test_a::test_c`",
        ];
        for test in gone {
            assert_eq!(complaints(test).len(), 1, "{test}");
        }
    }
}
