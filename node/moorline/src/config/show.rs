//! `moorline config show`: every value that counts, and with `--origin` the line that says so.

use std::{fmt::Write, path::Path};

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::{Config, ConfigError};

/// Values that are secrets: that they are there is shown.
pub(super) const SECRETS: [&str; 1] = ["cluster.token"];

/// All values of a file and of the defaults, one a line, by key.
pub(crate) fn show(path: &Path, with_origin: bool) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let config = Config::parse(&text, path)?;
    let values = serde_json::to_value(&config).expect("a configuration is a map with string keys");
    let lines = lines_of(&text);
    let mut out = String::new();
    let mut say = |key: &str, value: &Value| {
        let shown =
            if SECRETS.contains(&key) { "\"(a secret)\"".to_owned() } else { value.to_string() };
        write!(out, "{key} = {shown}").expect("a string takes everything");
        if with_origin {
            let line = lines.iter().rfind(|(said, _)| is_within(key, said)).map(|(_, line)| line);
            match line {
                Some(line) => write!(out, "    # {}:{line}", path.display()),
                None => write!(out, "    # default"),
            }
            .expect("a string takes everything");
        }
        out.push('\n');
    };
    each(&values, "", &mut say);
    Ok(out)
}

/// What a key of the file says is said of all that is in it.
fn is_within(key: &str, said: &str) -> bool {
    key == said || key.strip_prefix(said).is_some_and(|rest| rest.starts_with('.'))
}

/// What is not there (`null`) is nothing that counts.
pub(super) fn each(value: &Value, key: &str, say: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                each(value, &key, say);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => say(key, value),
    }
}

/// The keys of a file that have values, and their lines.
fn lines_of(text: &str) -> Vec<(String, usize)> {
    let mut lines = Vec::new();
    // It was parsed before.
    if let Ok(table) = DeTable::parse(text) {
        collect(text, table.get_ref(), "", &mut lines);
    }
    lines
}

fn collect(text: &str, table: &DeTable<'_>, within: &str, lines: &mut Vec<(String, usize)>) {
    for (name, value) in table {
        let key = match within {
            "" => name.get_ref().to_string(),
            within => format!("{within}.{}", name.get_ref()),
        };
        if let DeValue::Table(inner) = value.get_ref() {
            collect(text, inner, &key, lines);
        } else {
            let line = text[..name.span().start].matches('\n').count() + 1;
            lines.push((key, line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_says_where_it_comes_from() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.toml");
        let text = "[node]\nid = 1\ndata-dir = \"data\"\n[cluster]\ntoken = \"canary\"\nshards = 3\n\
                    peers = [{ id = 1, address = \"a:1\" }]\n[listen]\nws = \"127.0.0.1:9\"\n";
        std::fs::write(&file, text).unwrap();
        let shown = show(&file, true).unwrap();
        let line = |key: &str| {
            let found = shown.lines().find(|line| line.starts_with(&format!("{key} = ")));
            found.unwrap_or_else(|| panic!("no {key} in {shown}")).to_owned()
        };
        let at = |number: usize| format!("# {}:{number}", file.display());
        assert!(line("node.id").ends_with(&at(2)));
        assert!(line("cluster.shards").starts_with("cluster.shards = 3 "));
        assert!(line("cluster.shards").ends_with(&at(6)));
        assert!(line("listen.ws").ends_with(&at(9)));
        assert!(line("listen.admin").ends_with("# default"));
        assert!(line("cluster.peers").ends_with(&at(7)));
        assert!(!shown.contains("canary"));
        assert!(!show(&file, false).unwrap().contains('#'));
        assert!(show(&dir.path().join("none"), true).is_err());
    }
}
