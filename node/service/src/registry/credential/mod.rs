//! What devices prove their identity with: sorts, what is kept of each, and who it was that showed something.
//!
//! ```text
//!   kind         what is kept: bytes of a verifier, there and back                    (pure)
//!   password     slow hashes of chosen passwords, behind a queue and a cache
//!   foreign      hashes that other systems made of them
//!   shared       several keys of one identity                                         (pure)
//!   certificate  fingerprints, names and validity of certificates                     (pure)
//!   trust        a tenant's authorities: whose certificate is it?                     (pure)
//!   make         a credential out of what an operator asked for
//!   prove        from what a client shows to the device it is
//! ```
//!
//! # Invariants
//!
//! - **No secret is kept**: keyed hashes of generated ones, argon2id of chosen ones,
//!   keyed hashes of hashes that others made, and pre-shared keys, which have to come back,
//!   sealed with a key that is not on the disk. Checked by the tests below and by the cluster test `canaries.rs`.
//! - **Numbers and bytes of kinds are for ever.** Checked by golden bytes in `kind`.

pub mod certificate;
pub mod foreign;
pub mod kind;
pub mod make;
pub mod password;
pub mod prove;
pub(crate) mod shared;
pub mod trust;
