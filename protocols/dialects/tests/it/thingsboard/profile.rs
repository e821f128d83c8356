//! Profiles: read from the REST API's JSON and written back, and what transports take from them.

use moorline_dialects::thingsboard::{
    payloads::Payloads,
    profile::{InvalidProfile, METRIC_NAMES_MAX, PayloadType, Profile, TransportType},
    provision::Strategy,
    topics::OwnTopics,
};
use serde_json::{Value, json};

fn full() -> Value {
    json!({
        "id": { "entityType": "DEVICE_PROFILE", "id": "784f394c-42b6-435a-983c-b7beff2784f9" },
        "name": "sensor",
        "type": "DEFAULT",
        "default": false,
        "transportType": "MQTT",
        "provisionType": "ALLOW_CREATE_NEW_DEVICES",
        "provisionDeviceKey": "key",
        "profileData": {
            "configuration": { "type": "DEFAULT" },
            "alarms": [{ "id": "1" }],
            "provisionConfiguration": { "type": "ALLOW_CREATE_NEW_DEVICES", "provisionDeviceSecret": "secret" },
            "transportConfiguration": {
                "type": "MQTT",
                "deviceTelemetryTopic": "sensors/+/data",
                "deviceAttributesTopic": "sensors/+/attributes",
                "deviceAttributesSubscribeTopic": "sensors/down",
                "sparkplugAttributesMetricNames": ["Node Control/*"],
                "sendAckOnValidationException": true,
                "transportPayloadTypeConfiguration": {
                    "transportPayloadType": "PROTOBUF",
                    "deviceTelemetryProtoSchema": "syntax = \"proto3\"; message T { double t = 1; }",
                    "deviceAttributesProtoSchema": "syntax = \"proto3\"; message A { string a = 1; }",
                    "deviceRpcRequestProtoSchema": null,
                    "deviceRpcResponseProtoSchema": "",
                    "enableCompatibilityWithJsonPayloadFormat": true,
                    "useJsonPayloadFormatForDefaultDownlinkTopics": true
                }
            }
        }
    })
}

fn profile(json: Value) -> Profile {
    serde_json::from_value(json).unwrap()
}

#[test]
fn what_is_read_is_written_back() {
    for written in [full(), {
        let mut json = full();
        json["profileData"]["transportConfiguration"]["transportPayloadTypeConfiguration"] =
            json!({ "transportPayloadType": "JSON", "new": 1 });
        json
    }] {
        assert_eq!(json!(profile(written.clone())), written);
    }
}

#[test]
fn transports_take_topics_schemas_and_flags() {
    let profile = profile(full());
    assert_eq!(profile.check(), Ok(()));
    let own = OwnTopics {
        telemetry: "sensors/+/data",
        attributes: "sensors/+/attributes",
        attributes_subscribe: "sensors/down",
    };
    assert_eq!(profile.own_topics(), own);
    assert_eq!(profile.provision_type, Some(Strategy::AllowCreate));
    assert_eq!(profile.provision_device_key.as_deref(), Some("key"));
    let provisioning = &profile.profile_data.provision_configuration;
    assert_eq!(provisioning.provision_device_secret.as_deref(), Some("secret"));
    assert!(profile.profile_data.transport_configuration.send_ack_on_validation_exception);
    let Payloads::Protobuf(schemas) = profile.payloads().unwrap() else { panic!("JSON") };
    assert!(schemas.json_too && schemas.json_down_v1);
}

#[test]
fn a_profile_that_says_nothing_is_the_default() {
    for json in [json!({}), json!({ "name": "x", "profileData": {} })] {
        let profile = profile(json);
        assert_eq!(profile.transport_type, TransportType::Default);
        assert_eq!(profile.own_topics(), OwnTopics::default());
        assert_eq!(profile.payloads(), Ok(Payloads::Json));
        assert_eq!(profile.provision_type, Some(Strategy::Disabled));
        assert_eq!(profile.check(), Ok(()));
    }
    let unknown = serde_json::from_value::<Profile>(json!({ "transportType": "ZIGBEE" }));
    assert!(unknown.is_err());
}

#[test]
fn a_transport_is_the_profiles_or_any_if_it_names_none() {
    use TransportType::{Coap, Default, Lwm2m, Mqtt, Snmp};
    #[rustfmt::skip]
    let table = [
        (Default, [true, true, true, false, false]),
        (Mqtt,    [false, true, false, false, false]),
        (Coap,    [false, false, true, false, false]),
        (Lwm2m,   [false, false, false, true, false]),
        (Snmp,    [false, false, false, false, true]),
    ];
    for (transport_type, expected) in table {
        let profile = Profile { transport_type, ..Profile::default() };
        let allowed = [Default, Mqtt, Coap, Lwm2m, Snmp].map(|transport| profile.allows(transport));
        assert_eq!(allowed, expected, "{transport_type:?}");
    }
}

#[test]
fn sparkplug_is_spoken_where_it_is_asked_for() {
    let transport = |transport: Value| {
        profile(json!({ "profileData": { "transportConfiguration": transport } }))
    };
    let names = |count: usize| vec!["a"; count];
    #[rustfmt::skip]
    let table = [
        (json!({ "sparkplugAttributesMetricNames": ["a"] }),                      None),
        (json!({ "sparkplug": false, "sparkplugAttributesMetricNames": ["a"] }),  None),
        (json!({ "sparkplug": true }),                                            Some(0)),
        (json!({ "sparkplug": true, "sparkplugAttributesMetricNames": null }),    Some(0)),
        (json!({ "sparkplug": true, "sparkplugAttributesMetricNames": ["a"] }),   Some(1)),
        (json!({ "sparkplug": true, "sparkplugAttributesMetricNames": names(METRIC_NAMES_MAX) }), Some(METRIC_NAMES_MAX)),
    ];
    for (written, expected) in table {
        let profile = transport(written.clone());
        assert_eq!(profile.sparkplug().map(<[String]>::len), expected, "{written}");
        assert_eq!(profile.check(), Ok(()), "{written}");
    }
    let many = names(METRIC_NAMES_MAX + 1);
    let many = transport(json!({ "sparkplug": true, "sparkplugAttributesMetricNames": many }));
    assert_eq!(many.check(), Err(InvalidProfile::MetricNames));
}

#[test]
fn what_is_wrong_with_a_profile_is_said() {
    let with = |key: &str, value: Value| {
        let mut json = full();
        json["profileData"]["transportConfiguration"][key] = value;
        profile(json).check()
    };
    let topic = |what| Err(InvalidProfile::Topic(what));
    #[rustfmt::skip]
    let table = [
        ("deviceTelemetryTopic",           json!("a/#/b"),                 topic("the telemetry topic")),
        ("deviceAttributesTopic",          json!("a+"),                    topic("the attributes topic")),
        ("deviceAttributesSubscribeTopic", json!("##"),                    topic("the topic of shared attributes")),
        ("deviceTelemetryTopic",           json!("sensors/+/attributes"),  Err(InvalidProfile::SameTopic)),
    ];
    for (key, value, expected) in table {
        assert_eq!(with(key, value), expected, "{key}");
    }
    let schema =
        json!({ "transportPayloadType": "PROTOBUF", "deviceTelemetryProtoSchema": "message" });
    let Err(InvalidProfile::Schema { what, .. }) =
        with("transportPayloadTypeConfiguration", schema.clone())
    else {
        panic!("accepted")
    };
    assert_eq!(what, "telemetry schema");
    let payload: PayloadType = serde_json::from_value(schema).unwrap();
    assert!(matches!(payload, PayloadType::Protobuf(_)));
}
