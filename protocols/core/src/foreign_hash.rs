//! Passwords that other systems hashed, as these write them: bcrypt (`$2b$10$…`) and SHA-512-crypt (`$6$…`).
//!
//! ```text
//!   $2b$10$ 22 characters of salt, 31 of hash                 2a and 2y are the same function
//!   $6$rounds=656000$ salt $ 86 characters of hash            without rounds= 5,000 of them
//! ```
//!
//! # Invariants
//!
//! - **What would take too long is no hash here**: [`BCRYPT_COST_MAX`], [`SHA512_ROUNDS_MAX`]. Checked below.
//! - **`Debug` prints nothing to guess a password by.** Checked below.
//!
//! # Deliberately absent
//!
//! The functions themselves, and whoever has to wait for them (`node/service`).

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

/// The least cost that bcrypt has.
pub const BCRYPT_COST_MIN: u32 = 4;
/// The most that is taken, which is what libraries choose by themselves: a quarter of a second of a core for each password.
pub const BCRYPT_COST_MAX: u32 = 12;
/// The least rounds that SHA-512-crypt has.
pub const SHA512_ROUNDS_MIN: u32 = 1_000;
/// The most that is taken: passlib writes 656,000, which is a fifth of a second of a core, and more for long passwords.
pub const SHA512_ROUNDS_MAX: u32 = 700_000;
/// Rounds where a hash says nothing of them.
const SHA512_ROUNDS: u32 = 5_000;
/// Bytes of a salt of bcrypt, and the most of SHA-512-crypt.
pub const SALT_BYTES_MAX: usize = 16;
/// Bytes of a hash of bcrypt: what it leaves out of its last block, it leaves out everywhere.
pub const BCRYPT_BYTES: usize = 23;
/// Bytes of a hash of SHA-512-crypt.
pub const SHA512_BYTES: usize = 64;
/// Digits of bcrypt: of four characters the first has the highest bits.
const BCRYPT_DIGITS: &[u8; 64] =
    b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Digits of SHA-512-crypt: of four characters the first has the lowest bits.
const SHA512_DIGITS: &[u8; 64] =
    b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Which function. The numbers are stored, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// bcrypt: `$2a$`, `$2b$`, `$2y$`.
    Bcrypt = 1,
    /// SHA-512-crypt: `$6$`.
    Sha512 = 2,
}

impl Form {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bcrypt, Self::Sha512];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bcrypt => "bcrypt",
            Self::Sha512 => "sha512",
        }
    }

    /// That of a number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|form| *form as u8 == number)
    }

    /// Whether a cost, or rounds, are not too many.
    #[must_use]
    pub fn takes(self, cost: u32) -> bool {
        match self {
            Self::Bcrypt => (BCRYPT_COST_MIN..=BCRYPT_COST_MAX).contains(&cost),
            Self::Sha512 => (SHA512_ROUNDS_MIN..=SHA512_ROUNDS_MAX).contains(&cost),
        }
    }
}

/// A password that another system hashed.
#[derive(Clone, PartialEq, Eq)]
pub struct ForeignHash {
    /// By which function.
    pub form: Form,
    /// bcrypt's cost, or how many rounds.
    pub cost: u32,
    /// Its salt: 16 bytes, or 1 to 16 characters.
    pub salt: Bytes,
    /// What came out, in the order in which the function has it.
    pub hash: Bytes,
}

impl fmt::Debug for ForeignHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignHash").field("form", &self.form).finish_non_exhaustive()
    }
}

/// Why a text is no hash that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoHash {
    /// It begins as none does.
    #[error("a hash of a password is bcrypt's ($2a$, $2b$, $2y$) or SHA-512-crypt's ($6$)")]
    Form,
    /// It is not whole, or something in it is none of its characters.
    #[error(
        "a hash of a password that can't be read: bcrypt's has 60 characters, and SHA-512-crypt's ends with 86"
    )]
    Unreadable,
    /// bcrypt takes too long, or nothing at all.
    #[error("a bcrypt hash has a cost of {BCRYPT_COST_MIN} to {BCRYPT_COST_MAX} here")]
    Cost,
    /// SHA-512-crypt takes too long, or nothing at all.
    #[error("a SHA-512-crypt hash has {SHA512_ROUNDS_MIN} to {SHA512_ROUNDS_MAX} rounds here")]
    Rounds,
}

impl ForeignHash {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`NoHash`].
    pub fn read(text: &str) -> Result<Self, NoHash> {
        for version in ["$2a$", "$2b$", "$2y$"] {
            if let Some(rest) = text.strip_prefix(version) {
                return bcrypt(rest);
            }
        }
        sha512(text.strip_prefix("$6$").ok_or(NoHash::Form)?)
    }
}

fn bcrypt(rest: &str) -> Result<ForeignHash, NoHash> {
    let (cost, digits) = rest.split_once('$').ok_or(NoHash::Unreadable)?;
    if cost.len() != 2 {
        return Err(NoHash::Unreadable);
    }
    let cost = number(cost).ok_or(NoHash::Unreadable)?;
    let (salt, hash) = digits.as_bytes().split_at_checked(22).ok_or(NoHash::Unreadable)?;
    let salt = high_first(salt, SALT_BYTES_MAX).ok_or(NoHash::Unreadable)?;
    let hash = high_first(hash, BCRYPT_BYTES).ok_or(NoHash::Unreadable)?;
    let form = Form::Bcrypt;
    if !form.takes(cost) {
        return Err(NoHash::Cost);
    }
    Ok(ForeignHash { form, cost, salt: salt.into(), hash: hash.into() })
}

fn sha512(rest: &str) -> Result<ForeignHash, NoHash> {
    let (cost, rest) = match rest.strip_prefix("rounds=") {
        None => (SHA512_ROUNDS, rest),
        Some(rest) => {
            let (rounds, rest) = rest.split_once('$').ok_or(NoHash::Unreadable)?;
            (number(rounds).ok_or(NoHash::Unreadable)?, rest)
        }
    };
    let (salt, digits) = rest.split_once('$').ok_or(NoHash::Unreadable)?;
    let fits = (1..=SALT_BYTES_MAX).contains(&salt.len());
    if !fits || !salt.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(NoHash::Unreadable);
    }
    let hash = in_order(digits.as_bytes()).ok_or(NoHash::Unreadable)?;
    let form = Form::Sha512;
    if !form.takes(cost) {
        return Err(NoHash::Rounds);
    }
    let salt = Bytes::copy_from_slice(salt.as_bytes());
    Ok(ForeignHash { form, cost, salt, hash: hash.to_vec().into() })
}

/// Digits alone, and so few that none of them is lost.
fn number(digits: &str) -> Option<u32> {
    let plain = digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn value(digits: &[u8; 64], character: u8) -> Option<u32> {
    let at = digits.iter().position(|digit| *digit == character)?;
    u32::try_from(at).ok()
}

/// Bytes out of six bits a character, the highest first; bits that are left over mean nothing.
fn high_first(characters: &[u8], bytes: usize) -> Option<Vec<u8>> {
    if characters.len() != (bytes * 8).div_ceil(6) {
        return None;
    }
    let (mut out, mut bits, mut held) = (Vec::with_capacity(bytes), 0_u32, 0_u32);
    for character in characters {
        bits = bits << 6 | value(BCRYPT_DIGITS, *character)?;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xFF) as u8);
        }
        bits &= 0xFF;
    }
    Some(out)
}

/// The hash out of 86 characters: three bytes of it in four of them, taken 21 apart, and each time the next of the three is first.
fn in_order(characters: &[u8]) -> Option<[u8; SHA512_BYTES]> {
    const APART: usize = 21;
    if characters.len() != 86 {
        return None;
    }
    let mut hash = [0; SHA512_BYTES];
    for (group, four) in characters.chunks(4).enumerate() {
        let mut bits = 0;
        for character in four.iter().rev() {
            bits = bits << 6 | value(SHA512_DIGITS, *character)?;
        }
        let [_, high, middle, low] = bits.to_be_bytes();
        if group == APART {
            hash[SHA512_BYTES - 1] = low;
            continue;
        }
        let at = |which: usize| group + APART * ((which + group) % 3);
        hash[at(0)] = high;
        hash[at(1)] = middle;
        hash[at(2)] = low;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.";
    const SHA512: &str =
        "svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn both_forms_are_read() {
        for version in ["a", "b", "y"] {
            let read = ForeignHash::read(&format!("$2{version}$06${BCRYPT}")).unwrap();
            assert_eq!((read.form, read.cost), (Form::Bcrypt, 6));
            assert_eq!(hex(&read.salt), "144b3d691a7b4ecf39cf735c7fa7a79c");
            assert_eq!(hex(&read.hash), "557e94f34bf286e8719a26be94ac1e16d95ef9f819dee0");
        }
        let read = ForeignHash::read(&format!("$6$saltstring${SHA512}")).unwrap();
        assert_eq!((read.form, read.cost, &*read.salt), (Form::Sha512, 5_000, &b"saltstring"[..]));
        assert_eq!(read.hash.len(), SHA512_BYTES);
        let read = ForeignHash::read(&format!("$6$rounds=656000$s${SHA512}")).unwrap();
        assert_eq!((read.cost, &*read.salt), (656_000, &b"s"[..]));
        assert!(!format!("{read:?}").contains("salt"));
    }

    #[test]
    fn what_is_no_hash_or_takes_too_long_is_refused() {
        let short = &BCRYPT[1..];
        let odd = BCRYPT.replace('T', "=");
        #[rustfmt::skip]
        let table = [
            (String::new(),                                    NoHash::Form),
            ("secret".to_owned(),                              NoHash::Form),
            (format!("$2x$06${BCRYPT}"),                       NoHash::Form),
            (format!("$2$06${BCRYPT}"),                        NoHash::Form),
            (format!("$5$saltstring${SHA512}"),                NoHash::Form),
            ("$2b$".to_owned(),                                NoHash::Unreadable),
            (format!("$2b$6${BCRYPT}"),                        NoHash::Unreadable),
            (format!("$2b$+6${BCRYPT}"),                       NoHash::Unreadable),
            (format!("$2b$06${short}"),                        NoHash::Unreadable),
            (format!("$2b$06${BCRYPT}."),                      NoHash::Unreadable),
            (format!("$2b$06${odd}"),                          NoHash::Unreadable),
            (format!("$2b$06${}é", &BCRYPT[..51]),             NoHash::Unreadable),
            (format!("$2b$03${BCRYPT}"),                       NoHash::Cost),
            (format!("$2b$13${BCRYPT}"),                       NoHash::Cost),
            (format!("$2b$31${BCRYPT}"),                       NoHash::Cost),
            ("$6$".to_owned(),                                 NoHash::Unreadable),
            (format!("$6$${SHA512}"),                          NoHash::Unreadable),
            (format!("$6$seventeen-letters${SHA512}"),         NoHash::Unreadable),
            (format!("$6$a b${SHA512}"),                       NoHash::Unreadable),
            (format!("$6$s${SHA512}."),                        NoHash::Unreadable),
            (format!("$6$s${}", SHA512.replace('U', "=")),     NoHash::Unreadable),
            (format!("$6$rounds=x$s${SHA512}"),                NoHash::Unreadable),
            (format!("$6$rounds=9999999999$s${SHA512}"),       NoHash::Unreadable),
            (format!("$6$rounds=999$s${SHA512}"),              NoHash::Rounds),
            (format!("$6$rounds=700001$s${SHA512}"),           NoHash::Rounds),
        ];
        for (text, expected) in table {
            assert_eq!(ForeignHash::read(&text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_refusal_names_the_limit() {
        assert!(NoHash::Cost.to_string().contains("4 to 12"));
        assert!(NoHash::Rounds.to_string().contains("1000 to 700000"));
        assert_eq!(
            Form::ALL.map(|form| (form as u8, Form::of(form as u8))),
            [(1, Some(Form::Bcrypt)), (2, Some(Form::Sha512)),]
        );
        assert_eq!(Form::of(3), None);
    }
}
