//! Client ids, user names, certificates and host names.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_core::Text;
use moorline_dialects::watson::identity::{
    ApiKey, BasicUser, CertificateNames, ClientId, Demand, Host, Inadmissible, Misnamed, Misproved,
    Policy, Proof, basic, host, is_issuable_token, is_name, is_org, names_client, proof,
    sni_contradicts,
};
use proptest::prelude::*;

use super::{client, device};

#[test]
fn a_client_id_is_written_as_it_was_read() {
    let long = format!("d:abc123:{0}:{0}", "x".repeat(36));
    let table = [
        "d:abc123:t1:d1",
        "d:abc123:A.b_C-9:.",
        "d:quickstart:t1:d1",
        "g:abc123:gw:g1",
        "a:abc123:app",
        "a:quickstart:app",
        "A:abc123:app",
        "A:abc123:app:one",
        &long,
    ];
    for id in table {
        let read = client(id);
        assert_eq!(read.to_string(), id);
        assert_eq!(read.class().letter(), id.chars().next().unwrap());
        assert_eq!(read.is_quickstart(), id.contains("quickstart"));
    }
}

#[test]
fn what_is_no_client_id_is_refused() {
    use Misnamed::{NotUtf8, Shape, Slash, TooLong, UnknownClass};
    let long = format!("d:abc123:{}:d1", "x".repeat(37));
    let longer = format!("d:abc123:t1:{}", "x".repeat(250));
    let table: [(&[u8], Misnamed); 27] = [
        (b"", UnknownClass),
        (b"x", UnknownClass),
        (b"c:abc123:t1:d1", UnknownClass),
        (b"D:abc123:t1:d1", UnknownClass),
        (b"dd:abc123:t1:d1", UnknownClass),
        (b"ESP32Client", UnknownClass),
        (b"d:abc123:t1:\xff", NotUtf8),
        (b"d:abc123:t/1:d1", Slash),
        (b"/", Slash),
        (b"d", Shape),
        (b"d:", Shape),
        (b"d:abc123", Shape),
        (b"d:abc123:t1", Shape),
        (b"d:abc123:t1:", Shape),
        (b"d:abc123::d1", Shape),
        (b"d:abc123:t1:d1:x", Shape),
        (b"d:ABC123:t1:d1", Shape),
        (b"d:abc12:t1:d1", Shape),
        (b"d:abc1234:t1:d1", Shape),
        (b"d:abc123:t 1:d1", Shape),
        (b"d:abc123:t1:+", Shape),
        ("d:abc123:t1:é".as_bytes(), Shape),
        (b"g:abc123:gw", Shape),
        (b"a:abc123:app:one", Shape),
        (b"A:abc123:app:one:two", Shape),
        (long.as_bytes(), Shape),
        (longer.as_bytes(), TooLong),
    ];
    for (id, expected) in table {
        assert_eq!(ClientId::parse(id), Err(expected), "{}", String::from_utf8_lossy(id));
    }
}

#[test]
fn only_names_of_the_right_shape_get_in() {
    let (long, longer) = ("x".repeat(36), "x".repeat(37));
    let good = ["a", "Z9", "a.b", "a_b", "a-b", "-", ".", &long];
    let bad = ["", " ", "a b", "a/b", "a:b", "+", "#", "a+", "é", "a\0", &longer];
    assert!(good.iter().all(|name| is_name(name.as_bytes())));
    assert!(bad.iter().all(|name| !is_name(name.as_bytes())));
    for (org, expected) in [
        ("abc123", true),
        ("000000", true),
        ("quickstart", true),
        ("Quickstart", false),
        ("abc12", false),
        ("abc12-", false),
        ("ABC123", false),
    ] {
        assert_eq!(is_org(org.as_bytes()), expected, "{org}");
    }
    for (token, expected) in
        [("1234567", false), ("12345678", true), (&*long, true), (&longer, false)]
    {
        assert_eq!(is_issuable_token(token), expected, "{token}");
    }
}

#[test]
fn user_names_fit_their_class() {
    use Misproved as No;
    const TOKEN: &[u8] = b"12345678";
    const KEY: &[u8] = b"a-abc123-0123456789";
    let large = vec![b'x'; 145];
    #[rustfmt::skip]
    let table: [(&str, Option<&[u8]>, Option<&[u8]>, Result<&str, No>); 21] = [
        ("d:abc123:t1:d1", Some(b"use-token-auth"), Some(TOKEN),    Ok("token")),
        ("g:abc123:gw:g1", Some(b"use-token-auth"), Some(TOKEN),    Ok("token")),
        ("a:abc123:app",   Some(KEY),               Some(TOKEN),    Ok("a-abc123-0123456789")),
        ("A:abc123:app:1", Some(KEY),               Some(TOKEN),    Ok("a-abc123-0123456789")),
        ("d:abc123:t1:d1", None,                    None,           Ok("nothing")),
        ("d:abc123:t1:d1", Some(b""),               Some(b""),      Ok("nothing")),
        ("a:abc123:app",   None,                    None,           Ok("nothing")),
        ("d:quickstart:t1:d1", None,                None,           Ok("nothing")),
        ("d:quickstart:t1:d1", Some(b"whoever"),    Some(TOKEN),    Ok("nothing")),
        ("a:quickstart:app",   Some(KEY),           None,           Ok("nothing")),
        ("d:abc123:t1:d1", Some(b"token"),          Some(TOKEN),    Err(No::UserName)),
        ("d:abc123:t1:d1", Some(b"Use-Token-Auth"), Some(TOKEN),    Err(No::UserName)),
        ("d:abc123:t1:d1", Some(KEY),               Some(TOKEN),    Err(No::UserName)),
        ("d:abc123:t1:d1", None,                    Some(TOKEN),    Err(No::NoUserName)),
        ("d:abc123:t1:d1", Some(b"use-token-auth"), None,           Err(No::NoPassword)),
        ("d:abc123:t1:d1", Some(b"use-token-auth"), Some(b""),      Err(No::NoPassword)),
        ("d:abc123:t1:d1", Some(b"use-token-auth"), Some(&large),   Err(No::PasswordTooLong)),
        ("a:abc123:app",   Some(b"use-token-auth"), Some(TOKEN),    Err(No::ApiKey)),
        ("a:abc123:app",   Some(b"a-abc123-short"), Some(TOKEN),    Err(No::ApiKey)),
        ("a:abc123:app",   Some(b"a-zzz123-0123456789"), Some(TOKEN), Err(No::OtherOrg)),
        ("A:abc123:app",   Some(KEY),               None,           Err(No::NoPassword)),
    ];
    for (id, username, password, expected) in table {
        let read = proof(&client(id), username, password);
        let said = read.as_ref().map(|proof| match proof {
            Proof::Nothing => "nothing".to_owned(),
            Proof::Token(secret) => {
                assert_eq!(secret.expose(), TOKEN);
                "token".to_owned()
            }
            Proof::Key { key, token } => {
                assert_eq!(token.expose(), TOKEN);
                key.to_string()
            }
        });
        assert_eq!(said.map_err(|no| *no), expected.map(str::to_owned), "{id} {username:?}");
    }
}

fn header(user: &str) -> Vec<u8> {
    format!("Basic {}", STANDARD.encode(user)).into_bytes()
}

#[test]
fn basic_auth_names_devices_gateways_and_keys() {
    let gateway = |readings: &[(&str, &str)]| {
        let readings = readings.iter().map(|(kind, id)| device(kind, id)).collect();
        Some(BasicUser::Gateway { org: Text::from("abc123"), readings })
    };
    let key = ApiKey::parse(b"a-abc123-0123456789").unwrap();
    assert_eq!(key.client_id(), client("a:abc123:0123456789"));
    #[rustfmt::skip]
    let table = [
        ("use-token-auth:12345678",          Some(BasicUser::PathDevice)),
        ("g/abc123/gw/g1:12345678",          gateway(&[("gw", "g1")])),
        ("g/abc123/g-w/g-1:12345678",        gateway(&[("g-w", "g-1")])),
        ("g-abc123-gw-g1:12345678",          gateway(&[("gw", "g1")])),
        ("g-abc123-a-b-c:12345678",          gateway(&[("a", "b-c"), ("a-b", "c")])),
        ("a-abc123-0123456789:12345678",     Some(BasicUser::Application(key))),
        ("g/abc123/gw:12345678",             None),
        ("g/abc123/gw/g1/x:12345678",        None),
        ("g/ABC123/gw/g1:12345678",          None),
        ("g-abc123-gw:12345678",             None),
        ("g-abc123--:12345678",              None),
        ("g-abc:12345678",                   None),
        ("a-abc123-012345678:12345678",      None),
        ("a-abc123-01234567é:12345678",      None),
        ("somebody:12345678",                None),
        (":12345678",                        None),
        ("use-token-auth:",                  None),
        ("use-token-auth",                   None),
    ];
    for (user, expected) in table {
        let read = basic(&header(user));
        if let Some((_, secret)) = &read {
            assert_eq!(secret.expose(), b"12345678");
        }
        assert_eq!(read.map(|(user, _)| user), expected, "{user}");
    }
    let encoded = STANDARD.encode("use-token-auth:a:b:c:d:e");
    let (_, secret) = basic(format!("bAsIc   {encoded} ").as_bytes()).unwrap();
    assert_eq!(secret.expose(), b"a:b:c:d:e");
    for header in ["", "Basic", "Basic ", "Bearer abc", "Basic not base64", "Basic ====", &encoded]
    {
        assert_eq!(basic(header.as_bytes()), None, "{header}");
    }
    assert_eq!(basic(&header(&format!("use-token-auth:{}", "x".repeat(400)))), None);
}

#[test]
fn certificates_name_the_client_id() {
    let table: [(&str, Option<&str>, &[&str], bool); 10] = [
        ("d:abc123:t1:d1", Some("d:t1:d1"), &[], true),
        ("g:abc123:gw:g1", Some("g:gw:g1"), &[], true),
        ("d:abc123:t1:d1", None, &["x@y", "d:t1:d1"], true),
        ("d:abc123:t1:d1", Some("other"), &["d:t1:d1"], true),
        ("d:abc123:t1:d1", Some("d:t1:d2"), &[], false),
        ("d:abc123:t1:d1", Some("D:T1:D1"), &[], false),
        ("d:abc123:t1:d1", Some("g:t1:d1"), &["d:abc123:t1:d1", "d:t1"], false),
        ("d:abc123:t1:d1", None, &[], false),
        ("a:abc123:app", Some("a:app"), &["a:abc123:app"], false),
        ("A:abc123:app:1", Some("A:app:1"), &[], false),
    ];
    for (id, common, alternative, expected) in table {
        let names = CertificateNames { common, alternative };
        assert_eq!(names_client(names, &client(id)), expected, "{id} {common:?} {alternative:?}");
    }
}

#[test]
fn policies_ask_for_what_they_say() {
    use Inadmissible::{NoCertificate, NoToken, Plaintext};
    use Policy::{Certificate, CertificateAndToken, CertificateOrToken, TlsOptional, Token};
    let token =
        proof(&client("d:abc123:t1:d1"), Some(b"use-token-auth"), Some(b"12345678")).unwrap();
    #[rustfmt::skip]
    let table = [
        // TLS, certificate, token
        (TlsOptional,         false, None,        true,  Ok(Demand::Token)),
        (TlsOptional,         true,  None,        true,  Ok(Demand::Token)),
        (TlsOptional,         false, None,        false, Err(NoToken)),
        (TlsOptional,         true,  Some(true),  false, Err(NoToken)),
        (Token,               false, None,        true,  Err(Plaintext)),
        (Token,               true,  None,        true,  Ok(Demand::Token)),
        (Token,               true,  Some(true),  false, Err(NoToken)),
        (Certificate,         false, Some(true),  true,  Err(Plaintext)),
        (Certificate,         true,  None,        true,  Err(NoCertificate)),
        (Certificate,         true,  Some(false), true,  Err(NoCertificate)),
        (Certificate,         true,  Some(true),  false, Ok(Demand::Nothing)),
        (CertificateAndToken, true,  Some(true),  true,  Ok(Demand::Token)),
        (CertificateAndToken, true,  Some(true),  false, Err(NoToken)),
        (CertificateAndToken, true,  None,        true,  Err(NoCertificate)),
        (CertificateAndToken, false, Some(true),  true,  Err(Plaintext)),
        (CertificateOrToken,  true,  Some(true),  false, Ok(Demand::Nothing)),
        (CertificateOrToken,  true,  Some(false), true,  Ok(Demand::Token)),
        (CertificateOrToken,  true,  None,        true,  Ok(Demand::Token)),
        (CertificateOrToken,  true,  None,        false, Err(NoToken)),
        (CertificateOrToken,  false, None,        true,  Err(Plaintext)),
    ];
    for (policy, tls, certificate, with_token, expected) in table {
        let proof = if with_token { &token } else { &Proof::Nothing };
        assert_eq!(
            policy.admits(tls, certificate, proof),
            expected,
            "{policy:?} {tls} {certificate:?}"
        );
    }
    assert_eq!(Policy::default(), Token);
}

#[test]
fn hosts_name_organisations() {
    let org = |org: &str, messaging| Some(Host { org: Text::from(org), messaging });
    let table = [
        ("abc123.messaging.internetofthings.ibmcloud.com", org("abc123", true)),
        ("ABC123.Messaging.example.com:8883", org("abc123", true)),
        ("quickstart.messaging.example.com:1883", org("quickstart", true)),
        ("abc123.example.com", org("abc123", false)),
        ("abc123.localhost:9443", org("abc123", false)),
        ("abc123", org("abc123", false)),
        ("localhost:9443", None),
        ("127.0.0.1:1883", None),
        ("[::1]:1883", None),
        ("", None),
        ("abc12.messaging.example.com", None),
        (".messaging.example.com", None),
    ];
    for (name, expected) in table {
        assert_eq!(host(name.as_bytes()), expected, "{name}");
    }
    let mine = Text::from("abc123");
    for (sni, expected) in [
        ("abc123.messaging.example.com", false),
        ("zzz999.messaging.example.com", true),
        ("quickstart.messaging.example.com", true),
        ("broker.example.com", false),
        ("localhost", false),
    ] {
        assert_eq!(sni_contradicts(sni.as_bytes(), &mine), expected, "{sni}");
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_readers(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(read) = ClientId::parse(&bytes) {
            prop_assert_eq!(read.to_string().into_bytes(), bytes.clone());
        }
        prop_assert!(basic(&bytes).is_none() || bytes.len() > 6);
        prop_assert!(host(&bytes).is_none_or(|host| is_org(host.org.as_bytes())));
        let mut authorization = b"Basic ".to_vec();
        authorization.extend(STANDARD.encode(&bytes).into_bytes());
        let read = basic(&authorization);
        prop_assert!(read.is_none_or(|(_, secret)| !secret.expose().is_empty()));
    }

    #[test]
    fn client_ids_of_their_shape_are_read(id in "[dg]:[a-z0-9]{6}:[A-Za-z0-9._-]{1,36}:[A-Za-z0-9._-]{1,36}") {
        prop_assert_eq!(client(&id).to_string(), id);
    }
}
