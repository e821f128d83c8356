//! Asking endpoints on this machine: what is allowed, what is refused, and what ends in time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod endpoint;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::TenantId;
use moorline_outward::{Answer, Outward, OutwardConfig, OutwardMetrics, Request, Unanswered};
use prometheus::{Registry, TextEncoder};

use self::endpoint::{Endpoint, authority, raw};

/// Longer than anything here takes, shorter than a hung test.
const LONG: Duration = Duration::from_secs(10);
const TENANT: TenantId = TenantId(7);

/// A client that may ask this machine, and its metrics.
fn client(change: impl FnOnce(&mut OutwardConfig)) -> (Outward, Registry) {
    let allow = vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()];
    let mut config = OutwardConfig { allow, ..OutwardConfig::default() };
    change(&mut config);
    config.check().unwrap();
    let registry = Registry::new();
    let metrics = OutwardMetrics::register(&registry).unwrap();
    (Outward::new(config, metrics).unwrap(), registry)
}

fn post(url: &str) -> Request {
    Request {
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: vec![("x-a".to_owned(), "b".to_owned())],
        body: Bytes::from_static(b"said"),
        within: LONG,
    }
}

async fn ask(client: &Outward, url: &str) -> Result<Answer, Unanswered> {
    client.ask(TENANT, &post(url)).await
}

/// A counter or gauge, as it is scraped.
#[track_caller]
fn metric(registry: &Registry, name: &str) -> u64 {
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn an_endpoint_is_asked_and_its_connection_is_kept() {
    let endpoint = Endpoint::start(|_| raw(200, "x-b: c\r\n", b"answer")).await;
    let (client, metrics) = client(|_| {});
    for _ in 0..3 {
        let answer = ask(&client, &endpoint.url("/path?query")).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"answer"[..]));
        assert!(answer.headers.contains(&("x-b".to_owned(), "c".to_owned())), "{answer:?}");
        // Its connection goes back to the others before the next request looks for one.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    let said = endpoint.heard().remove(0);
    assert!(said.starts_with("POST /path?query HTTP/1.1\r\n"), "{said}");
    assert!(said.contains("x-a: b\r\n") && said.contains("user-agent: moorline\r\n"), "{said}");
    assert!(said.contains(&format!("host: {}\r\n", endpoint.address)), "{said}");
    assert!(said.ends_with("\r\n\r\nsaid"), "{said}");
    assert!(endpoint.connections() < 3, "{}", endpoint.connections());
    assert_eq!(metric(&metrics, "moorline_outward_answers_total{status=\"2xx\"}"), 3);
    assert_eq!(metric(&metrics, "moorline_outward_requests"), 0);
    assert!(metric(&metrics, "moorline_outward_connections") > 0);
}

#[tokio::test]
async fn connections_beyond_those_that_are_kept_end_with_their_answer() {
    let endpoint = Endpoint::start(|_| raw(204, "", b"")).await;
    let (client, _) = client(|config| config.connections_max = 0);
    for _ in 0..3 {
        assert_eq!(ask(&client, &endpoint.url("/")).await.unwrap().status, 204);
    }
    assert_eq!(endpoint.connections(), 3);
}

#[tokio::test]
async fn nobody_is_asked_who_may_not_be() {
    let endpoint = Endpoint::start(|_| raw(200, "", b"")).await;
    let port = endpoint.address.port();
    let (none, metrics) = client(|config| config.allow.clear());
    for host in
        ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"]
    {
        let result = ask(&none, &format!("http://{host}:{port}/")).await;
        assert_eq!(result, Err(Unanswered::Address), "{host}");
    }
    for url in ["http://169.254.169.254/latest/", "http://[fd00:ec2::254]/", "https://10.0.0.1/"] {
        assert_eq!(ask(&none, url).await, Err(Unanswered::Address), "{url}");
    }
    assert_eq!(ask(&none, "ftp://127.0.0.1/").await, Err(Unanswered::Url));
    assert_eq!(metric(&metrics, "moorline_outward_refused_total{reason=\"address\"}"), 10);
    assert_eq!(
        metric(&metrics, "moorline_outward_refused_total{reason=\"busy\"}"),
        0,
        "there from the start"
    );
    let (denied, _) = client(|config| config.deny = vec!["127.0.0.0/8".to_owned()]);
    assert_eq!(ask(&denied, &endpoint.url("/")).await, Err(Unanswered::Address));
    let (off, _) = client(|config| config.enabled = false);
    assert_eq!(ask(&off, &endpoint.url("/")).await, Err(Unanswered::Disabled));
    assert_eq!(endpoint.connections(), 0);
    let (by_name, _) = client(|_| {});
    let named = ask(&by_name, &format!("http://localhost:{port}/")).await;
    assert_eq!(named.unwrap().status, 200, "a name whose addresses may be asked");
    let unknown = ask(&by_name, "http://nobody.invalid/").await;
    assert_eq!(unknown, Err(Unanswered::Lookup));
}

#[tokio::test]
async fn what_would_be_refused_is_said_without_asking() {
    let (client, metrics) = client(|config| config.allow.clear());
    #[rustfmt::skip]
    let table = [
        ("http://9.9.9.9/",       Ok(())),
        ("https://a.invalid/",    Ok(())),
        ("http://10.0.0.1/",      Err(Unanswered::Address)),
        ("https://[::1]:8443/x",  Err(Unanswered::Address)),
        ("ftp://a.example/",      Err(Unanswered::Url)),
    ];
    for (url, expected) in table {
        assert_eq!(client.judge(&post(url)), expected, "{url}");
    }
    assert_eq!(metric(&metrics, "moorline_outward_refused_total{reason=\"address\"}"), 2);
    assert_eq!(metric(&metrics, "moorline_outward_refused_total{reason=\"url\"}"), 1);
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let other = Endpoint::start(|_| raw(200, "", b"")).await;
    let to = format!("location: {}\r\n", other.url("/"));
    let endpoint = Endpoint::start(move |_| raw(307, &to, b"")).await;
    let (client, metrics) = client(|_| {});
    assert_eq!(ask(&client, &endpoint.url("/")).await.unwrap().status, 307);
    assert_eq!(other.connections(), 0);
    assert_eq!(metric(&metrics, "moorline_outward_answers_total{status=\"3xx\"}"), 1);
}

#[tokio::test]
async fn answers_are_bounded() {
    let endpoint = Endpoint::start(|head| match head.split(' ').nth(1).unwrap() {
        "/fits" => raw(200, "", &[b'x'; 100]),
        "/large" => raw(200, "", &[b'x'; 101]),
        "/said" => b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n".to_vec(),
        "/chunked" => {
            let chunk = format!("64\r\n{}\r\n", "x".repeat(100));
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n")
                .into()
        }
        "/head" => raw(200, &format!("x-a: {}\r\n", "x".repeat(100_000)), b""),
        "/headers" => raw(200, &"x-a: b\r\n".repeat(100), b""),
        _ => b"SSH-2.0-server\r\n".to_vec(),
    })
    .await;
    let (client, metrics) = client(|config| config.answer_bytes_max = 100);
    assert_eq!(ask(&client, &endpoint.url("/fits")).await.unwrap().body.len(), 100);
    for path in ["/large", "/said", "/chunked"] {
        assert_eq!(ask(&client, &endpoint.url(path)).await, Err(Unanswered::TooLarge), "{path}");
    }
    for path in ["/head", "/headers", "/ssh"] {
        assert_eq!(ask(&client, &endpoint.url(path)).await, Err(Unanswered::Broken), "{path}");
    }
    assert_eq!(metric(&metrics, "moorline_outward_failed_total{reason=\"too_large\"}"), 3);
}

#[tokio::test]
async fn every_wait_ends() {
    // It takes connections, and says nothing.
    let silent = Endpoint::start(|_| Vec::new()).await;
    let (client, _) = client(|config| {
        config.connect_ms = 300;
        config.request_ms_max = 600;
    });
    let begun = Instant::now();
    let patient = ask(&client, &silent.url("/")).await;
    assert_eq!(patient, Err(Unanswered::Timeout), "the configuration's time counts");
    assert!(begun.elapsed() < LONG / 2);
    let request = Request { within: Duration::from_millis(100), ..post(&silent.url("/")) };
    assert_eq!(client.ask(TENANT, &request).await, Err(Unanswered::Timeout));
    let tls = ask(&client, &silent.url("/").replace("http:", "https:")).await;
    assert_eq!(tls, Err(Unanswered::ConnectTimeout), "TLS is part of connecting");
    // It is gone when it was only looked at.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(ask(&client, &format!("http://{gone}/")).await, Err(Unanswered::Connect));
}

#[tokio::test]
async fn a_tenant_waits_for_its_own() {
    let silent = Endpoint::start(|_| Vec::new()).await;
    let endpoint = Endpoint::start(|_| raw(200, "", b"")).await;
    let (client, _) = client(|config| {
        config.requests_per_tenant_max = 1;
        config.waiting_per_tenant_max = 1;
    });
    let slow = Request { within: Duration::from_secs(2), ..post(&silent.url("/")) };
    let held = client.ask(TENANT, &slow);
    let waits = Request { within: Duration::from_millis(100), ..post(&endpoint.url("/")) };
    let others = async {
        tokio::task::yield_now().await;
        let waited = client.ask(TENANT, &waits);
        let turned = async {
            tokio::task::yield_now().await;
            client.ask(TENANT, &waits).await
        };
        let other = client.ask(TenantId(8), &waits);
        tokio::join!(waited, turned, other)
    };
    let (held, (waited, turned, other)) = tokio::join!(held, others);
    assert_eq!(held, Err(Unanswered::Timeout));
    assert_eq!((waited, turned), (Err(Unanswered::Busy), Err(Unanswered::Busy)));
    assert_eq!(other.unwrap().status, 200, "another tenant has its own");
}

#[tokio::test]
async fn tls_trusts_the_machines_authorities_and_those_of_the_configuration() {
    let ours = authority();
    let endpoint = Endpoint::start_tls(&ours, "localhost", |_| raw(200, "", b"secure")).await;
    let url = format!("https://localhost:{}/", endpoint.address.port());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ours.pem()).unwrap();
    let (trusting, _) = client(|config| config.ca = Some(file.path().to_owned()));
    assert_eq!(&ask(&trusting, &url).await.unwrap().body[..], b"secure");
    let (other, metrics) = client(|_| {});
    assert_eq!(ask(&other, &url).await, Err(Unanswered::Tls), "nobody vouches for it");
    assert_eq!(metric(&metrics, "moorline_outward_failed_total{reason=\"tls\"}"), 1);
    let by_address = endpoint.url("/").replace("http:", "https:");
    assert_eq!(ask(&trusting, &by_address).await, Err(Unanswered::Tls), "it has another name");
}
