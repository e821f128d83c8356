//! What a program brings along, by `Cargo.lock`: crates that must stay small do not find a database below them.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::Complaint;

/// Packages and what must not be below them, by the packages' names: what would make a small device's program large.
pub const LIGHT: [(&str, &[&str]); 1] = [(
    "moorline-agent",
    &["rust-rocksdb", "rust-librocksdb-sys", "librocksdb-sys", "openraft", "tonic", "prometheus"],
)];

/// What is below a light package and must not be. What its tests use counts as well: the lock does not tell it apart.
#[must_use]
pub fn weight_complaints(lock: &Table, light: &[(&str, &[&str])]) -> Vec<Complaint> {
    let packages = packages(lock);
    let mut wrong = Vec::new();
    for (name, heavy) in light {
        if !packages.contains_key(name) {
            wrong.push(format!("{name} is in LIGHT and gone"));
        }
        let below = below(&packages, name);
        let found = heavy.iter().filter(|heavy| below.contains(**heavy));
        wrong.extend(found.map(|heavy| format!("{name} must not bring {heavy} along")));
    }
    wrong
}

/// Each package's name with what it uses; several versions of one are taken together.
fn packages(lock: &Table) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut packages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let all = lock.get("package").and_then(Value::as_array).into_iter().flatten();
    for package in all {
        let Some(name) = package.get("name").and_then(Value::as_str) else { continue };
        let uses = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
        // `name`, or `name version` where there are several.
        let uses = uses.filter_map(|used| used.as_str()?.split(' ').next());
        packages.entry(name).or_default().extend(uses);
    }
    packages
}

fn below<'a>(packages: &BTreeMap<&str, BTreeSet<&'a str>>, name: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&str> = packages.get(name).into_iter().flatten().copied().collect();
    while let Some(used) = next.pop() {
        if found.insert(used) {
            next.extend(packages.get(used).into_iter().flatten().copied());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_below_is_seen() {
        let package = |name: &str, uses: &str| {
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\ndependencies = [{uses}]\n"
            )
        };
        let lock = [
            package("agent", "\"one\""),
            package("one", "\"two 2.0.0\", \"one\""),
            package("two", ""),
            package("two", "\"database\""),
            package("database", ""),
            package("other", "\"raft\""),
        ];
        let lock: Table = lock.concat().parse().unwrap();
        let complaints = |light: &[(&str, &[&str])]| weight_complaints(&lock, light);
        assert_eq!(complaints(&[("agent", &["raft"])]), [""; 0]);
        assert_eq!(
            complaints(&[("agent", &["database", "raft"])]),
            ["agent must not bring database along"]
        );
        assert_eq!(complaints(&[("gone", &["raft"])]), ["gone is in LIGHT and gone"]);
    }
}
