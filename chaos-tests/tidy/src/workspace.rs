//! The manifests: which packages there are, what they use, and in which order they may.
//!
//! The order is total ([`ORDER`]), so "may A use B?" needs no thought. It is what ARCHITECTURE.md draws under
//! "Arrows"; changing one means changing the other in the same commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use crate::Complaint;

/// Every crate's folder, bottom first. A crate may use those before it, and no other.
pub const ORDER: [&str; 29] = [
    "protocols/core",
    "protocols/mqtt",
    "protocols/moonlight",
    "protocols/dialects",
    "agent",
    "storage/api",
    "storage/rocks",
    "raft/machine",
    "raft/group",
    "raft/router",
    "node/explain",
    "node/service",
    "node/edge",
    "node/http",
    "node/outward",
    "node/webhooks",
    "node/fostrom",
    "node/watson",
    "node/drogue",
    "node/thingsboard",
    "node/losant",
    "node/api",
    "node/moorline",
    "chaos-tests/oracle",
    "chaos-tests/sim",
    "chaos-tests/lossyfs",
    "chaos-tests/cluster",
    "chaos-tests/peers",
    "chaos-tests/tidy",
];

/// Folders whose crates are functions of their arguments: they use each other and none of [`WORLD`].
pub const PURE: [&str; 4] = ["protocols/", "storage/api", "raft/machine", "chaos-tests/oracle"];

/// Libraries that would let the world (time, chance, disks, networks) into a pure crate.
pub const WORLD: [&str; 20] = [
    "axum",
    "fuser",
    "futures-util",
    "hyper",
    "hyper-util",
    "libc",
    "openraft",
    "parking_lot",
    "prometheus",
    "rand",
    "reqwest",
    "rocksdb",
    "rumqttc",
    "rustix",
    "rustls",
    "socket2",
    "tokio",
    "tokio-util",
    "tonic",
    "tracing",
];

/// Arrows that point down and are wrong all the same: folder, what it must not use, why.
pub const FORBIDDEN: [(&str, &str, &str); 5] = [
    ("node/edge", "raft/", "an edge knows no Raft"),
    ("node/edge", "storage/", "an edge keeps nothing"),
    ("node/edge", "node/service", "they meet in moorline_core::port"),
    ("node/service", "protocols/mqtt", "the service knows no packet"),
    ("node/service", "storage/rocks", "the service reaches its rows through raft/group"),
];

/// Libraries that only these folders may name, so that replacing one is work in one place.
pub const OWNED: [(&str, &[&str]); 7] = [
    ("rocksdb", &["storage/rocks"]),
    ("openraft", &["raft/group"]),
    ("tonic", &["raft/group"]),
    ("hyper", &["node/http", "node/outward", "node/moorline", "chaos-tests/cluster"]),
    ("fuser", &["chaos-tests/lossyfs"]),
    ("rumqttd", &["chaos-tests/peers"]),
    ("socket2", &["node/edge", "node/moorline", "raft/group", "chaos-tests/cluster"]),
];

/// What every `[package]` takes from the workspace.
const INHERITED: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];

/// When a package needs a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// To run.
    Normal,
    /// To build.
    Build,
    /// To be tested.
    Dev,
}

/// One crate of ours.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name (`moorline-core`).
    pub name: String,
    /// Its folder from the root (`protocols/core`).
    pub folder: String,
    /// The whole manifest.
    pub manifest: Table,
}

/// The root manifest and the packages it names.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The root manifest.
    pub manifest: Table,
    /// The members, in the manifest's order.
    pub packages: Vec<Package>,
}

/// The repository's root: of the clone whose tests run, which is asked when they run, since clones that share a target directory
/// share the binaries in it.
///
/// # Panics
///
/// If cargo does not say where this crate is, or it is no longer two folders below the root.
#[must_use]
pub fn root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this crate is");
    let here = Path::new(&here);
    here.ancestors().nth(2).expect("chaos-tests/tidy is two folders down").to_owned()
}

impl Workspace {
    /// Reads every manifest of the repository.
    ///
    /// # Panics
    ///
    /// If one is missing or is not TOML: then nothing else can be checked.
    #[must_use]
    pub fn read() -> Self {
        let root = root();
        let manifest = read_manifest(&root.join("Cargo.toml"));
        let packages = strings(&manifest["workspace"]["members"])
            .map(|folder| {
                let manifest = read_manifest(&root.join(&folder).join("Cargo.toml"));
                let name = manifest["package"]["name"].as_str().expect("a package has a name");
                Package { name: name.to_owned(), folder, manifest }
            })
            .collect();
        Self { manifest, packages }
    }

    /// The folder of a crate of ours, by its package name.
    fn folder_of(&self, name: &str) -> Option<&str> {
        let package = self.packages.iter().find(|package| package.name == name)?;
        Some(&package.folder)
    }

    /// Names under `[workspace.dependencies]` that are not ours.
    #[must_use]
    pub fn libraries(&self) -> BTreeSet<String> {
        let all = self.manifest["workspace"]["dependencies"].as_table();
        let all = all.expect("the root manifest lists the dependencies");
        let theirs = all.iter().filter(|(_, value)| value.get("path").is_none());
        theirs.map(|(name, _)| name.clone()).collect()
    }
}

impl Package {
    /// What this package uses, by the name it is used under.
    #[must_use]
    pub fn uses(&self) -> BTreeMap<(String, Kind), Value> {
        let mut uses = BTreeMap::new();
        let targets = self.manifest.get("target").and_then(Value::as_table);
        let targets = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
        for table in std::iter::once(&self.manifest).chain(targets) {
            for (section, kind) in [
                ("dependencies", Kind::Normal),
                ("build-dependencies", Kind::Build),
                ("dev-dependencies", Kind::Dev),
            ] {
                let section = table.get(section).and_then(Value::as_table);
                for (name, value) in section.into_iter().flatten() {
                    uses.insert((name.clone(), kind), value.clone());
                }
            }
        }
        uses
    }
}

/// Whether the crates' folders and [`ORDER`] are the same list.
#[must_use]
pub fn order_complaints(workspace: &Workspace) -> Vec<Complaint> {
    let ordered: BTreeSet<&str> = ORDER.into_iter().collect();
    let there: BTreeSet<&str> = workspace.packages.iter().map(|p| p.folder.as_str()).collect();
    let missing =
        there.difference(&ordered).map(|folder| format!("{folder} has no place in ORDER"));
    let gone = ordered.difference(&there).map(|folder| format!("{folder} is in ORDER and gone"));
    missing.chain(gone).collect()
}

/// Arrows that point up, into the world, or where they are forbidden.
#[must_use]
pub fn arrow_complaints(workspace: &Workspace) -> Vec<Complaint> {
    let place = |folder: &str| ORDER.iter().position(|ordered| *ordered == folder);
    let mut wrong = Vec::new();
    for package in &workspace.packages {
        let Package { name, folder, .. } = package;
        for (used, kind) in package.uses().into_keys() {
            let Some(below) = workspace.folder_of(&used) else {
                wrong.extend(library_complaint(name, folder, &used, kind));
                continue;
            };
            if place(folder) <= place(below) {
                wrong.push(format!("{name} ({folder}) must not use {used} ({below}): it is above"));
            }
            if kind == Kind::Normal && is_pure(folder) && !is_pure(below) {
                wrong.push(format!("{name} ({folder}) is pure and must not use {used} ({below})"));
            }
            for (who, what, why) in FORBIDDEN {
                if folder == who && below.starts_with(what) && kind != Kind::Dev {
                    wrong.push(format!("{name} ({folder}) must not use {used} ({below}): {why}"));
                }
            }
        }
    }
    wrong
}

fn library_complaint(name: &str, folder: &str, used: &str, kind: Kind) -> Option<Complaint> {
    if kind == Kind::Normal && is_pure(folder) && WORLD.contains(&used) {
        return Some(format!("{name} ({folder}) is pure and must not use {used}"));
    }
    let (_, owners) = OWNED.iter().find(|(library, _)| *library == used)?;
    let owned = kind == Kind::Dev || owners.contains(&folder);
    (!owned).then(|| format!("{name} ({folder}) must not use {used}: only {owners:?} may"))
}

fn is_pure(folder: &str) -> bool {
    PURE.iter().any(|pure| folder.starts_with(pure))
}

/// Packages that set for themselves what the workspace sets for all.
#[must_use]
pub fn inheritance_complaints(workspace: &Workspace) -> Vec<Complaint> {
    let mut wrong = Vec::new();
    for package in &workspace.packages {
        let Package { name, manifest, .. } = package;
        for key in INHERITED {
            if !inherits(manifest["package"].get(key)) {
                wrong.push(format!("{name}: [package] needs {key}.workspace = true"));
            }
        }
        if !inherits(manifest.get("lints")) {
            wrong.push(format!("{name}: needs [lints] workspace = true"));
        }
        for ((used, _), value) in package.uses() {
            if !inherits(Some(&value)) {
                wrong.push(format!("{name}: {used} belongs into [workspace.dependencies]"));
            }
        }
    }
    wrong
}

fn inherits(value: Option<&Value>) -> bool {
    let workspace = value.and_then(|value| value.get("workspace"));
    workspace.and_then(Value::as_bool) == Some(true)
}

fn read_manifest(path: &Path) -> Table {
    let text = fs::read_to_string(path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn strings(value: &Value) -> impl Iterator<Item = String> {
    let list = value.as_array().cloned().unwrap_or_default();
    list.into_iter().filter_map(|value| value.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of these packages: name, folder, dependency lines.
    fn of(packages: &[(&str, &str, &str)]) -> Workspace {
        let packages = packages.iter().map(|(name, folder, uses)| Package {
            name: (*name).to_owned(),
            folder: (*folder).to_owned(),
            manifest: format!("[package]\nname = {name:?}\n{uses}").parse().unwrap(),
        });
        Workspace { manifest: Table::new(), packages: packages.collect() }
    }

    #[test]
    fn a_wrong_arrow_is_seen() {
        let core = ("core", "protocols/core", "");
        let rocks = ("rocks", "storage/rocks", "");
        let table: [(&[_], &str); 8] = [
            (&[core, ("mqtt", "protocols/mqtt", "[dependencies]\ncore = 1")], ""),
            (&[core, ("mqtt", "protocols/mqtt", "[dependencies]\nbytes = 1")], ""),
            (&[rocks, ("mqtt", "protocols/mqtt", "[dev-dependencies]\nrocks = 1")], "it is above"),
            (&[rocks, ("machine", "raft/machine", "[dependencies]\nrocks = 1")], "is pure"),
            (&[("machine", "raft/machine", "[dependencies]\nrand = 1")], "is pure"),
            (
                &[("machine", "raft/machine", "[target.'cfg(unix)'.dependencies]\ntokio = 1")],
                "is pure",
            ),
            (&[rocks, ("edge", "node/edge", "[dependencies]\nrocks = 1")], "keeps nothing"),
            (&[("service", "node/service", "[dependencies]\nsocket2 = 1")], "only"),
        ];
        for (packages, expected) in table {
            let complaints = arrow_complaints(&of(packages)).join("\n");
            assert!(complaints.contains(expected), "{packages:?}: {complaints}");
            assert_eq!(complaints.is_empty(), expected.is_empty(), "{packages:?}: {complaints}");
        }
    }

    #[test]
    fn an_own_version_is_seen() {
        let own = of(&[("core", "protocols/core", "[dependencies]\nbytes = \"1\"")]);
        let complaints = inheritance_complaints(&own);
        assert_eq!(complaints.len(), INHERITED.len() + 2, "{complaints:?}");
        assert_eq!(
            complaints[INHERITED.len() + 1],
            "core: bytes belongs into [workspace.dependencies]"
        );
    }
}
