//! The files of the repository, and what can be said of one without understanding it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Complaint, workspace::root};

/// A file longer than this is split along a responsibility.
pub const FILE_LINES_MAX: usize = 800;

/// Files that were longer before there was the rule, and how long they may be. The list only shrinks.
pub const ALLOWANCES: [(&str, usize); 0] = [];

/// A header shorter than this says nothing.
const HEADER_CHARS_MIN: usize = 15;

/// File names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "common", "helper", "helpers", "manager", "misc"];

/// Folders that hold what tools made, or data.
const SKIPPED: [&str; 9] = [
    ".git",
    "target",
    "dev",
    ".venv",
    "node_modules",
    "__pycache__",
    "corpus",
    "data",
    "moorline-demo",
];

/// One text file.
#[derive(Debug, Clone)]
pub struct File {
    /// From the root, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl File {
    /// Whether it is there to test and never ships.
    #[must_use]
    pub fn is_test(&self) -> bool {
        let folders = ["/tests/", "/benches/", "/examples/"];
        folders.iter().any(|folder| self.path.contains(folder)) || self.path.ends_with("/tests.rs")
    }

    /// The file's name without its last extension.
    #[must_use]
    pub fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }
}

/// Every text file with one of these extensions. An empty extension means a file without one (a script).
///
/// # Panics
///
/// If a folder or a file can't be read.
#[must_use]
pub fn files(extensions: &[&str]) -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    walk(&root, &root, extensions, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(root: &Path, folder: &Path, extensions: &[&str], found: &mut Vec<File>) {
    let entries = fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path: PathBuf = entry.expect("a folder entry can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A link is counted where it points to.
        if path.is_symlink() || SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, extensions, found);
            continue;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        // Whatever is not UTF-8 is not a text of ours.
        if extensions.contains(&&*extension)
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root).expect("found below the root");
            found.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
        }
    }
}

/// Files that do not open with what they are.
#[must_use]
pub fn header_complaints(files: &[File]) -> Vec<Complaint> {
    let mut wrong = Vec::new();
    for File { path, text } in files {
        let header = text.lines().next().unwrap_or_default().strip_prefix("//! ");
        if header.is_none_or(|header| header.chars().count() < HEADER_CHARS_MIN) {
            wrong.push(format!("{path} does not open with a `//!` line that says what it is"));
        }
    }
    wrong
}

/// Files that are longer than they may be, and allowances that are larger than they need be.
#[must_use]
pub fn length_complaints(files: &[File], allowances: &[(&str, usize)]) -> Vec<Complaint> {
    let mut wrong = Vec::new();
    for file in files {
        let lines = file.text.lines().count();
        let allowance = allowances.iter().find(|(path, _)| *path == file.path);
        let allowed = allowance.map_or(FILE_LINES_MAX, |(_, lines)| *lines);
        if lines > allowed {
            wrong.push(format!("{} has {lines} lines, {allowed} are allowed", file.path));
        }
        if allowance.is_some() && lines < allowed {
            wrong.push(format!("{} shrank: lower its allowance to {lines}", file.path));
        }
    }
    let known = |path: &str| files.iter().any(|file| file.path == path);
    let gone = allowances.iter().filter(|(path, _)| !known(path));
    wrong.extend(gone.map(|(path, _)| format!("{path} is gone: so is its allowance")));
    wrong
}

/// Files whose name says nothing.
#[must_use]
pub fn name_complaints(files: &[File]) -> Vec<Complaint> {
    let empty = files.iter().filter(|file| EMPTY_NAMES.contains(&file.stem()));
    empty.map(|file| format!("{}: name it after what it holds", file.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_missing_header_is_seen() {
        let table = [
            ("//! What a queue holds, in rows.\n", true),
            ("//! Placeholder.\n", false),
            ("// What a queue holds, in rows.\n", false),
            ("\n//! What a queue holds, in rows.\n", false),
            ("use std::fmt;\n", false),
            ("", false),
        ];
        for (text, fine) in table {
            assert_eq!(header_complaints(&[file("a.rs", text)]).is_empty(), fine, "{text:?}");
        }
    }

    #[test]
    fn a_long_file_is_seen_and_an_allowance_only_shrinks() {
        let lines = |count: usize| file("a.rs", &"\n".repeat(count));
        let table = [
            (lines(FILE_LINES_MAX), vec![], ""),
            (lines(FILE_LINES_MAX + 1), vec![], "801 lines"),
            (lines(900), vec![("a.rs", 900)], ""),
            (lines(901), vec![("a.rs", 900)], "901 lines"),
            (lines(899), vec![("a.rs", 900)], "shrank"),
            (lines(1), vec![("b.rs", 900)], "b.rs is gone"),
        ];
        for (file, allowances, expected) in table {
            let complaints = length_complaints(&[file], &allowances).join("\n");
            assert!(complaints.contains(expected), "{complaints}");
            assert_eq!(complaints.is_empty(), expected.is_empty(), "{complaints}");
        }
    }

    #[test]
    fn an_empty_name_is_seen() {
        let files = [file("node/edge/src/utils.rs", ""), file("node/edge/src/listener.rs", "")];
        assert_eq!(
            name_complaints(&files),
            ["node/edge/src/utils.rs: name it after what it holds"]
        );
    }

    #[test]
    fn this_file_is_found_and_is_no_test() {
        let files = files(&["rs"]);
        let this = files.iter().find(|file| file.path == "chaos-tests/tidy/src/source.rs").unwrap();
        assert!(!this.is_test());
    }
}
