//! Mail in the words of this platform: a call that wants no answer.
//!
//! # Invariants
//!
//! - **Its id is no call's**: those count from 1 for each device, these begin with [`IDS_FROM`]. So a device that answers all the same
//!   answers nobody's call. Checked by `tests/it/thingsboard/mail.rs`.
//! - **The same mail has the same id**, whenever it goes out. Checked by the same.

use super::{
    calls::{METHOD_BYTES_MAX, ServerCall},
    json::Json,
};

/// Where ids of mail begin: a device has had a thousand million calls before.
pub const IDS_FROM: i32 = 1 << 30;

/// A mail as its device hears it. `id`: the mail's own.
///
/// # Errors
///
/// Why it can't be said.
pub fn said(id: u128, name: &str, payload: &[u8]) -> Result<ServerCall, &'static str> {
    if name.is_empty() || name.len() > METHOD_BYTES_MAX {
        return Err("a method has 1 to 255 bytes");
    }
    let read = || Json::read(payload).map_err(|_| "its body is no JSON");
    let params = if payload.is_empty() { Json::Null } else { read()? };
    // The last bits of an id are random.
    let random = i32::try_from(id & (IDS_FROM as u128 - 1)).expect("less than 2^30");
    Ok(ServerCall { id: IDS_FROM | random, method: name.to_owned(), params })
}
