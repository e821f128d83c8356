//! Ids of things: UUIDs that say where the thing is, so that nobody has to keep a table of them.
//!
//! ```text
//!   122 bits of a UUID of version 8 (RFC 9562, section 5.8):   bucket 12 | born 64 | tail 46
//!   a device     the bucket of its name, the version it was made with, 0
//!   a part       those of its device, and a number that is not 0: a call, a credential
//!   a tenant     no bucket and no version: its number, and 1 behind it
//!   the rest     the same with a hash of its name, and 0 behind it: profiles, users
//! ```
//!
//! # Invariants
//!
//! - **A device that is deleted and made again has another id**, and parts of the one are not the other's.
//! - **What was read is written the same**, and what is none of these is not read. Checked by `tests/it/thingsboard/ids.rs`.

use moorline_core::TenantId;
use sha3::{Digest, Sha3_256};
use uuid::Uuid;

/// What the vendor has in the place of an id of nothing: a customer of a device that is nobody's.
pub const NOBODY: Uuid = Uuid::from_u128(0x1381_4000_1DD2_11B2_8080_8080_8080_8080);

const VERSION: u128 = 8;
const VARIANT: u128 = 0b10;
const BORN_BITS: u32 = 64;
const TAIL_BITS: u32 = 46;
const BUCKET_BITS: u32 = 12;
/// Of the last part of a UUID, and of the one before it, behind the version.
const LAST_BITS: u32 = 62;
const MIDDLE_BITS: u32 = 12;

/// Which device: where its row is, and which row that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DevicePlace {
    /// The bucket of its name.
    pub bucket: u16,
    /// The version it was made with.
    pub born: u64,
}

fn low(number: u128, bits: u32) -> u128 {
    number & ((1 << bits) - 1)
}

fn uuid(number: u128) -> Uuid {
    let last = low(number, LAST_BITS);
    let middle = low(number >> LAST_BITS, MIDDLE_BITS);
    let first = number >> (LAST_BITS + MIDDLE_BITS);
    Uuid::from_u128(first << 80 | VERSION << 76 | middle << 64 | VARIANT << LAST_BITS | last)
}

fn number(id: Uuid) -> Option<u128> {
    let id = id.as_u128();
    let is_ours = low(id >> 76, 4) == VERSION && low(id >> LAST_BITS, 2) == VARIANT;
    let first = (id >> 80) << (LAST_BITS + MIDDLE_BITS);
    let middle = low(id >> 64, MIDDLE_BITS) << LAST_BITS;
    is_ours.then_some(first | middle | low(id, LAST_BITS))
}

fn of(place: DevicePlace, tail: u64) -> Uuid {
    let DevicePlace { bucket, born } = place;
    let bucket = low(bucket.into(), BUCKET_BITS) << (BORN_BITS + TAIL_BITS);
    uuid(bucket | u128::from(born) << TAIL_BITS | low(tail.into(), TAIL_BITS))
}

fn parts(id: Uuid) -> Option<(DevicePlace, u64)> {
    let number = number(id)?;
    let tail = u64::try_from(low(number, TAIL_BITS)).ok()?;
    let born = u64::try_from(low(number >> TAIL_BITS, BORN_BITS)).ok()?;
    let bucket = u16::try_from(number >> (TAIL_BITS + BORN_BITS)).ok()?;
    Some((DevicePlace { bucket, born }, tail))
}

/// The id of a device.
#[must_use]
pub fn of_device(place: DevicePlace) -> Uuid {
    of(place, 0)
}

/// The id of a part of a device, by the upper bits of a number that no other part has: a random one of a call.
#[must_use]
pub fn of_part(place: DevicePlace, number: u64) -> Uuid {
    // Without a tail it would be the device's.
    of(place, (number >> (u64::BITS - TAIL_BITS)).max(1))
}

/// The device of an id.
#[must_use]
pub fn device(id: Uuid) -> Option<DevicePlace> {
    parts(id).filter(|(place, tail)| place.born > 0 && *tail == 0).map(|(place, _)| place)
}

/// The device of a part's id.
#[must_use]
pub fn device_of_part(id: Uuid) -> Option<DevicePlace> {
    parts(id).filter(|(place, tail)| place.born > 0 && *tail > 0).map(|(place, _)| place)
}

/// The id of a tenant.
#[must_use]
pub fn of_tenant(tenant: TenantId) -> Uuid {
    uuid(u128::from(tenant.0) << 1 | 1)
}

/// The id of what a tenant has by a name.
#[must_use]
pub fn of_named(tenant: TenantId, name: &str) -> Uuid {
    let digest = Sha3_256::new().chain_update(tenant.0.to_be_bytes()).chain_update(name).finalize();
    let hash = digest.iter().take(8).fold(0_u128, |hash, byte| hash << 8 | u128::from(*byte));
    // Below what a device has its version in.
    uuid(low(hash, TAIL_BITS - 1) << 1)
}
