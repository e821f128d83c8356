//! Our codec against one that shares no code with it, `rumqttc`'s: each reads what the other writes.
//!
//! A packet is translated into their types; what we encode they must decode to that, and what they encode from it we
//! must decode to the packet. Damaged by a byte, what we still take they must take for the same. Where they have no form for a packet, [`Known`] says why; nothing else is left out.

mod v311;
mod v5;

use std::collections::BTreeMap;

use bytes::BytesMut;
use moorline_core::Text;
use moorline_mqtt::{
    Packet, Version,
    codec::{Connect, encode},
};
use proptest::{
    prelude::any,
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

use crate::packets::{any_packet, decoder_of};

/// Packets of each version that are exchanged.
const PACKETS: u32 = 20_000;

/// What `rumqttc` 0.25.1 does otherwise. Ours is what the standard says, each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// It takes a password for text; the standard says binary data (3.1.3.6).
    BinaryPassword,
    /// It takes an empty user name or password for none, and drops the flag.
    EmptyLogin,
    /// It has no way to read an AUTH, and hides the fields of one.
    Auth,
    /// It refuses an empty DISCONNECT, and takes one that ends after its reason code (3.14.2.1) for incomplete.
    ShortDisconnect,
    /// It counts a byte too much for each subscription identifier of a PUBLISH, so that after two of them it may take
    /// the last property for payload.
    SubscriptionIds,
}

fn login(connect: &Connect) -> Result<Option<(String, String)>, Known> {
    let text = |text: &Text| text.to_string();
    let username = connect.username.as_ref().map(text);
    let password = connect.password.as_ref().map(|password| String::from_utf8(password.to_vec()));
    let password = password.transpose().map_err(|_| Known::BinaryPassword)?;
    if [&username, &password].into_iter().flatten().any(String::is_empty) {
        return Err(Known::EmptyLogin);
    }
    let some = username.is_some() || password.is_some();
    Ok(some.then(|| (username.unwrap_or_default(), password.unwrap_or_default())))
}

/// Exchanges many packets; gives how often each known difference was in the way.
fn exchange<T: PartialEq + std::fmt::Debug>(
    version: Version,
    translate: impl Fn(&Packet) -> Result<T, Known>,
    read: impl Fn(&mut BytesMut) -> Option<T>,
    write: impl Fn(&T) -> BytesMut,
) -> BTreeMap<Known, u32> {
    let (mut known, mut damaged_taken) = (BTreeMap::new(), 0);
    let mut runner = TestRunner::deterministic();
    let packets = any_packet(version);
    for _ in 0..PACKETS {
        let packet = packets.new_tree(&mut runner).unwrap().current();
        let theirs = match translate(&packet) {
            Ok(theirs) => theirs,
            Err(difference) => {
                *known.entry(difference).or_default() += 1;
                continue;
            }
        };
        let mut ours = BytesMut::new();
        encode(&packet, version, &mut ours).unwrap();
        let bytes = ours.clone();
        assert_eq!(read(&mut ours).as_ref(), Some(&theirs), "they read {packet:?} otherwise");
        assert!(ours.is_empty(), "they leave a part of {packet:?}");

        let mut written = write(&theirs);
        let again = decoder_of(&packet, version).decode(&mut written).unwrap().unwrap();
        assert!(written.is_empty(), "we leave a part of {packet:?}");
        // Through their types once more, because the order of properties may differ.
        assert_eq!(translate(&again).unwrap(), theirs, "we read {packet:?} otherwise");

        // One byte is changed: what we still take for a packet must be the packet that they take it for.
        let (at, value) = any::<(u16, u8)>().new_tree(&mut runner).unwrap().current();
        let mut damaged = bytes;
        let at = usize::from(at) % damaged.len();
        damaged[at] = value;
        let mut decoder = decoder_of(&packet, version);
        let Ok(Some(taken)) = decoder.decode(&mut damaged.clone()) else { continue };
        match translate(&taken) {
            Ok(expected) if decoder.version() == Some(version) => {
                assert_eq!(read(&mut damaged), Some(expected), "only we take {taken:?}");
                damaged_taken += 1;
            }
            Ok(_) => {}
            Err(difference) => *known.entry(difference).or_default() += 1,
        }
    }
    assert!(damaged_taken > PACKETS / 10, "only {damaged_taken} survived the damage");
    known
}
