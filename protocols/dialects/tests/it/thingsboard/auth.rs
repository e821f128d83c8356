//! Who an integrator is: headers and bodies.

use moorline_dialects::thingsboard::rest::auth::{
    Bearer, Claims, Login, PASSWORD_BYTES_MAX, PublicLogin, Refresh, Tokens, USERNAME_BYTES_MAX,
};
use serde_json::json;

#[test]
fn a_header_has_a_token_or_a_key() {
    let token = |text: &str| Some(Bearer::Token(text.to_owned()));
    #[rustfmt::skip]
    let table = [
        ("Bearer JWT",    token("JWT")),
        ("bearer  JWT ",  token("JWT")),
        ("ApiKey K",      Some(Bearer::ApiKey("K".to_owned()))),
        ("Basic dXNlcg==", None), ("Bearer", None), ("Bearer ", None), ("JWT", None), ("", None),
    ];
    for (header, expected) in table {
        assert_eq!(Bearer::of(header), expected, "{header}");
    }
    assert!(!format!("{:?}", token("JWT")).contains("JWT"));
}

#[test]
fn bodies_are_as_clients_write_them() {
    let login: Login =
        serde_json::from_value(json!({ "username": "u", "password": "p", "x": 1 })).unwrap();
    assert_eq!((login.username.as_str(), login.password.as_str()), ("u", "p"));
    assert!(!format!("{login:?}").contains("\"p\""));
    let refresh: Refresh = serde_json::from_value(json!({ "refreshToken": "r" })).unwrap();
    for (field, most) in [("username", USERNAME_BYTES_MAX), ("password", PASSWORD_BYTES_MAX)] {
        for (bytes, is_read) in [(most, true), (most + 1, false)] {
            let mut long = json!({ "username": "a@example.com", "password": "p" });
            long[field] = json!("x".repeat(bytes));
            let read = Login::read(long.to_string().as_bytes()).is_some();
            assert_eq!(read, is_read, "{field}: {bytes}");
        }
    }
    assert_eq!(Login::read(b"{}"), None);
    let public: PublicLogin = serde_json::from_value(json!({ "publicId": "i" })).unwrap();
    assert_eq!((refresh.refresh_token.as_str(), public.public_id.as_str()), ("r", "i"));
    for wrong in [json!({}), json!({ "username": "u" }), json!({ "username": 1, "password": "p" })]
    {
        assert!(serde_json::from_value::<Login>(wrong.clone()).is_err(), "{wrong}");
    }
    let mut tokens = Tokens { token: "t".into(), refresh_token: "r".into(), scope: None };
    assert_eq!(json!(tokens), json!({ "token": "t", "refreshToken": "r" }));
    tokens.scope = Some("PRE_VERIFICATION_TOKEN".to_owned());
    assert_eq!(json!(tokens)["scope"], "PRE_VERIFICATION_TOKEN");
    let written = json!({
        "sub": "u", "userId": "1", "scopes": ["TENANT_ADMIN"], "tenantId": "2", "customerId": "3", "iat": 4, "exp": 5,
    });
    let claims: Claims = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(json!(claims), written);
}
