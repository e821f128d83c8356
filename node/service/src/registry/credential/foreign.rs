//! What is kept of a password that another system hashed, and how it is compared: by its function, and by a key of ours.
//!
//! # Invariants
//!
//! - **A stolen disk gives nothing to try passwords against**: of their hash a keyed one is kept, for this credential alone. Checked in
//!   `password.rs`.
//! - **The functions are those that others have**: checked below, with hashes that other tools made.

use std::fmt;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use moorline_core::foreign_hash::{BCRYPT_BYTES, Form, SALT_BYTES_MAX};
use sha_crypt::Params;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{kind::HASH_BYTES, password::Place};

/// Bytes of a password that bcrypt looks at, with the zero behind it if there is room.
const BCRYPT_PASSWORD_BYTES: usize = 72;

/// What is kept of a password that another system hashed.
#[derive(Clone, PartialEq, Eq)]
pub struct Foreign {
    /// By which function.
    pub form: Form,
    /// Its cost, or its rounds.
    pub cost: u32,
    /// Its salt.
    pub salt: Bytes,
    /// A keyed hash of what came out.
    pub hash: [u8; HASH_BYTES],
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("form", &self.form).finish_non_exhaustive()
    }
}

impl Foreign {
    /// What comes out of a password; [`None`] if its row is none of ours.
    pub(super) fn of(&self, password: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self.form {
            Form::Bcrypt => {
                let salt = <[u8; SALT_BYTES_MAX]>::try_from(&*self.salt).ok()?;
                let seen = password.len().min(BCRYPT_PASSWORD_BYTES);
                let mut text = Zeroizing::new([0; BCRYPT_PASSWORD_BYTES]);
                text[..seen].copy_from_slice(&password[..seen]);
                let length = (seen + 1).min(BCRYPT_PASSWORD_BYTES);
                let hash = bcrypt::bcrypt(self.cost, salt, &text[..length]);
                Some(Zeroizing::new(hash[..BCRYPT_BYTES].to_vec()))
            }
            Form::Sha512 => {
                let rounds = Params::new(self.cost).ok()?;
                let hash = sha_crypt::sha512_crypt(password, &self.salt, rounds);
                Some(Zeroizing::new(hash.to_vec()))
            }
        }
    }
}

/// What is kept of what came out, in one place.
pub(super) fn keyed(key: &[u8], place: Place<'_>, hash: &[u8]) -> [u8; HASH_BYTES] {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("any length will do");
    mac.update(b"moorline foreign hash v1");
    mac.update(&place.tenant.0.to_be_bytes());
    mac.update(&place.id.to_be_bytes());
    for part in [place.device.as_bytes(), hash] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use moorline_core::foreign_hash::ForeignHash;

    use super::*;

    /// More than bcrypt looks at.
    const LONG: &str =
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    /// Hashes that other tools made (libxcrypt, openssl), and their passwords.
    #[rustfmt::skip]
    const MADE: [(&str, &str); 9] = [
        ("secret", "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"),
        ("pä ss", "$2a$05$abcdefghijklmnopqrstuuD6ftFuNdGQp5Ta0Zv1bz0bS1MrCSbrm"),
        ("secret", "$2y$06$......................LlrHE.PBZavRp1Br9ZKhi8SOMUWPCBG"),
        (LONG, "$2b$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i"),
        ("secret", "$6$saltstring$AIsRs/Ee56G/tC8MEHhvReZTfx8u3rXXMl6eYrjCG9ibix19DxoMBLogdTET5Ukw9Sf7eZTITsuk0Ry5qulYz."),
        ("Hello world!", "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"),
        ("pä ss", "$6$rounds=1000$s$Wotml3BCsGkMGF0qacTiLPwY1qRS09sb/dyiDNGp9zeepUuUJ0SqKkXJWZzwsm5uHRonNktoDGdEjxQvKXGcM0"),
        ("secret", "$6$rounds=10000$sixteen.charact$tL1IYl9NPkpxbh6yzoKe/e7ctyQygxKxysRA.K.T3F7S2UkGK1RC6CJWTfFi2FBn.MibkreXvOTiPl.JXkf0W."),
        (LONG, "$6$saltstring$eKlwYdh2DQgzGVZNTRbDdwNSIU.yzEhS/nALlBafFhL/T/Kf8GRhO5otN52zAGQKa229QbUXUyFPbCMzMf2HX0"),
    ];

    #[test]
    fn hashes_of_other_tools_fit_their_passwords_and_no_other() {
        for (password, text) in MADE {
            let ForeignHash { form, cost, salt, hash } = ForeignHash::read(text).unwrap();
            let kept = Foreign { form, cost, salt, hash: [0; HASH_BYTES] };
            assert_eq!(kept.of(password.as_bytes()).unwrap()[..], hash[..], "{text}");
            let other = format!("y{password}");
            assert_ne!(kept.of(other.as_bytes()).unwrap()[..], hash[..], "{text}");
        }
    }

    #[test]
    fn of_a_row_that_is_none_of_ours_nothing_comes() {
        let (salt, hash) = (Bytes::from_static(b"short"), [0; HASH_BYTES]);
        for (form, cost) in [(Form::Bcrypt, 4), (Form::Sha512, 1)] {
            assert!(Foreign { form, cost, salt: salt.clone(), hash }.of(b"x").is_none());
        }
    }
}
