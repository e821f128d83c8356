//! Several pre-shared keys of one identity: what finds them is one of them's, and stays when that one goes.
//!
//! A key is exchanged by giving the device a second one, for the time when the first has ended. Both are shown with the same identity, so
//! that both are found by one lookup; but no two credentials of a row have the same.
//!
//! # Invariants
//!
//! - **Of the keys of an identity that a device has, the first has the lookup and the others have none.** Whoever puts a device goes by
//!   [`lead`]; a row that has been written before by an older version may have a lookup at another one, which is as good. Checked below.

use bytes::Bytes;
use moorline_machine::registry::{Credential, LookupHash};

use super::kind::{Kept, PSK, Psk};

/// The identity of a pre-shared key; [`None`] of another credential.
pub(super) fn identity_of(held: &Credential) -> Option<Bytes> {
    if held.kind != PSK {
        return None;
    }
    match Kept::read(held.kind, &held.verifier) {
        Some(Kept::Psk(Psk { identity, .. })) => Some(identity),
        Some(
            Kept::Secret(_)
            | Kept::Token(_)
            | Kept::Login(_)
            | Kept::Certificate(_)
            | Kept::Alias(_),
        )
        | None => None,
    }
}

/// Has the first key of each identity lead to the device, and no other one.
pub(crate) fn lead(before: &[Credential], wanted: &mut [Credential]) {
    let lookup_of = |identity: &Bytes, among: &[Credential]| -> Option<LookupHash> {
        let mut found = among.iter().filter(|held| held.lookup.is_some());
        let found = found.find(|held| identity_of(held).as_ref() == Some(identity));
        found.and_then(|held| held.lookup)
    };
    let mut led = Vec::new();
    for at in 0..wanted.len() {
        let Some(identity) = identity_of(&wanted[at]) else { continue };
        wanted[at].lookup = if led.contains(&identity) {
            None
        } else {
            let lookup = lookup_of(&identity, &wanted[at..]);
            lookup.or_else(|| lookup_of(&identity, before))
        };
        led.push(identity);
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::UnixMillis;

    use super::*;
    use crate::registry::credential::kind::SECRET;

    fn key(id: u64, identity: &'static [u8], lookup: Option<u8>) -> Credential {
        let (identity, sealed) = (Bytes::from_static(identity), Bytes::new());
        Credential {
            id,
            kind: PSK,
            lookup: lookup.map(|byte| LookupHash([byte; 32])),
            verifier: Kept::Psk(Psk { identity, sealed }).to_bytes(),
            not_before: None,
            not_after: None,
            created: UnixMillis(0),
        }
    }

    #[test]
    fn the_first_key_of_an_identity_leads_and_no_other() {
        let (a, b): (&[u8], &[u8]) = (b"a", b"b");
        let secret = Credential { kind: SECRET, ..key(9, b"a", None) };
        let before = [key(1, a, Some(1)), key(2, a, None), secret.clone()];
        #[rustfmt::skip]
        let table = [
            // One more, and one that is the other's.
            (vec![key(1, a, Some(1)), key(2, a, Some(1))],                 vec![Some(1), None]),
            (vec![key(1, a, Some(1)), key(3, b, Some(2)), key(2, a, Some(1))], vec![Some(1), Some(2), None]),
            // The one that led is gone, or behind.
            (vec![secret, key(2, a, None)],                                vec![None, Some(1)]),
            (vec![key(2, a, None), key(1, a, Some(1))],                    vec![Some(1), None]),
            (vec![key(2, a, None), key(3, a, None)],                       vec![Some(1), None]),
            // All keys are others.
            (vec![key(3, b, Some(2)), key(4, b, Some(2))],                 vec![Some(2), None]),
        ];
        for (mut wanted, expected) in table {
            lead(&before, &mut wanted);
            let found: Vec<_> =
                wanted.iter().map(|held| held.lookup.map(|hash| hash.0[0])).collect();
            assert_eq!(found, expected, "{wanted:?}");
        }
    }
}
