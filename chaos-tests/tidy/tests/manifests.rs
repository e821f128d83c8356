//! The manifests: one version, one set of lints, one place for dependencies.

use moorline_tidy::{
    none,
    workspace::{Workspace, inheritance_complaints},
};

#[test]
fn every_package_inherits_lints_and_versions() {
    none("the workspace decides for all", &inheritance_complaints(&Workspace::read()));
}
