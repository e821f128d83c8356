//! Acknowledgements: what each outcome is in either version of MQTT.

use moorline_dialects::thingsboard::mqtt::{Ack, Outcome, Version, ack, subscribe_refused};

#[test]
fn each_outcome_has_its_acknowledgement() {
    let stays = |reason| Ack { puback: Some(reason), disconnect: None };
    let ends = |reason| Ack { puback: None, disconnect: Some(reason) };
    let both = |reason| Ack { puback: Some(reason), disconnect: Some(reason) };
    #[rustfmt::skip]
    let table = [
        // outcome               MQTT 3        MQTT 3, the profile acknowledges   MQTT 5
        (Outcome::Done,           stays(0),     stays(0),     stays(0)),
        (Outcome::UnknownTopic,   stays(0),     stays(0),     stays(0x90)),
        (Outcome::NotGateway,     stays(0),     stays(0),     stays(0)),
        (Outcome::Invalid,        ends(0x99),   stays(0x99),  stays(0x99)),
        (Outcome::RateLimited,    ends(0x97),   ends(0x97),   ends(0x97)),
        (Outcome::GatewayLimited, ends(0x97),   ends(0x97),   both(0x97)),
        (Outcome::Failed,         ends(0x83),   ends(0x83),   ends(0x83)),
    ];
    for (outcome, v3, v3_acknowledged, v5) in table {
        assert_eq!(ack(outcome, Version::V3, false), v3, "{outcome:?}");
        assert_eq!(ack(outcome, Version::V3, true), v3_acknowledged, "{outcome:?}");
        assert_eq!(ack(outcome, Version::V5, false), v5, "{outcome:?}");
        assert_eq!(ack(outcome, Version::V5, true), v5, "{outcome:?}");
    }
    assert_eq!((subscribe_refused(Version::V3), subscribe_refused(Version::V5)), (0x80, 0x8f));
}
