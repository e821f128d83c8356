//! What the documents say about the code: the map names every crate, every library has its sentence, and so on.

use crate::{Complaint, source::File, workspace::Workspace};

/// What a change can be, as the last part of a fragment's name.
pub const CHANGE_KINDS: [&str; 6] =
    ["added", "changed", "fixed", "removed", "security", "performance"];

/// Crates the code map does not name.
#[must_use]
pub fn map_complaints(map: &str, workspace: &Workspace) -> Vec<Complaint> {
    let folders = workspace.packages.iter().map(|package| package.folder.as_str());
    let missing = folders.filter(|folder| !map.contains(&format!("`{folder}`")));
    missing.map(|folder| format!("ARCHITECTURE.md does not name `{folder}`")).collect()
}

/// Libraries without a sentence that says why, and sentences without a library.
#[must_use]
pub fn library_complaints(sentences: &str, workspace: &Workspace) -> Vec<Complaint> {
    let libraries = workspace.libraries();
    let rows = sentences.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let said: Vec<&str> = rows.map(|(name, _)| name).collect();
    let silent = libraries.iter().filter(|library| !said.contains(&library.as_str()));
    let gone = said.iter().filter(|said| !libraries.contains(**said));
    let silent = silent.map(|library| format!("`{library}` has no sentence that says why"));
    silent.chain(gone.map(|said| format!("`{said}` is no dependency any more"))).collect()
}

/// Decisions that are not numbered one after the other.
#[must_use]
pub fn decision_complaints(decisions: &[File]) -> Vec<Complaint> {
    let mut wrong = Vec::new();
    for (number, file) in (1..).zip(decisions) {
        let expected = format!("docs/decisions/{number:03}-");
        if !file.path.starts_with(&expected) {
            wrong.push(format!("{} should be called {expected}…", file.path));
        }
        if !file.text.starts_with(&format!("# {number:03}: ")) {
            wrong.push(format!("{} should open with `# {number:03}: `", file.path));
        }
    }
    wrong
}

/// Change notes whose name does not say what kind of change they are.
#[must_use]
pub fn fragment_complaints(fragments: &[File]) -> Vec<Complaint> {
    let of_a_kind = |file: &&File| {
        let kind = file.stem().rsplit_once('.').map_or("", |(_, kind)| kind);
        CHANGE_KINDS.contains(&kind) || file.stem() == "README"
    };
    let wrong = fragments.iter().filter(|file| !of_a_kind(file));
    wrong
        .map(|file| format!("{}: call it <slug>.<{}>.md", file.path, CHANGE_KINDS.join("|")))
        .collect()
}

/// Links to files of the repository that are not there.
#[must_use]
pub fn link_complaints(file: &File, exists: impl Fn(&str) -> bool) -> Vec<Complaint> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let links = file.text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let local = links.map(|(link, _)| link.split('#').next().unwrap_or_default());
    let local =
        local.filter(|link| !link.is_empty() && !link.contains("://") && !link.contains(' '));
    let broken = local.filter(|link| !exists(&resolve(folder, link)));
    broken.map(|link| format!("{}: nothing is at {link}", file.path)).collect()
}

/// A link, seen from the root.
fn resolve(folder: &str, link: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_silent_document_is_seen() {
        let manifest =
            "[workspace.dependencies]\nbytes = \"1\"\ncore = { path = \"protocols/core\" }";
        let workspace = Workspace { manifest: manifest.parse().unwrap(), packages: Vec::new() };
        assert_eq!(library_complaints("| `bytes` | shared buffers |", &workspace), [""; 0]);
        let complaints = library_complaints("| `tokio` | tasks |", &workspace);
        let expected =
            ["`bytes` has no sentence that says why", "`tokio` is no dependency any more"];
        assert_eq!(complaints, expected);
    }

    #[test]
    fn a_gap_between_decisions_is_seen() {
        let first = file("docs/decisions/001-a.md", "# 001: A\n");
        let third = file("docs/decisions/003-c.md", "# 003: C\n");
        assert_eq!(decision_complaints(&[first.clone(), third]).len(), 2);
        assert_eq!(decision_complaints(&[first]).len(), 0);
    }

    #[test]
    fn a_change_note_has_a_kind() {
        let fragments = ["README.md", "kill.fixed.md", "kill.md", "kill.improved.md"];
        let fragments = fragments.map(|name| file(&format!("changelog.d/{name}"), ""));
        assert_eq!(fragment_complaints(&fragments).len(), 2);
    }

    #[test]
    fn a_broken_link_is_seen() {
        let text = "[a](../README.md) [b](STYLE.md#words) [c](https://example.org) [d](gone.md)";
        let there = ["README.md", "docs/STYLE.md"];
        let complaints = link_complaints(&file("docs/a.md", text), |path| there.contains(&path));
        assert_eq!(complaints, ["docs/a.md: nothing is at gone.md"]);
    }
}
