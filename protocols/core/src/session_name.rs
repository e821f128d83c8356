//! What a device's session is called in rows: `device U+001F birth U+001F client id`.
//!
//! # Invariants
//!
//! - **A session is one device's.** Its name begins with the device's name and birth, so no other client can take it over, whatever
//!   client id it says, and neither can a later device of the same name. A name with U+001F that is not a device's is refused at
//!   the door ([`is_free`]); names of devices have no control characters.
//! - **All sessions of a device have one prefix** ([`all_of`]), by which they go with it.

use crate::Text;

/// Between the parts of a name.
const UNIT: char = '\u{1F}';

/// The name of a session of a device.
#[must_use]
pub fn of_device(device: &Text, born: u64, client: &Text) -> Text {
    Text::from(format!("{device}{UNIT}{born:x}{UNIT}{client}"))
}

/// What all names of a device's sessions begin with.
#[must_use]
pub fn all_of(device: &Text) -> Text {
    Text::from(format!("{device}{UNIT}"))
}

/// Whose session it is: the device and its birth; `None` if it is no device's.
#[must_use]
pub fn device_of(name: &Text) -> Option<(Text, u64)> {
    let (device, rest) = name.as_str().split_once(UNIT)?;
    let (born, _) = rest.split_once(UNIT)?;
    Some((Text::from(device), u64::from_str_radix(born, 16).ok()?))
}

/// Whether a client that is no device may call its session so.
#[must_use]
pub fn is_free(client: &Text) -> bool {
    !client.as_str().contains(UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_session_it_is() {
        let (device, client) = (Text::from("pump-1"), Text::from("a\u{1F}b"));
        let name = of_device(&device, 0xAB, &client);
        assert_eq!(name.as_str(), "pump-1\u{1F}ab\u{1F}a\u{1F}b");
        assert_eq!(device_of(&name), Some((device.clone(), 0xAB)));
        assert!(name.as_str().starts_with(all_of(&device).as_str()) && !is_free(&name));
        for none in ["pump-1", "pump-1\u{1F}ab", "pump-1\u{1F}zz\u{1F}c", ""] {
            assert_eq!(device_of(&Text::from(none)), None, "{none:?}");
        }
        assert!(is_free(&Text::from("pump-1")));
    }
}
