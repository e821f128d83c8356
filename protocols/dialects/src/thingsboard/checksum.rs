//! Checksums of packages, made piece by piece.
//!
//! Sums that are numbers are written with their lowest byte first, as the vendor does and its devices expect.
//!
//! Invariant: it does not matter how bytes are cut. Checked by `tests/it/thingsboard/checksum.rs`.

use std::{fmt, hash::Hasher};

use md5::Md5;
use mur3::{Hasher32, Hasher128};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::ota::ChecksumAlgorithm;

/// A checksum that is being made.
pub struct Checksum(Sum);

enum Sum {
    Md5(Md5),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
    Crc32(crc32fast::Hasher),
    Murmur3x32(Hasher32),
    Murmur3x128(Hasher128),
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checksum").finish_non_exhaustive()
    }
}

/// What both sums of Murmur begin with.
const SEED: u32 = 0;

impl Checksum {
    /// Of nothing yet.
    #[must_use]
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        Self(match algorithm {
            ChecksumAlgorithm::Md5 => Sum::Md5(Md5::new()),
            ChecksumAlgorithm::Sha256 => Sum::Sha256(Sha256::new()),
            ChecksumAlgorithm::Sha384 => Sum::Sha384(Sha384::new()),
            ChecksumAlgorithm::Sha512 => Sum::Sha512(Sha512::new()),
            ChecksumAlgorithm::Crc32 => Sum::Crc32(crc32fast::Hasher::new()),
            ChecksumAlgorithm::Murmur3x32 => Sum::Murmur3x32(Hasher32::with_seed(SEED)),
            ChecksumAlgorithm::Murmur3x128 => Sum::Murmur3x128(Hasher128::with_seed(SEED)),
        })
    }

    /// With these bytes behind the others.
    pub fn add(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Sum::Md5(sum) => sum.update(bytes),
            Sum::Sha256(sum) => sum.update(bytes),
            Sum::Sha384(sum) => sum.update(bytes),
            Sum::Sha512(sum) => sum.update(bytes),
            Sum::Crc32(sum) => sum.update(bytes),
            Sum::Murmur3x32(sum) => sum.write(bytes),
            Sum::Murmur3x128(sum) => sum.write(bytes),
        }
    }

    /// The checksum, in hexadecimal digits of lower case.
    #[must_use]
    pub fn digits(self) -> String {
        match self.0 {
            Sum::Md5(sum) => hex(&sum.finalize()),
            Sum::Sha256(sum) => hex(&sum.finalize()),
            Sum::Sha384(sum) => hex(&sum.finalize()),
            Sum::Sha512(sum) => hex(&sum.finalize()),
            Sum::Crc32(sum) => hex(&sum.finalize().to_le_bytes()),
            Sum::Murmur3x32(sum) => hex(&sum.finish32().to_le_bytes()),
            Sum::Murmur3x128(sum) => {
                let (low, high) = sum.finish128();
                hex(&[low.to_le_bytes(), high.to_le_bytes()].concat())
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
