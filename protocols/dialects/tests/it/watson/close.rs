//! The numbers of close codes, and what CONNACK and DISCONNECT say of them.

use moorline_core::port::Failure;
use moorline_dialects::watson::close::Close;

#[test]
fn close_codes_have_their_numbers() {
    #[rustfmt::skip]
    let table: [(Close, u16, Option<u8>, u8, u8); 34] = [
        // number, CONNACK 3, CONNACK 5, DISCONNECT 5
        (Close::Normal,               0, None,    0x80, 0x00),
        (Close::ByClient,            91, None,    0x80, 0x00),
        (Close::ByServer,            92, None,    0x80, 0x80),
        (Close::Stopping,            93, None,    0x80, 0x8b),
        (Close::Administrator,       94, None,    0x80, 0x98),
        (Close::Capacity,           104, None,    0x97, 0x97),
        (Close::BadData,            105, None,    0x81, 0x81),
        (Close::Gone,               106, None,    0x80, 0x00),
        (Close::ClientIdInvalid,    119, Some(2), 0x85, 0x80),
        (Close::BadUnicode,         122, Some(2), 0x85, 0x81),
        (Close::Subscriptions,      154, None,    0x97, 0x97),
        (Close::KeepAlive,          160, None,    0x80, 0x8d),
        (Close::Tls,                163, None,    0x80, 0x80),
        (Close::NoData,             164, None,    0x80, 0x80),
        (Close::FirstPacket,        165, None,    0x95, 0x95),
        (Close::BadClientId,        166, Some(2), 0x85, 0x80),
        (Close::Unavailable,        167, Some(3), 0x88, 0x89),
        (Close::CertificateMissing, 169, None,    0x80, 0x80),
        (Close::CertificateWrong,   170, None,    0x80, 0x80),
        (Close::Connections,        173, None,    0x97, 0x97),
        (Close::Delayed,            175, None,    0x9f, 0x9f),
        (Close::Throttled,          176, None,    0x9f, 0x9f),
        (Close::NotAuthorised,      180, Some(5), 0x87, 0x87),
        (Close::Authentication,     188, Some(5), 0x87, 0x87),
        (Close::Will,               270, None,    0x87, 0x87),
        (Close::BadLength,          271, None,    0x81, 0x81),
        (Close::BadPayload,         273, None,    0x99, 0x99),
        (Close::BadTopic,           276, None,    0x90, 0x90),
        (Close::BadQoS,             284, None,    0x81, 0x81),
        (Close::TooLarge,           287, None,    0x95, 0x95),
        (Close::ClientIdReused,     288, Some(5), 0x87, 0x8e),
        (Close::SystemTopic,        289, None,    0x90, 0x90),
        (Close::MaximumQoS,         291, None,    0x9b, 0x9b),
        (Close::DurableNotAllowed,  292, Some(5), 0x87, 0x87),
    ];
    for ((close, number, v3, connack, disconnect), listed) in table.into_iter().zip(Close::ALL) {
        assert_eq!(close, listed);
        let said = (close.number(), close.connack_v3(), close.connack_v5(), close.disconnect_v5());
        assert_eq!(said, (number, v3, connack, disconnect), "{close:?}");
        assert!(!close.text().is_empty());
    }
    assert_eq!(Close::KeepAlive.text(), "Keep alive time-out");
    assert!(Close::ALL.iter().all(|close| Close::of_number(close.number()) == Some(*close)));
    assert_eq!(Close::of_number(1), None);
    for (failure, number) in [
        (Failure::Silent, 160),
        (Failure::Malformed, 105),
        (Failure::TooLarge, 287),
        (Failure::Revoked, 94),
        (Failure::Refused, 92),
        (Failure::Slow, 92),
    ] {
        assert_eq!(Close::from(failure).number(), number, "{failure:?}");
    }
}
