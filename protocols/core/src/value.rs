//! Values: what a device says of itself, or what is set for it, under a key.
//!
//! # Invariants
//!
//! - **A value has one form.** Two that are equal have the same bytes wherever they are stored: a double is compared by its
//!   bits, and is always finite. Checked by this file's tests.
//!
//! # Deliberately absent
//!
//! How a platform writes them, and which numbers it takes for which (`protocols/dialects`).

use crate::Text;

/// A double that is a number: neither infinite nor NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Double(u64);

impl Double {
    /// `None` if it is not finite.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self(value.to_bits()))
    }

    /// The same, or the nearest there is: what is infinite becomes the greatest or the least, and what is no number zero.
    #[must_use]
    pub fn nearest(value: f64) -> Self {
        let value = if value.is_nan() { 0.0 } else { value.clamp(f64::MIN, f64::MAX) };
        Self(value.to_bits())
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// A value of an attribute or of telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A truth value.
    Bool(bool),
    /// A 64-bit integer.
    Long(i64),
    /// A double.
    Double(Double),
    /// A text.
    Text(Text),
    /// An array or an object of JSON, as text. Opaque to the core.
    Json(Text),
}

impl Value {
    /// About how many bytes it takes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        match self {
            Self::Bool(_) => 1,
            Self::Long(_) | Self::Double(_) => size_of::<u64>(),
            Self::Text(text) | Self::Json(text) => text.len(),
        }
    }

    /// As a number, if it is one.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a long among doubles is as exact as a double")]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Long(value) => Some(*value as f64),
            Self::Double(value) => Some(value.get()),
            Self::Bool(_) | Self::Text(_) | Self::Json(_) => None,
        }
    }
}

/// Who may write an attribute. Disks hold the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AttributeScope {
    /// The device: what it reports. Applications may read it.
    Client = 1,
    /// Applications: the device may read it, and is told of changes.
    Shared = 2,
    /// Applications, for themselves.
    Server = 3,
}

impl AttributeScope {
    /// All of them, by number.
    pub const ALL: [Self; 3] = [Self::Client, Self::Shared, Self::Server];

    /// The scope of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| *scope as u8 == number)
    }

    /// Its name, for eyes and paths.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Shared => "shared",
            Self::Server => "server",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_is_a_number_and_is_what_its_bits_are() {
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Double::new(wrong), None);
        }
        let nearest = |value| Double::nearest(value).get().total_cmp(&value);
        assert_eq!(nearest(1.5), std::cmp::Ordering::Equal);
        assert!(Double::nearest(f64::INFINITY) == Double::nearest(f64::MAX));
        assert_ne!(Double::new(0.0), Double::new(-0.0));
        let value = Value::Double(Double::nearest(2.5));
        assert_eq!((value.number(), Value::Bool(true).number()), (Some(2.5), None));
    }

    #[test]
    fn scopes_have_numbers_and_names_of_their_own() {
        for scope in AttributeScope::ALL {
            assert_eq!(AttributeScope::from_number(scope as u8), Some(scope));
            assert_eq!(AttributeScope::by_name(scope.name()), Some(scope));
        }
        assert_eq!(AttributeScope::from_number(0), None);
        assert_eq!(AttributeScope::by_name("CLIENT"), None);
    }
}
