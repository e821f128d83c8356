//! Protobuf: the messages that are the same for all profiles, and those that a profile's schemas describe.
//!
//! ```text
//!   messages   the fixed messages, by their field numbers
//!   fixed      these to and from what the rest of the dialect knows
//!   schema     a profile's schemas, and messages of theirs to and from JSON
//! ```

pub mod fixed;
pub mod messages;
pub mod schema;
