//! Credentials: their ids, their JSON, and which can't be any.

use moorline_dialects::thingsboard::credentials::{
    CREDENTIALS_ID_CHARS_MAX, Credentials, CredentialsType, NotCredentials, basic_id,
    certificate_der, certificate_id_of_der, certificate_pem, hash,
};
use serde_json::json;

use super::support::{basic, token};

const PEM: &str = "-----BEGIN CERTIFICATE-----\r\nAQID\r\nBAUG\r\n-----END CERTIFICATE-----\n";

fn x509(pem: &str) -> Credentials {
    Credentials::X509Certificate(pem.to_owned())
}

#[test]
fn hashes_are_sha3_256_in_lower_case() {
    // The standard's example of the empty text (FIPS 202).
    let empty = "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a";
    assert_eq!(hash(""), empty);
    assert_eq!(basic_id("c", "u"), hash("c|u"));
}

#[test]
fn each_type_has_its_id() {
    let mqtt = |client_id, user_name| Credentials::MqttBasic(basic(client_id, user_name, None));
    #[rustfmt::skip]
    let table = [
        (token("T0KEN"),                 "T0KEN".to_owned()),
        (mqtt(Some("c"), None),          hash("c")),
        (mqtt(Some("c"), Some("")),      hash("c")),
        (mqtt(None, Some("u")),          "u".to_owned()),
        (mqtt(Some(""), Some("u")),      "u".to_owned()),
        (mqtt(Some("c"), Some("u")),     hash("c|u")),
        (x509(PEM),                      hash("AQIDBAUG")),
        (x509("AQID\nBAUG"),             hash("AQIDBAUG")),
        (x509(&format!("{PEM}{PEM}")),   hash("AQIDBAUG")),
    ];
    for (credentials, id) in table {
        assert_eq!(credentials.id(), id, "{credentials:?}");
        assert_eq!(credentials.check(), Ok(()));
        assert_eq!(Credentials::from_json(&credentials.to_json()), Ok(credentials));
    }
    assert_eq!(certificate_id_of_der(&[1, 2, 3, 4, 5, 6]), hash("AQIDBAUG"));
    for length in [1, 47, 48, 49, 500] {
        let der = vec![7; length];
        let pem = certificate_pem(&der);
        assert_eq!(certificate_der(&pem), Some(der));
        assert!(pem.lines().all(|line| line.len() <= 64), "{pem}");
    }
}

#[test]
fn they_are_written_as_the_api_has_them() {
    let mqtt = Credentials::MqttBasic(basic(Some("c"), Some("u"), Some("p")));
    let lwm2m = Credentials::Lwm2m { endpoint: "urn:1".to_owned(), config: "{}".to_owned() };
    #[rustfmt::skip]
    let table = [
        (token("T"), json!({ "credentialsType": "ACCESS_TOKEN", "credentialsId": "T", "credentialsValue": null })),
        (mqtt, json!({ "credentialsType": "MQTT_BASIC", "credentialsId": hash("c|u"),
            "credentialsValue": r#"{"clientId":"c","password":"p","userName":"u"}"# })),
        (x509(PEM), json!({ "credentialsType": "X509_CERTIFICATE", "credentialsId": hash("AQIDBAUG"), "credentialsValue": PEM })),
        (lwm2m, json!({ "credentialsType": "LWM2M_CREDENTIALS", "credentialsId": "urn:1", "credentialsValue": "{}" })),
    ];
    for (credentials, expected) in table {
        // The order of keys inside the text is the library's.
        let mut written = credentials.to_json();
        if credentials.credentials_type() == CredentialsType::MqttBasic {
            let value = written["credentialsValue"].as_str().unwrap().to_owned();
            let value: serde_json::Value = serde_json::from_str(&value).unwrap();
            written["credentialsValue"] = json!(value.to_string());
        }
        assert_eq!(written, expected);
        assert_eq!(Credentials::from_json(&expected), Ok(credentials));
    }
}

#[test]
fn what_can_be_no_credentials_is_refused() {
    let long = "x".repeat(CREDENTIALS_ID_CHARS_MAX + 1);
    let mqtt = |value: &str| json!({ "credentialsType": "MQTT_BASIC", "credentialsValue": value });
    #[rustfmt::skip]
    let table = [
        (json!({}),                                                         NotCredentials::Type),
        (json!({ "credentialsType": "PSK" }),                               NotCredentials::Type),
        (json!({ "credentialsType": "ACCESS_TOKEN" }),                      NotCredentials::Token),
        (json!({ "credentialsType": "ACCESS_TOKEN", "credentialsId": "" }), NotCredentials::Token),
        (json!({ "credentialsType": "ACCESS_TOKEN", "credentialsId": long }), NotCredentials::Token),
        (json!({ "credentialsType": "MQTT_BASIC" }),                        NotCredentials::Value),
        (mqtt("{"),                                                         NotCredentials::Value),
        (mqtt("{}"),                                                        NotCredentials::NothingToFindBy),
        (mqtt(r#"{"password":"p"}"#),                                       NotCredentials::NothingToFindBy),
        (mqtt(r#"{"clientId":"c","password":"p"}"#),                        NotCredentials::PasswordAlone),
        (json!({ "credentialsType": "X509_CERTIFICATE" }),                  NotCredentials::Certificate),
        (json!({ "credentialsType": "X509_CERTIFICATE", "credentialsValue": " \n" }), NotCredentials::Certificate),
        (json!({ "credentialsType": "LWM2M_CREDENTIALS", "credentialsValue": "{}" }), NotCredentials::Token),
        (json!({ "credentialsType": "LWM2M_CREDENTIALS", "credentialsId": "e" }), NotCredentials::Value),
    ];
    for (json, expected) in table {
        assert_eq!(Credentials::from_json(&json), Err(expected), "{json}");
    }
}
