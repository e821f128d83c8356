//! Style as tests: what the checks in `tests/` share.
//!
//! ```text
//!   workspace   the manifests: packages, what they use, in which order they may
//!   lockfile    what programs bring along that must stay small
//!   source      the files: which there are, and what they hold
//!   tokens      Rust code as tokens: calls with bare numbers, tasks without an owner
//!   words       the glossary, and who does not keep to it; notes that need an issue
//!   documents   what the documents say about the code
//!   conformance the table of the standard's statements, and the tests it names
//! ```
//!
//! # Invariants
//!
//! - **A check can fail.** Every check is a function from text or manifests to a list of complaints, and each has a
//!   test beside it that plants a violation.
//! - **Nothing is run.** The checks read files: no compiler, no network, no `cargo`. They take well under a second.
//!
//! # Deliberately absent
//!
//! What rustc and clippy already say (`[workspace.lints]`, the `clippy.toml` files).

pub mod conformance;
pub mod documents;
pub mod lockfile;
pub mod source;
pub mod tokens;
pub mod words;
pub mod workspace;

/// One thing that is wrong: where, and what to do about it.
pub type Complaint = String;

/// Ends a test with all its complaints, not only the first.
///
/// # Panics
///
/// If there is any.
pub fn none(rule: &str, complaints: &[Complaint]) {
    assert!(complaints.is_empty(), "{rule}\n  {}\n", complaints.join("\n  "));
}
