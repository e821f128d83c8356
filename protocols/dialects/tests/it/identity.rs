//! Shapes of ids and secrets.

use moorline_dialects::fostrom::{
    identity::{Credentials, Misshapen},
    is_name,
};

use crate::support::SECRET;

#[test]
fn parts_have_their_shapes() {
    let lower: Vec<u8> = SECRET.to_ascii_lowercase();
    let lower_end = [&b"FOS-"[..], &lower[4..]].concat();
    #[rustfmt::skip]
    let table: [(&[u8], &[u8], &[u8], Option<Misshapen>); 17] = [
        (b"FLEET001",  b"DEVICE0001",  SECRET,       None),
        (b"fleet001",  b"device0001",  &lower_end,   None),
        (b"",          b"DEVICE0001",  SECRET,       Some(Misshapen::FleetMissing)),
        (b"FLEET01",   b"DEVICE0001",  SECRET,       Some(Misshapen::Fleet)),
        (b"FLEET0001", b"DEVICE0001",  SECRET,       Some(Misshapen::Fleet)),
        (b"FLEET-01",  b"DEVICE0001",  SECRET,       Some(Misshapen::Fleet)),
        (b"FLEET\xc3\xa91", b"DEVICE0001", SECRET,   Some(Misshapen::Fleet)),
        (b"FLEET001",  b"",            SECRET,       Some(Misshapen::DeviceMissing)),
        (b"FLEET001",  b"DEVICE001",   SECRET,       Some(Misshapen::Device)),
        (b"FLEET001",  b"DEVICE00001", SECRET,       Some(Misshapen::Device)),
        (b"FLEET001",  b"DEVICE 001",  SECRET,       Some(Misshapen::Device)),
        (b"FLEET001",  b"DEVICE0001",  b"",          Some(Misshapen::SecretMissing)),
        (b"FLEET001",  b"DEVICE0001",  &SECRET[..35], Some(Misshapen::Secret)),
        (b"FLEET001",  b"DEVICE0001",  &lower,       Some(Misshapen::Secret)),
        (b"FLEET001",  b"DEVICE0001",  &SECRET[4..], Some(Misshapen::Secret)),
        (b"FLEET001",  b"DEVICE0001",  b"FOS-0123456789ABCDEFGHIJKLMNOPQRSTU-", Some(Misshapen::Secret)),
        (b"FLEET001",  b"DEVICE0001",  b"FOS-0123456789ABCDEFGHIJKLMNOPQRSTUVW", Some(Misshapen::Secret)),
    ];
    for (fleet, device, secret, expected) in table {
        let read = Credentials::new(fleet, device, secret);
        assert_eq!(read.as_ref().err(), expected.as_ref(), "{fleet:?} {device:?}");
        if let Ok(read) = read {
            assert_eq!(read.identity.fleet.as_bytes(), fleet, "as sent: nothing changes its case");
            assert_eq!(read.is_issuable(), fleet == b"FLEET001");
            assert_eq!(read.secret.expose(), secret);
            assert!(!format!("{read:?}").contains("0123"), "{read:?}");
        }
    }
}

#[test]
fn user_names_are_fleet_and_device() {
    #[rustfmt::skip]
    let table: [(&[u8], Option<Misshapen>); 7] = [
        (b"FLEET001::DEVICE0001",   None),
        (b"",                       Some(Misshapen::FleetMissing)),
        (b"FLEET001",               Some(Misshapen::Fleet)),
        (b"FLEET001:DEVICE0001",    Some(Misshapen::Fleet)),
        (b"::DEVICE0001",           Some(Misshapen::FleetMissing)),
        (b"FLEET001::",             Some(Misshapen::DeviceMissing)),
        (b"FLEET001:::DEVICE0001",  Some(Misshapen::Device)),
    ];
    for (username, expected) in table {
        let read = Credentials::from_username(username, SECRET);
        assert_eq!(read.err(), expected, "{username:?}");
    }
}

#[test]
fn names_are_short_and_plain() {
    let (longest, longer) = ("n".repeat(255), "n".repeat(256));
    let table = [
        ("env", true),
        ("A-z_0", true),
        (&longest, true),
        (&longer, false),
        ("", false),
        ("a b", false),
        ("a/b", false),
        ("é", false),
        ("a.b", false),
    ];
    for (name, expected) in table {
        assert_eq!(is_name(name.as_bytes()), expected, "{name}");
    }
}
