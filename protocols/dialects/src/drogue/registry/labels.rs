//! Selectors of labels: `a`, `!a`, `a=b`, `a!=b`, `a in (b, c)`, `a notin (b, c)`, with commas between.

use std::collections::BTreeMap;

use thiserror::Error;

/// The longest selector that is looked at, in bytes.
const BYTES_MAX: usize = 4 * 1024;

/// A selector that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the label selector can't be read")]
pub struct Unreadable;

/// What has to be so of each thing that is selected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Wanted>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    label: String,
    /// One of these, or any.
    values: Option<Vec<String>>,
    /// Whether that is so, or is not.
    is_so: bool,
}

impl Selector {
    /// Reads one; an empty one selects all.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        if text.len() > BYTES_MAX {
            return Err(Unreadable);
        }
        let (mut all, mut rest) = (Vec::new(), text.trim());
        while !rest.is_empty() {
            let mut depth = 0;
            let end = rest.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                c == ',' && depth == 0
            });
            let (one, after) = end.map_or((rest, ""), |end| (&rest[..end], &rest[end + 1..]));
            if end.is_some() && after.trim().is_empty() {
                return Err(Unreadable);
            }
            all.push(wanted(one.trim()).ok_or(Unreadable)?);
            rest = after.trim();
        }
        Ok(Self(all))
    }

    /// Whether things with these labels are selected.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|wanted| {
            let found = labels.get(&wanted.label);
            let fits = found.is_some_and(|value| {
                wanted.values.as_ref().is_none_or(|values| values.contains(value))
            });
            fits == wanted.is_so
        })
    }
}

fn wanted(text: &str) -> Option<Wanted> {
    if let Some(label) = text.strip_prefix('!') {
        return Some(Wanted { label: label_of(label)?, values: None, is_so: false });
    }
    if let Some((head, list)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let (label, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let is_so = match word {
            "in" => true,
            "notin" => false,
            _ => return None,
        };
        let values = list.split(',').map(value_of).collect::<Option<_>>()?;
        return Some(Wanted { label: label_of(label)?, values: Some(values), is_so });
    }
    if let Some((label, value)) = text.split_once("!=") {
        let values = Some(vec![value_of(value)?]);
        return Some(Wanted { label: label_of(label)?, values, is_so: false });
    }
    if let Some((label, value)) = text.split_once('=') {
        let values = Some(vec![value_of(value)?]);
        return Some(Wanted { label: label_of(label)?, values, is_so: true });
    }
    Some(Wanted { label: label_of(text)?, values: None, is_so: true })
}

/// A name, perhaps with a domain and a slash before it.
fn label_of(text: &str) -> Option<String> {
    let text = text.trim();
    let (domain, name) = text.split_once('/').map_or((None, text), |(of, name)| (Some(of), name));
    let is_domain = |domain: &str| {
        domain.starts_with(|c: char| c.is_ascii_alphabetic())
            && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
    };
    let fits = domain.is_none_or(is_domain) && value_of(name).is_some();
    fits.then(|| text.to_owned())
}

fn value_of(text: &str) -> Option<String> {
    let text = text.trim();
    let is_value = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    is_value.then(|| text.to_owned())
}
