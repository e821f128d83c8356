//! What a file that is read again changes: which of its settings a running node takes, and which wait for a restart.
//!
//! # Invariants
//!
//! - **Nothing is left out**: a setting that differs is taken or named, whichever it is. Checked by this file's tests.
//! - `docs/configuration.md` says of a setting that it is taken, or it is not. Checked by this file's tests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Config,
    show::{SECRETS, each},
};

/// What came of reading a file again: settings, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changes {
    /// Those that count from now on.
    pub(crate) taken: Vec<String>,
    /// Those that differ from what runs, and count when the node is started again.
    pub(crate) needs_restart: Vec<String>,
}

impl Config {
    /// What this node would run with if it took what it can of a file.
    pub(crate) fn taking(&self, file: &Self) -> Self {
        let mut next = self.clone();
        next.log.level.clone_from(&file.log.level);
        next.log.connections_s = file.log.connections_s;
        let (to, from) = (&mut next.mqtt, &file.mqtt);
        to.connections_max = from.connections_max;
        to.unauthenticated_per_address_max = from.unauthenticated_per_address_max;
        to.connects_per_client_s = from.connects_per_client_s;
        to.connects_per_client_burst = from.connects_per_client_burst;
        to.connects_per_tenant_s = from.connects_per_tenant_s;
        to.deliveries_per_tenant_s = from.deliveries_per_tenant_s;
        to.tls_handshake_ms = from.tls_handshake_ms;
        to.first_packet_ms = from.first_packet_ms;
        to.drain_ms = from.drain_ms;
        to.session_queue_max = from.session_queue_max;
        to.session_queue_bytes_max = from.session_queue_bytes_max;
        to.sessions_per_shard_max = from.sessions_per_shard_max;
        next
    }

    /// What a file changes of what runs, and what it would if the node were started again.
    pub(crate) fn changes(&self, file: &Self) -> Changes {
        let (runs, next, wanted) = (self.values(), self.taking(file).values(), file.values());
        Changes { taken: differing(&runs, &next), needs_restart: differing(&next, &wanted) }
    }

    /// Every setting that has a value, by key.
    fn values(&self) -> BTreeMap<String, Value> {
        let all = serde_json::to_value(self).expect("a configuration is a map with string keys");
        let mut values = BTreeMap::new();
        each(&all, "", &mut |key, value| _ = values.insert(key.to_owned(), value.clone()));
        values
    }

    /// The same for people: of secrets only that they are there.
    pub(crate) fn shown(&self) -> BTreeMap<String, Value> {
        let mut values = self.values();
        for secret in SECRETS {
            values.entry(secret.to_owned()).and_modify(|value| *value = Value::from("(a secret)"));
        }
        values
    }
}

/// The keys of what is not the same in both, in their order.
pub(crate) fn differing(
    left: &BTreeMap<String, Value>,
    right: &BTreeMap<String, Value>,
) -> Vec<String> {
    let mut keys: Vec<_> = left.keys().chain(right.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().filter(|key| left.get(*key) != right.get(*key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FILE: &str = "[node]\nid = 1\ndata-dir = \"data\"\n[cluster]\ntoken = \"5a\"\n\
        peers = [{ id = 1, address = \"a:1\" }]\n";

    fn config(more: &str) -> Config {
        Config::parse(&format!("{FILE}{more}"), Path::new("node.toml")).unwrap()
    }

    #[test]
    fn what_differs_is_taken_or_named_and_the_rest_is_silent() {
        let runs = config("");
        assert_eq!(runs.changes(&config("")), Changes::default());
        #[rustfmt::skip]
        let table = [
            ("[mqtt]\nconnections-max = 7",              "mqtt.connections-max", ""),
            ("[mqtt]\nreceive-max = 7",                  "",                     "mqtt.receive-max"),
            ("[log]\nlevel = \"debug\"\nformat = \"text\"", "log.level",         "log.format"),
            ("[listen]\nadmin = \"127.0.0.1:1\"",        "",                     "listen.admin"),
            ("[storage]\nlow-mib = 2000\n[mqtt]\nsession-queue-max = 1\nbacklog = 9",
             "mqtt.session-queue-max",                   "mqtt.backlog storage.low-mib"),
        ];
        for (more, taken, needs_restart) in table {
            let file = config(more);
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let expected = Changes { taken: words(taken), needs_restart: words(needs_restart) };
            assert_eq!(runs.changes(&file), expected, "{more}");
            // Once taken they are nothing new; what waits still waits, until it is taken back.
            let next = runs.taking(&file);
            let again = Changes { taken: Vec::new(), needs_restart: words(needs_restart) };
            assert_eq!(next.changes(&file), again, "{more}");
            assert_eq!(next.changes(&runs).needs_restart, Vec::<String>::new(), "{more}");
        }
    }

    #[test]
    fn a_secret_is_compared_and_never_shown() {
        let (runs, mut file) = (config(""), config(""));
        file.cluster.token = Some("a5".to_owned());
        assert_eq!(runs.changes(&file).needs_restart, ["cluster.token"]);
        let shown = serde_json::to_string(&runs.shown()).unwrap();
        assert!(shown.contains("cluster.token") && !shown.contains("5a"), "{shown}");
    }

    #[test]
    fn the_reference_says_what_a_reload_takes() {
        let reference = include_str!("../../../../docs/configuration.md");
        let runs = config("");
        let mut values = serde_json::to_value(&runs).unwrap();
        // Every number and word of these sections becomes another one.
        for section in ["mqtt", "log", "storage", "explain"] {
            for value in values[section].as_object_mut().unwrap().values_mut() {
                *value = match value.as_u64() {
                    Some(number) => Value::from(if number > 1 { number - 1 } else { number + 1 }),
                    None if value == "auto" => Value::from("json"),
                    None => Value::from("debug"),
                };
            }
        }
        let file: Config = serde_json::from_value(values).unwrap();
        let Changes { taken, needs_restart } = runs.changes(&file);
        let marked = |key: &str| {
            let (section, key) = key.split_once('.').unwrap();
            let part = reference.split(&format!("## `[{section}]`")).nth(1).unwrap();
            let part = part.split("\n## ").next().unwrap();
            let row = part.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
            row.unwrap_or_else(|| panic!("no row of {key}")).contains("↻")
        };
        assert!(taken.len() > 10 && needs_restart.len() > 10, "{taken:?} {needs_restart:?}");
        for key in taken {
            assert!(marked(&key), "docs/configuration.md does not mark {key} with ↻");
        }
        for key in needs_restart {
            assert!(!marked(&key), "docs/configuration.md marks {key} with ↻");
        }
    }
}
