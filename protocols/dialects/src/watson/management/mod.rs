//! The device-management protocol: addresses so far.

pub mod address;
