//! Requests for credentials: their forms, what is done about them, what is answered.

use moorline_dialects::thingsboard::{
    credentials::Credentials,
    provision::{Answer, Enrolment, Existing, Request, Step, Strategy, enrolment, step},
};

use super::support::{basic, json, token};

fn request(credentials: Option<Credentials>) -> Request {
    let text = str::to_owned;
    Request {
        device_name: Some(text("DEV-1")),
        key: text("k"),
        secret: text("s"),
        credentials,
        gateway: false,
    }
}

/// A request with these fields more.
fn read(more: &str) -> Result<Request, String> {
    let written = format!(
        r#"{{"deviceName":"DEV-1","provisionDeviceKey":"k","provisionDeviceSecret":"s"{more}}}"#
    );
    Request::read(&json(&written)).map_err(|error| error.to_string())
}

#[test]
fn a_device_may_bring_its_credentials() {
    let mqtt = Credentials::MqttBasic(basic(Some("c"), Some("u"), Some("p")));
    let x509 = Credentials::X509Certificate("AQID".to_owned());
    #[rustfmt::skip]
    let table = [
        ("",                                                              request(None)),
        (r#","gateway":true"#,                                            Request { gateway: true, ..request(None) }),
        (r#","gateway":null"#,                                            request(None)),
        (r#","credentialsType":null"#,                                    request(None)),
        (r#","credentialsType":"ACCESS_TOKEN""#,                          request(None)),
        (r#","credentialsType":"ACCESS_TOKEN","token":"t""#,              request(Some(token("t")))),
        (r#","credentialsType":"MQTT_BASIC","clientId":"c","username":"u","password":"p""#, request(Some(mqtt))),
        (r#","credentialsType":"X509_CERTIFICATE","hash":"AQID""#,        request(Some(x509))),
        // Without a type they mean nothing.
        (r#","token":"t""#,                                               request(None)),
    ];
    for (more, expected) in table {
        assert_eq!(read(more), Ok(expected), "{more}");
    }
    let nameless = r#"{"deviceName":"","provisionDeviceKey":"k","provisionDeviceSecret":"s"}"#;
    let nameless = Request::read(&json(nameless)).unwrap();
    assert_eq!(nameless, Request { device_name: None, ..request(None) });
}

#[test]
fn other_shapes_are_refused() {
    #[rustfmt::skip]
    let table = [
        r#","credentialsType":"LWM2M_CREDENTIALS""#, r#","credentialsType":"x""#, r#","credentialsType":1"#,
        r#","credentialsType":"MQTT_BASIC""#, r#","credentialsType":"MQTT_BASIC","clientId":"c","password":"p""#,
        r#","credentialsType":"X509_CERTIFICATE""#, r#","credentialsType":"X509_CERTIFICATE","hash":"""#,
        r#","deviceName":1"#, r#","provisionDeviceKey":null"#, r#","provisionDeviceSecret":"""#,
    ];
    for more in table {
        assert!(read(more).is_err(), "{more}");
    }
    for written in ["[]", "1", "{}", r#"{"provisionDeviceKey":"k"}"#] {
        assert!(Request::read(&json(written)).is_err(), "{written}");
    }
}

#[test]
fn key_and_secret_are_a_profiles() {
    let request = request(None);
    #[rustfmt::skip]
    let table = [("k", "s", true), ("k", "x", false), ("x", "s", false), ("", "", false), ("ks", "", false)];
    for (key, secret, expected) in table {
        assert_eq!(request.proves(key, secret), expected, "{key} {secret}");
    }
}

#[test]
fn answers_are_written_as_sdks_read_them() {
    let mqtt = Credentials::MqttBasic(basic(Some("c"), Some("u"), Some("p")));
    let part = Credentials::MqttBasic(basic(None, Some("u"), None));
    let x509 = Credentials::X509Certificate("AQID".to_owned());
    #[rustfmt::skip]
    let table = [
        (Answer::Success(token("t")), r#"{"credentialsType":"ACCESS_TOKEN","credentialsValue":"t","status":"SUCCESS"}"#),
        (Answer::Success(mqtt),
            r#"{"credentialsType":"MQTT_BASIC","credentialsValue":{"clientId":"c","userName":"u","password":"p"},"status":"SUCCESS"}"#),
        (Answer::Success(part), r#"{"credentialsType":"MQTT_BASIC","credentialsValue":{"userName":"u"},"status":"SUCCESS"}"#),
        (Answer::Success(x509), r#"{"credentialsType":"X509_CERTIFICATE","credentialsValue":"AQID","status":"SUCCESS"}"#),
        (Answer::NotFound, r#"{"errorMsg":"Provision data was not found!","status":"NOT_FOUND"}"#),
        (Answer::Failure,  r#"{"errorMsg":"Failed to provision device!","status":"FAILURE"}"#),
    ];
    for (answer, expected) in table {
        assert_eq!(answer.to_json().to_string(), expected);
    }
}

#[test]
fn the_profile_decides() {
    use Existing::{Fresh, Nothing, Provisioned};
    #[rustfmt::skip]
    let table = [
        (Strategy::Disabled,            [Step::NotFound, Step::NotFound, Step::NotFound]),
        (Strategy::CertificateChain,    [Step::NotFound, Step::NotFound, Step::NotFound]),
        (Strategy::AllowCreate,         [Step::Create,   Step::Fail,     Step::Fail]),
        (Strategy::CheckPreProvisioned, [Step::Fail,     Step::Provision, Step::Fail]),
    ];
    for (strategy, expected) in table {
        let steps = [Nothing, Fresh, Provisioned].map(|existing| step(strategy, existing));
        assert_eq!(steps, expected, "{strategy:?}");
    }
}

#[test]
fn an_authority_speaks_for_its_profiles_devices() {
    #[rustfmt::skip]
    let table = [
        (None,          true,  Enrolment::Create),
        (None,          false, Enrolment::Refuse),
        (Some("pump"),  true,  Enrolment::Renew),
        (Some("pump"),  false, Enrolment::Renew),
        (Some("other"), true,  Enrolment::Refuse),
        (Some("other"), false, Enrolment::Refuse),
    ];
    for (existing, may_create, expected) in table {
        assert_eq!(enrolment("pump", existing, may_create), expected, "{existing:?} {may_create}");
    }
}
