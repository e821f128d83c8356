//! Time as an argument: where the driver's clocks come in.

pub use moorline_core::Millis;
use moorline_core::UnixMillis;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For deadlines.
    pub at: Millis,
    /// For message expiry: the driver's process clock, which never runs backwards.
    pub wall: UnixMillis,
}
