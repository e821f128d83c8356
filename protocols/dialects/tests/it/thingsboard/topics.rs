//! Topics: every row of the specification's table, by each kind of session, and where answers go.

use moorline_dialects::thingsboard::{
    ota::PackageKind,
    topics::{
        self, ChunkTopic, Form, GatewayPublish, OwnTopics, Publish, SessionKind, Unpublishable,
        publish,
    },
};
use proptest::prelude::*;

const OWN: OwnTopics<'_> = OwnTopics {
    telemetry: "sensors/+/data",
    attributes: "sensors/+/attributes",
    attributes_subscribe: "sensors/down",
};

fn chunk(kind: PackageKind, request: &str, chunk: u32) -> Publish {
    Publish::Chunk(ChunkTopic { kind, request: request.to_owned(), chunk })
}

#[test]
fn every_topic_of_a_device_is_read() {
    use Form::{V1, V2, V2Json, V2Protobuf};
    #[rustfmt::skip]
    let table = [
        ("v1/devices/me/telemetry",               Publish::Telemetry(V1)),
        ("v2/t",                                  Publish::Telemetry(V2)),
        ("v2/t/j",                                Publish::Telemetry(V2Json)),
        ("v2/t/p",                                Publish::Telemetry(V2Protobuf)),
        ("v1/devices/me/attributes",              Publish::Attributes(V1)),
        ("v2/a",                                  Publish::Attributes(V2)),
        ("v2/a/j",                                Publish::Attributes(V2Json)),
        ("v2/a/p",                                Publish::Attributes(V2Protobuf)),
        ("v1/devices/me/attributes/request/1",    Publish::AttributesRequest(V1, 1)),
        ("v2/a/req/2",                            Publish::AttributesRequest(V2, 2)),
        ("v2/a/req/j/3",                          Publish::AttributesRequest(V2Json, 3)),
        ("v2/a/req/p/4",                          Publish::AttributesRequest(V2Protobuf, 4)),
        ("v1/devices/me/rpc/response/5",          Publish::CallReply(V1, 5)),
        ("v2/r/res/6",                            Publish::CallReply(V2, 6)),
        ("v2/r/res/j/7",                          Publish::CallReply(V2Json, 7)),
        ("v2/r/res/p/8",                          Publish::CallReply(V2Protobuf, 8)),
        ("v1/devices/me/rpc/request/9",           Publish::Call(V1, 9)),
        ("v2/r/req/10",                           Publish::Call(V2, 10)),
        ("v2/r/req/j/11",                         Publish::Call(V2Json, 11)),
        ("v2/r/req/p/2147483647",                 Publish::Call(V2Protobuf, i32::MAX)),
        ("v1/devices/me/claim",                   Publish::Claim),
        ("v2/fw/request/1/chunk/0",               chunk(PackageKind::Firmware, "1", 0)),
        ("v2/sw/request/00099999999999/chunk/12", chunk(PackageKind::Software, "00099999999999", 12)),
        ("sensors/a/data",                        Publish::Telemetry(V1)),
        ("sensors/a/attributes",                  Publish::Attributes(V1)),
    ];
    for (topic, expected) in table {
        for session in [SessionKind::Device, SessionKind::Gateway] {
            let read = publish(topic.as_bytes(), session, OWN);
            assert_eq!(read, Ok(expected.clone()), "{topic} {session:?}");
        }
        let stranger = publish(topic.as_bytes(), SessionKind::Provisioning, OWN);
        assert_eq!(stranger, Err(Unpublishable::Close), "{topic}");
    }
}

#[test]
fn a_gateways_topics_are_for_gateways() {
    #[rustfmt::skip]
    let table = [
        ("v1/gateway/connect",            GatewayPublish::Connect),
        ("v1/gateway/disconnect",         GatewayPublish::Disconnect),
        ("v1/gateway/telemetry",          GatewayPublish::Telemetry),
        ("v1/gateway/attributes",         GatewayPublish::Attributes),
        ("v1/gateway/attributes/request", GatewayPublish::AttributesRequest),
        ("v1/gateway/rpc",                GatewayPublish::CallReply),
        ("v1/gateway/claim",              GatewayPublish::Claim),
    ];
    for (topic, expected) in table {
        let read = |session| publish(topic.as_bytes(), session, OWN);
        assert_eq!(read(SessionKind::Gateway), Ok(Publish::Gateway(expected)), "{topic}");
        assert_eq!(read(SessionKind::Device), Err(Unpublishable::NotGateway), "{topic}");
        assert_eq!(read(SessionKind::Provisioning), Err(Unpublishable::Close), "{topic}");
    }
}

#[test]
fn who_asks_for_credentials_may_do_nothing_else() {
    let read = |topic: &str, session| publish(topic.as_bytes(), session, OWN);
    let request = "/provision/request";
    assert_eq!(read(request, SessionKind::Provisioning), Ok(Publish::Provision));
    for session in [SessionKind::Device, SessionKind::Gateway] {
        assert_eq!(read(request, session), Err(Unpublishable::UnknownTopic));
    }
    for topic in ["provision/request", "/provision/response", "/provision/request/1", "x"] {
        assert_eq!(read(topic, SessionKind::Provisioning), Err(Unpublishable::Close), "{topic}");
    }
}

#[test]
fn other_topics_are_unknown_and_other_ids_are_no_ids() {
    let unknown = Unpublishable::UnknownTopic;
    let no_id = Unpublishable::RequestId;
    #[rustfmt::skip]
    let table = [
        ("",                                            unknown), ("/",                         unknown),
        ("v1",                                          unknown), ("v1/devices/me",             unknown),
        ("v1/devices/me/",                              unknown), ("v1/devices/you/telemetry",  unknown),
        ("/v1/devices/me/telemetry",                    unknown), ("v1/devices/me/telemetry/",  unknown),
        ("v1/devices/me/telemetry/1",                   unknown), ("V1/devices/me/telemetry",   unknown),
        ("v1/devices/me/attributes/request",            unknown), ("v1/devices/me/attributes/response/1", unknown),
        ("v1/devices/me/rpc/request",                   unknown), ("v1/devices/me/rpc/request/1/2", unknown),
        ("v1/devices/me/rpc",                           unknown), ("v1/devices/me/claim/1",     unknown),
        ("v2/x",                                        unknown), ("v2/t/x",                    unknown),
        ("v2/a/res/1",                                  unknown), ("v2/a/req",                  unknown),
        ("v2/a/req/x/1",                                unknown), ("v2/r/req/j/p/1",            unknown),
        ("v2/fw/response/1/chunk/0",                    unknown), ("v2/hw/request/1/chunk/0",   unknown),
        ("v2/fw/request/1/chunk",                       unknown), ("v2/fw/request/1/chunk/0/1", unknown),
        ("v1/gateway",                                  unknown), ("v1/gateway/x",              unknown),
        ("v1/gateway/attributes/response",              unknown), ("v1/gateway/rpc/1",          unknown),
        ("v2/gateway/attributes/request",               unknown), ("sensors/a/b/data",          unknown),
        ("sensors/down",                                unknown), ("spBv1.0/g/NBIRTH/n",        unknown),
        ("v1/devices/me/attributes/request/",           no_id),   ("v1/devices/me/attributes/request/a", no_id),
        ("v1/devices/me/rpc/request/2147483648",        no_id),   ("v1/devices/me/rpc/response/1.0",  no_id),
        ("v2/a/req/j",                                  no_id),   ("v2/r/res/0x1",              no_id),
        ("v2/fw/request//chunk/0",                      no_id),   ("v2/fw/request/a/chunk/0",   no_id),
        ("v2/fw/request/1/chunk/",                      no_id),   ("v2/fw/request/1/chunk/-1",  no_id),
        ("v2/fw/request/1/chunk/4294967296",            no_id),
    ];
    for (topic, expected) in table {
        let read = publish(topic.as_bytes(), SessionKind::Gateway, OWN);
        assert_eq!(read, Err(expected), "{topic}");
    }
    let read = publish(b"v1/devices/me/\xff", SessionKind::Device, OWN);
    assert_eq!(read, Err(unknown));
    // A profile that says nothing has no topics of its own.
    let read = publish(b"sensors/a/data", SessionKind::Device, OwnTopics::default());
    assert_eq!(read, Err(unknown));
}

#[test]
fn answers_go_where_the_form_says() {
    use Form::{V1, V2, V2Json, V2Protobuf};
    #[rustfmt::skip]
    let table = [
        (topics::attributes_response(V1, 7),          "v1/devices/me/attributes/response/7"),
        (topics::attributes_response(V2, 7),          "v2/a/res/7"),
        (topics::attributes_response(V2Json, 7),      "v2/a/res/j/7"),
        (topics::attributes_response(V2Protobuf, 7),  "v2/a/res/p/7"),
        (topics::attributes_update(V1).to_owned(),         "v1/devices/me/attributes"),
        (topics::attributes_update(V2).to_owned(),         "v2/a"),
        (topics::attributes_update(V2Json).to_owned(),     "v2/a/j"),
        (topics::attributes_update(V2Protobuf).to_owned(), "v2/a/p"),
        (topics::call(V1, 7),                         "v1/devices/me/rpc/request/7"),
        (topics::call(V2, 7),                         "v2/r/req/7"),
        (topics::call(V2Json, 7),                     "v2/r/req/j/7"),
        (topics::call(V2Protobuf, 7),                 "v2/r/req/p/7"),
        (topics::call_reply(V1, 7),                   "v1/devices/me/rpc/response/7"),
        (topics::call_reply(V2, 7),                   "v2/r/res/7"),
        (topics::call_reply(V2Json, 7),               "v2/r/res/j/7"),
        (topics::call_reply(V2Protobuf, 7),           "v2/r/res/p/7"),
    ];
    for (topic, expected) in table {
        assert_eq!(topic, expected);
    }
    let ours = |kind| ChunkTopic { kind, request: "7".to_owned(), chunk: 3 };
    let response = topics::chunk_response(&ours(PackageKind::Firmware));
    assert_eq!(response, "v2/fw/response/7/chunk/3");
    let response = topics::chunk_response(&ours(PackageKind::Software));
    assert_eq!(response, "v2/sw/response/7/chunk/3");
    assert_eq!(topics::CHUNK_ERROR, "v2/fw/error");
}

proptest! {
    #[test]
    fn no_topic_makes_it_panic(topic in prop::collection::vec(any::<u8>(), 0..40)) {
        drop(publish(&topic, SessionKind::Gateway, OWN));
    }
}
