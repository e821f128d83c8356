//! Answers of the API for eyes: lists as tables, one thing as lines. Programs get JSON, with `--json` or off a terminal.

use std::fmt::Write;

use serde_json::{Map, Value};

/// Characters of a column: the rest is left out, `…` in its place.
const COLUMN_MAX: usize = 48;

/// An answer as text that ends with a line break.
pub(super) fn text(answer: &Value) -> String {
    match answer {
        Value::Array(rows) => table(rows),
        Value::Object(fields) => {
            let list = fields.values().find_map(Value::as_array);
            match list.filter(|_| !fields.contains_key("name") && !fields.contains_key("id")) {
                Some(rows) => table(rows) + &rest(fields),
                None => fields.iter().fold(String::new(), |out, (name, value)| {
                    out + name + ": " + &cell(value) + "\n"
                }),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => cell(answer) + "\n",
    }
}

/// What stands beside a list: where it goes on.
fn rest(fields: &Map<String, Value>) -> String {
    let next = fields.get("next").map(|next| format!("more: --after {}\n", cell(next)));
    next.unwrap_or_default()
}

fn table(rows: &[Value]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for row in rows.iter().filter_map(Value::as_object) {
        // What is deeper is for `show`.
        let flat = row.iter().filter(|(_, value)| !value.is_object() && !value.is_array());
        flat.for_each(|(name, _)| {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        });
    }
    names.sort_by_key(|name| !matches!(*name, "name" | "id" | "group"));
    let mut lines = vec![names.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>()];
    for row in rows {
        let of = |name: &&str| shortened(&row.get(name).map_or_else(String::new, cell));
        lines.push(names.iter().map(of).collect());
    }
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..names.len()).map(width).collect();
    lines.iter().fold(String::new(), |mut out, line| {
        for (cell, width) in line.iter().zip(&widths) {
            write!(out, "{cell:<width$}  ").expect("a string takes everything");
        }
        out.truncate(out.trim_end_matches(' ').len());
        out + "\n"
    })
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= COLUMN_MAX {
        return text.to_owned();
    }
    text.chars().take(COLUMN_MAX - 1).chain(['…']).collect()
}

/// Without what a terminal would take for more than text.
fn cell(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_tables_and_things_are_lines() {
        let list = json!({ "devices": [
            { "enabled": true, "name": "pump-1", "settings": { "type": "pump" } },
            { "enabled": false, "name": "p\u{1b}[2J" },
        ], "next": "1.2.pump-1" });
        let expected = "NAME    ENABLED\npump-1  true\np?[2J   false\nmore: --after 1.2.pump-1\n";
        assert_eq!(text(&list), expected);
        assert_eq!(text(&json!({ "name": "a", "labels": ["b"] })), "labels: [\"b\"]\nname: a\n");
        assert_eq!(
            text(&json!([{ "name": "x".repeat(60) }])).lines().nth(1).unwrap().chars().count(),
            48
        );
    }
}
