//! Filters: each known one, by each kind of session; all others are refused.

use moorline_core::QoS;
use moorline_dialects::thingsboard::{
    filters::{Wanted, downlink_qos, granted, subscribe},
    topics::{Form, OwnTopics, SessionKind},
};

const OWN: OwnTopics<'_> =
    OwnTopics { telemetry: "t/+", attributes: "a/+", attributes_subscribe: "down/+" };

#[test]
fn known_filters_are_granted_to_devices_and_gateways() {
    #[rustfmt::skip]
    let table = [
        ("v1/devices/me/attributes",            Wanted::Attributes(Some(Form::V1))),
        ("v2/a",                                Wanted::Attributes(Some(Form::V2))),
        ("v2/a/j",                              Wanted::Attributes(Some(Form::V2Json))),
        ("v2/a/p",                              Wanted::Attributes(Some(Form::V2Protobuf))),
        ("down/+",                              Wanted::Attributes(None)),
        ("v1/devices/me/rpc/request/+",         Wanted::Calls(Form::V1)),
        ("v2/r/req/+",                          Wanted::Calls(Form::V2)),
        ("v2/r/req/j/+",                        Wanted::Calls(Form::V2Json)),
        ("v2/r/req/p/+",                        Wanted::Calls(Form::V2Protobuf)),
        ("v1/devices/me/attributes/response/+", Wanted::Responses),
        ("v2/a/res/+",                          Wanted::Responses),
        ("v2/a/res/j/+",                        Wanted::Responses),
        ("v2/a/res/p/+",                        Wanted::Responses),
        ("v1/devices/me/rpc/response/+",        Wanted::Responses),
        ("v2/r/res/+",                          Wanted::Responses),
        ("v2/r/res/j/+",                        Wanted::Responses),
        ("v2/r/res/p/+",                        Wanted::Responses),
        ("v2/fw/response/+/chunk/+",            Wanted::Responses),
        ("v2/fw/error",                         Wanted::Responses),
        ("v2/sw/response/+/chunk/+",            Wanted::Responses),
        ("v2/sw/error",                         Wanted::Responses),
        ("v1/gateway/attributes",               Wanted::Responses),
        ("v1/gateway/attributes/response",      Wanted::Responses),
        ("v1/gateway/rpc",                      Wanted::Responses),
    ];
    for (filter, expected) in table {
        for session in [SessionKind::Device, SessionKind::Gateway] {
            let wanted = subscribe(filter.as_bytes(), session, OWN);
            assert_eq!(wanted, Some(expected), "{filter} {session:?}");
        }
        assert_eq!(subscribe(filter.as_bytes(), SessionKind::Provisioning, OWN), None, "{filter}");
    }
}

#[test]
fn the_answer_with_credentials_is_for_who_asks_for_them() {
    let wanted = |session| subscribe(b"/provision/response", session, OWN);
    assert_eq!(wanted(SessionKind::Provisioning), Some(Wanted::Responses));
    assert_eq!((wanted(SessionKind::Device), wanted(SessionKind::Gateway)), (None, None));
}

#[test]
fn other_filters_are_refused() {
    #[rustfmt::skip]
    let table = [
        "", "#", "+", "v1/#", "v1/devices/me/#", "v1/devices/me/+", "v1/devices/me/telemetry", "v1/devices/+/attributes",
        "v1/devices/me/rpc/request/1", "v1/devices/me/rpc/request/#", "v1/devices/me/attributes/response/1",
        "v2/fw/response/+", "v2/fw/response/1/chunk/+", "v2/fw/request/+/chunk/+", "v2/t", "v2/a/req/+", "v2/#",
        "v1/gateway/+", "v1/gateway/telemetry", "v1/gateway/disconnect", "provision/response", "t/+", "a/+", "down/1",
        "down/#", "$share/g/v2/a", "V2/a", "v2/a/", "/v2/a",
    ];
    for filter in table {
        for session in [SessionKind::Device, SessionKind::Gateway, SessionKind::Provisioning] {
            assert_eq!(subscribe(filter.as_bytes(), session, OWN), None, "{filter} {session:?}");
        }
    }
    assert_eq!(subscribe(b"\xff", SessionKind::Device, OWN), None);
    assert_eq!(subscribe(b"", SessionKind::Device, OwnTopics::default()), None);
}

#[test]
fn qos_is_one_at_most() {
    assert_eq!(granted(QoS::AtMostOnce), QoS::AtMostOnce);
    assert_eq!(granted(QoS::AtLeastOnce), QoS::AtLeastOnce);
    assert_eq!(granted(QoS::ExactlyOnce), QoS::AtLeastOnce);
    assert_eq!(downlink_qos(None), QoS::AtLeastOnce);
    assert_eq!(downlink_qos(Some(QoS::AtMostOnce)), QoS::AtMostOnce);
}
