//! Every cause has its words, and comes from somewhere.
//!
//! The words are compared with `causes.golden`, so that whoever changes what an operator reads sees it in the change; where they name
//! a setting, a command or a metric, that is looked for in the documents. `MOORLINE_WRITE_CAUSES=1` writes the file.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use moorline_explain::Cause;

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All texts below a directory with one of these endings.
fn texts(dir: &Path, ending: &str, into: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            texts(&path, ending, into);
        } else if path.extension().is_some_and(|found| found == ending) {
            let text = fs::read_to_string(&path).expect("a text");
            into.push((path, text));
        }
    }
}

#[test]
fn the_words_of_each_cause_are_those_that_were_agreed_on() {
    let told: String = Cause::all()
        .map(|cause| format!("{}\n    {}\n    do: {}\n", cause.label(), cause.what(), cause.fix()))
        .collect();
    let golden = here().join("tests/causes.golden");
    if std::env::var_os("MOORLINE_WRITE_CAUSES").is_some() {
        fs::write(&golden, &told).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    for (told, expected) in told.lines().zip(expected.lines()) {
        assert_eq!(told, expected);
    }
    assert_eq!(told.lines().count(), expected.lines().count());
    let causes = Cause::all().count();
    assert!(causes >= 40, "{causes} causes");
}

#[test]
fn every_cause_has_its_own_words() {
    let all: Vec<Cause> = Cause::all().collect();
    assert_eq!(all.len(), Cause::COUNT);
    assert!(all.is_sorted(), "the table is in the order of the enum");
    for of in [Cause::label, Cause::what, Cause::fix] {
        let words: Vec<&str> = all.iter().map(|cause| of(*cause)).collect();
        let ended = words.iter().find(|words| words.ends_with('.'));
        assert!(words.iter().all(|words| !words.is_empty()) && ended.is_none(), "{ended:?}");
    }
    for of in [Cause::label, Cause::what] {
        let words: BTreeSet<&str> = all.iter().map(|cause| of(*cause)).collect();
        assert_eq!(words.len(), all.len(), "no two causes say the same");
    }
    for cause in all {
        let written = serde_json::to_string(&cause).unwrap();
        assert_eq!(written, format!("\"{}\"", cause.label()));
    }
}

/// The list can't grow by causes that nothing says.
#[test]
fn every_cause_comes_from_somewhere() {
    let mut sources = Vec::new();
    texts(here().parent().unwrap(), "rs", &mut sources);
    let is_source = |path: &Path| {
        let is_of = |part: &str| path.components().any(|of| of.as_os_str() == part);
        is_of("src") && !path.ends_with("explain/src/cause.rs")
    };
    sources.retain(|(path, _)| is_source(path));
    assert!(sources.len() > 100, "{} sources", sources.len());
    let code = |text: &str| -> String {
        let lines = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines();
        lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let sources: Vec<String> = sources.iter().map(|(_, text)| code(text)).collect();
    let said = |name: &str| {
        let by = [format!("Cause::{name}"), format!("Self::{name}")];
        sources.iter().any(|text| {
            by.iter().any(|by| {
                text.match_indices(by.as_str()).any(|(at, _)| {
                    let next = text[at + by.len()..].chars().next();
                    !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
                        && (by.starts_with("Cause") || text.contains("impl Cause"))
                })
            })
        })
    };
    let unsaid: Vec<_> =
        Cause::all().map(|cause| format!("{cause:?}")).filter(|name| !said(name)).collect();
    assert!(unsaid.is_empty(), "nothing says {unsaid:?}");
}

/// At night nobody wants to look for a setting that has another name.
#[test]
fn what_a_fix_names_is_in_the_documents() {
    let mut documents = Vec::new();
    texts(&here().join("../../docs"), "md", &mut documents);
    documents.retain(|(path, _)| !path.ends_with("explain.md"));
    let readme = here().join("../../README.md");
    documents.push((readme.clone(), fs::read_to_string(readme).unwrap()));
    let mut commands = Vec::new();
    texts(&here().join("../moorline/src"), "rs", &mut commands);
    let mut unknown = Vec::new();
    for cause in Cause::all() {
        for (at, name) in format!("{} {}", cause.what(), cause.fix()).split('`').enumerate() {
            if at % 2 == 0 {
                continue;
            }
            let is_known = match name.strip_prefix("moorline ") {
                Some(command) => command.split(' ').all(|word| {
                    let variant: String =
                        word.split('-').map(|part| part[..1].to_uppercase() + &part[1..]).collect();
                    let (open, comma) = (format!("    {variant}"), format!("{variant}Command"));
                    commands.iter().any(|(_, text)| text.contains(&open) || text.contains(&comma))
                }),
                None => documents.iter().any(|(_, text)| text.contains(name)),
            };
            if !is_known {
                unknown.push(format!("{}: {name}", cause.label()));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}
