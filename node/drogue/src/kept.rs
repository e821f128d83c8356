//! What is kept of a device in its row.
//!
//! # Invariants
//!
//! - **What can't be read is an error**, and never as if nothing stood there. Checked below.

use bytes::Bytes;
use moorline_dialects::drogue::registry::device::{Kept, Unreadable};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What counts of a device's settings.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// What a device's settings say.
///
/// # Errors
///
/// [`Unreadable`].
pub(crate) fn kept_of(settings: &Bytes) -> Result<Kept, Unreadable> {
    if settings.is_empty() {
        // Nobody has written any.
        return Ok(Kept::default());
    }
    let said: Said = serde_json::from_slice(settings).map_err(|_| Unreadable)?;
    Kept::of(&said.metadata)
}

#[cfg(test)]
mod tests {
    use moorline_dialects::drogue::registry::device::is_disabled;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_no_device_without_rules() {
        #[rustfmt::skip]
        let table = [
            ("", Some(false)),
            ("{}", Some(false)),
            (r#"{"metadata":{}}"#, Some(false)),
            (r#"{"labels":[],"metadata":{"drogue":{"spec":{"core":{"disabled":true}}}}}"#, Some(true)),
            (r#"{"metadata":{"drogue":{"labels":{"a":1},"spec":{"core":{"disabled":true}}}}}"#, None),
            (r#"{"metadata":{"drogue":7}}"#, None),
            (r#"{"metadata":7}"#, None),
            ("x", None),
        ];
        for (settings, expected) in table {
            let kept = kept_of(&Bytes::from_static(settings.as_bytes()));
            assert_eq!(kept.ok().map(|kept| is_disabled(&kept.spec)), expected, "{settings}");
        }
    }
}
