//! The files: headers, lengths, names.

use moorline_tidy::{
    none,
    source::{ALLOWANCES, files, header_complaints, length_complaints, name_complaints},
};

#[test]
fn every_file_opens_with_a_header() {
    none("say what a file is before it begins", &header_complaints(&files(&["rs"])));
}

#[test]
fn no_file_is_longer_than_its_allowance() {
    let files = files(&["rs", "py", "js", "sh", ""]);
    none("split along a responsibility", &length_complaints(&files, &ALLOWANCES));
}

#[test]
fn no_file_is_named_after_nothing() {
    none("a name says what is inside", &name_complaints(&files(&["rs", "py"])));
}
