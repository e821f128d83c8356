//! Topics and filters of a node, and of nobody else.

use moorline_dialects::thingsboard::sparkplug::topics::{Kind, Place};

use super::WILL;

#[test]
fn a_will_names_the_place() {
    let place = Place::of_will(WILL).unwrap();
    assert_eq!(place.command(None), "spBv1.0/G/NCMD/N");
    assert_eq!(place.command(Some("D 1")), "spBv1.0/G/DCMD/N/D 1");
    let long = format!("spBv1.0/G/NDEATH/{}", "n".repeat(256));
    for wrong in [
        "",
        "NDEATH",
        "spBv1.0/G/NDEATH",
        "spBv1.0/G/NDEATH/",
        "spBv1.0//NDEATH/N",
        "spBv1.0/G/NBIRTH/N",
        "spBv1.0/G/DDEATH/N/D",
        "spBv1.0/G/NDEATH/N/D",
        "spBv1.0/G/NDEATH/+",
        "spAv1.0/G/NDEATH/N",
        &long,
    ] {
        assert_eq!(Place::of_will(wrong), None, "{wrong}");
    }
}

#[test]
fn a_topic_is_about_the_node_or_a_device() {
    let place = Place::of_will(WILL).unwrap();
    #[rustfmt::skip]
    let table = [
        ("spBv1.0/G/NBIRTH/N",   Some((Kind::Birth, None))),
        ("spBv1.0/G/NDATA/N",    Some((Kind::Data,  None))),
        ("spBv1.0/G/NDEATH/N",   Some((Kind::Death, None))),
        ("spBv1.0/G/DBIRTH/N/D", Some((Kind::Birth, Some("D")))),
        ("spBv1.0/G/DDATA/N/D",  Some((Kind::Data,  Some("D")))),
        ("spBv1.0/G/DDEATH/N/D", Some((Kind::Death, Some("D")))),
        // Another's, or the other way round.
        ("spBv1.0/H/NBIRTH/N",   None),
        ("spBv1.0/G/NBIRTH/M",   None),
        ("spBv1.0/G/NBIRTH/N/D", None),
        ("spBv1.0/G/DBIRTH/N",   None),
        ("spBv1.0/G/DBIRTH/N/",  None),
        ("spBv1.0/G/DDATA/N/D/E", None),
        ("spBv1.0/G/NCMD/N",     None),
        ("spBv1.0/G/DCMD/N/D",   None),
        ("spBv1.0/G/nbirth/N",   None),
        ("spBv1.0/STATE/host",   None),
        ("v1/devices/me/telemetry", None),
    ];
    for (topic, expected) in table {
        assert_eq!(place.read(topic.as_bytes()), expected, "{topic}");
    }
    assert_eq!(place.read(b"spBv1.0/G/NDATA/\xff"), None);
}

#[test]
fn a_node_may_hear_of_commands_and_of_applications() {
    let place = Place::of_will(WILL).unwrap();
    let table = [
        ("spBv1.0/G/NCMD/N", true),
        ("spBv1.0/G/NCMD/N/#", true),
        ("spBv1.0/G/DCMD/N/#", true),
        ("spBv1.0/G/DCMD/N/+", true),
        ("spBv1.0/G/DCMD/N/D", true),
        ("spBv1.0/STATE/scada", true),
        ("spBv1.0/STATE/+", true),
        ("STATE/scada", true),
        ("spBv1.0/G/NCMD/M", false),
        ("spBv1.0/H/NCMD/N", false),
        ("spBv1.0/G/NCMD/+", false),
        ("spBv1.0/G/DCMD/N", false),
        ("spBv1.0/G/DCMD/N/D/E", false),
        ("spBv1.0/G/NDATA/N", false),
        ("spBv1.0/#", false),
        ("#", false),
        ("v1/devices/me/attributes", false),
    ];
    for (filter, expected) in table {
        assert_eq!(place.grants(filter.as_bytes()), expected, "{filter}");
    }
    assert!(!place.grants(b"\xff"));
}
