//! A cluster with a key, and its API as an administrator uses it.

use std::{collections::BTreeMap, fmt::Write, fs, net::SocketAddr};

use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Shape, ports},
    http,
    sse::Sse,
};

/// A cluster with a key, and its first token.
pub(crate) struct Api {
    pub(crate) cluster: Cluster,
    pub(crate) token: String,
    listens: BTreeMap<(u64, String), SocketAddr>,
    key: tempfile::TempDir,
}

impl Api {
    /// Three nodes.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_as(&Shape::of(3), &[])
    }

    /// Nodes that listen for more: each of `keys` is a key of `[listen]`. Where, says [`Self::at`]; `mixed` is a switch. What the
    /// shape has of more configuration begins within `[security]`.
    #[track_caller]
    pub(crate) fn start_as(shape: &Shape, keys: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("cluster.key");
        fs::write(&key, "5a".repeat(32)).unwrap();
        let extra = format!("[security]\nkey-file = {key:?}\n{}", shape.extra);
        let mut cluster = Cluster::prepare(&Shape { extra, ..shape.clone() });
        let mut listens = BTreeMap::new();
        for node in cluster.nodes() {
            let mut lines = "[listen]\n".to_owned();
            for (key, port) in keys.iter().zip(ports(keys.len())) {
                if *key == "mixed" {
                    lines += "mixed = true\n";
                    continue;
                }
                writeln!(lines, "{key} = \"{port}\"").unwrap();
                listens.insert((node.id, (*key).to_owned()), port);
            }
            let text = fs::read_to_string(&node.config).unwrap();
            fs::write(&node.config, text.replace("[listen]\n", &lines)).unwrap();
        }
        cluster.bring_up();
        let mut api = Self { cluster, token: String::new(), listens, key: dir };
        let made = api.ask(1, "POST", "/tokens", &json!({ "name": "root", "role": "admin" }));
        api.token = text(&made, 201, "token");
        api
    }

    /// The cluster, its token, where its nodes listen for more, and the directory of its key.
    pub(crate) fn into_parts(
        self,
    ) -> (Cluster, String, BTreeMap<(u64, String), SocketAddr>, tempfile::TempDir) {
        (self.cluster, self.token, self.listens, self.key)
    }

    /// Where a node listens for what a key of `[listen]` says.
    pub(crate) fn at(&self, node: u64, key: &str) -> SocketAddr {
        self.listens[&(node, key.to_owned())]
    }

    /// Makes tenants that a platform calls by their names.
    #[track_caller]
    pub(crate) fn make_tenants(&self, platform: &str, names: &[&str]) {
        for name in names {
            let tenant = json!({ "name": name, "aliases": [format!("{platform}:{name}")] });
            let (status, said) = self.ask(1, "POST", "/tenants", &tenant);
            assert_eq!(status, 201, "{said}");
        }
    }

    /// Events as a node streams them: from now on, unless the query says something else.
    #[track_caller]
    pub(crate) fn events(&self, node: u64, query: &str) -> Sse {
        let bearer = format!("Bearer {}", self.token);
        let (to, path) = (self.cluster.node(node).admin, format!("/api/v1/events?{query}"));
        Sse::open(to, &path, &[("authorization", &*bearer)]).unwrap()
    }

    /// Asks a node; status and body.
    #[track_caller]
    pub(crate) fn ask(&self, node: u64, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ask_as(&self.token, node, method, path, body)
    }

    /// The same with another token.
    #[track_caller]
    pub(crate) fn ask_as(
        &self,
        token: &str,
        node: u64,
        method: &str,
        path: &str,
        body: &Value,
    ) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let headers: &[_] = if token.is_empty() { &[] } else { &[("authorization", &*bearer)] };
        let body =
            &if (method, path) == ("POST", "/tenants") { in_plain(body) } else { body.clone() };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let to = self.cluster.node(node).admin;
        let answer = http::api(method, to, &format!("/api/v1{path}"), headers, &body);
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }
}

/// A tenant whose devices may come without TLS, as most of those of tests do, unless it says something else.
fn in_plain(tenant: &Value) -> Value {
    let mut tenant = tenant.clone();
    if tenant["settings"].get("plaintext").is_none() {
        tenant["settings"]["plaintext"] = json!(true);
    }
    tenant
}

/// A field of an answer that must have this status.
#[track_caller]
pub(crate) fn text((status, body): &(u16, Value), expected: u16, field: &str) -> String {
    assert_eq!(*status, expected, "{body}");
    body[field].as_str().unwrap_or_else(|| panic!("no {field} in {body}")).to_owned()
}

/// The status and the problem's code.
pub(crate) fn problem((status, body): (u16, Value)) -> (u16, String) {
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}
