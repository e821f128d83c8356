//! Changes of a resource: JSON patches (RFC 6902) and merge patches (RFC 7396).
//!
//! # Invariants
//!
//! - **A patch is carried out whole, or not at all.**
//! - **Bounded**: what comes of it, and what there is between two operations, has [`RESULT_BYTES_MAX`] bytes and [`DEPTH_MAX`] levels
//!   at most; one operation can't do more than double what was there.
//!
//! Checked by `tests/it/drogue/registry.rs`.

use serde_json::{Map, Value};
use thiserror::Error;

/// The most operations of one patch.
const OPERATIONS_MAX: usize = 256;
/// The most bytes of what comes of a patch, about as JSON says them: a copy may hold all that was there before.
pub const RESULT_BYTES_MAX: usize = 128 * 1024;
/// The most levels of a resource: fewer than a reader of JSON takes, also where it stands within something else.
pub const DEPTH_MAX: usize = 64;

/// Why a patch was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unpatched {
    /// It can't be read.
    #[error("the patch can't be read")]
    Malformed,
    /// What it is about is not there.
    #[error("the patch names something that is not there")]
    NoSuchPath,
    /// Its test failed.
    #[error("the test of the patch failed")]
    TestFailed,
    /// What comes of it is larger or deeper than a resource may be.
    #[error("what comes of the patch is too large or too deep")]
    TooLarge,
}

/// Whether a resource is no larger and no deeper than one may be.
#[must_use]
pub fn fits(value: &Value) -> bool {
    fn take(left: &mut usize, bytes: usize) -> bool {
        let rest = left.checked_sub(bytes);
        *left = rest.unwrap_or_default();
        rest.is_some()
    }
    fn within(value: &Value, depth: usize, left: &mut usize) -> bool {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => take(left, size_of::<u64>()),
            // With its quotes and what follows it.
            Value::String(text) => take(left, text.len() + 3),
            // With what follows it.
            Value::Array(items) => {
                depth > 0 && items.iter().all(|item| take(left, 1) && within(item, depth - 1, left))
            }
            Value::Object(fields) => {
                depth > 0
                    && fields.iter().all(|(name, value)| {
                        take(left, name.len() + 4) && within(value, depth - 1, left)
                    })
            }
        }
    }
    let mut left = RESULT_BYTES_MAX;
    within(value, DEPTH_MAX, &mut left)
}

/// Carries out a merge patch.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Carries out a JSON patch.
///
/// # Errors
///
/// [`Unpatched`]: nothing was changed.
pub fn patched(target: &Value, patch: &Value) -> Result<Value, Unpatched> {
    let operations = patch.as_array().ok_or(Unpatched::Malformed)?;
    if operations.len() > OPERATIONS_MAX {
        return Err(Unpatched::Malformed);
    }
    let mut changed = target.clone();
    for operation in operations {
        carry_out(&mut changed, operation)?;
        if !fits(&changed) {
            return Err(Unpatched::TooLarge);
        }
    }
    Ok(changed)
}

fn carry_out(target: &mut Value, operation: &Value) -> Result<(), Unpatched> {
    let text = |name: &str| operation[name].as_str().ok_or(Unpatched::Malformed);
    let value = || operation.get("value").cloned().ok_or(Unpatched::Malformed);
    let path = pointer(text("path")?)?;
    match text("op")? {
        "add" => add(target, &path, value()?),
        "remove" => remove(target, &path).map(drop),
        "replace" => {
            *at(target, &path).ok_or(Unpatched::NoSuchPath)? = value()?;
            Ok(())
        }
        "move" => {
            let from = pointer(text("from")?)?;
            if path.len() > from.len() && path.starts_with(&from) {
                return Err(Unpatched::Malformed);
            }
            let moved = remove(target, &from)?;
            add(target, &path, moved)
        }
        "copy" => {
            let from = pointer(text("from")?)?;
            let copied = at(target, &from).ok_or(Unpatched::NoSuchPath)?.clone();
            add(target, &path, copied)
        }
        "test" => {
            let found = at(target, &path).ok_or(Unpatched::NoSuchPath)?;
            if *found == value()? { Ok(()) } else { Err(Unpatched::TestFailed) }
        }
        _ => Err(Unpatched::Malformed),
    }
}

fn pointer(text: &str) -> Result<Vec<String>, Unpatched> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let parts = text.strip_prefix('/').ok_or(Unpatched::Malformed)?.split('/');
    Ok(parts.map(|part| part.replace("~1", "/").replace("~0", "~")).collect())
}

fn index(text: &str) -> Option<usize> {
    let is_plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_plain)
}

fn at<'a>(target: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(target, |value, part| match value {
        Value::Object(fields) => fields.get_mut(part),
        Value::Array(items) => items.get_mut(index(part)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

fn add(target: &mut Value, path: &[String], value: Value) -> Result<(), Unpatched> {
    let Some((last, parents)) = path.split_last() else {
        *target = value;
        return Ok(());
    };
    match at(target, parents).ok_or(Unpatched::NoSuchPath)? {
        Value::Object(fields) => {
            fields.insert(last.clone(), value);
            Ok(())
        }
        Value::Array(items) if last == "-" => {
            items.push(value);
            Ok(())
        }
        Value::Array(items) => {
            let index = index(last).filter(|index| *index <= items.len());
            items.insert(index.ok_or(Unpatched::NoSuchPath)?, value);
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(Unpatched::NoSuchPath)
        }
    }
}

fn remove(target: &mut Value, path: &[String]) -> Result<Value, Unpatched> {
    let (last, parents) = path.split_last().ok_or(Unpatched::Malformed)?;
    let removed = match at(target, parents).ok_or(Unpatched::NoSuchPath)? {
        Value::Object(fields) => fields.remove(last),
        Value::Array(items) => {
            let index = index(last).filter(|index| *index < items.len());
            index.map(|index| items.remove(index))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    removed.ok_or(Unpatched::NoSuchPath)
}
