//! What the agent is told by its environment: who the device is, and where the cluster.
//!
//! | variable | what | default |
//! |---|---|---|
//! | `FOSTROM_FLEET_ID`, `FOSTROM_DEVICE_ID`, `FOSTROM_DEVICE_SECRET` | who the device is | must be there |
//! | `FOSTROM_RUNTIME_ENV` | `production` or `prod`, or anything else | |
//! | `FOSTROM_LOCAL_MODE` | `true` or `1`: plain TCP to `127.0.0.1:8484` | |
//! | `MOORLINE_NODES` | the cluster's nodes: `host:port,host:port` | `device.fostrom.dev:8484` |
//! | `MOORLINE_CA` | whom to trust: certificates in a PEM file | what the system trusts |
//! | `MOORLINE_PLAINTEXT` | `true` or `1`: no TLS | |
//! | `MOORLINE_AGENT_DIR` | where the socket and the agent's files are | `/tmp/fostrom` |
//!
//! Invariant: what decides how the agent runs is in its [`Config::hash`], so that another configuration is not taken for a
//! running agent's. Checked by this file's tests.

use std::{
    env, fmt,
    path::{PathBuf, absolute},
};

use moorline_dialects::fostrom::identity;
use moorline_moonlight::codec::Credentials;
use sha2::{Digest, Sha256};

use crate::{api::Identity, failed::Failed};

/// What `version` prints, and the SDKs compare: the vendor's agent that this one stands for.
pub(crate) const VERSION: &str = "v0.1.0";
/// Where the vendor's cluster is.
const NODES_DEFAULT: &str = "device.fostrom.dev:8484";
/// Where a server for trying things is.
const NODES_LOCAL: &str = "127.0.0.1:8484";
/// The most nodes. A device needs a few that are up, not all.
const NODES_MAX: usize = 32;

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) identity: Identity,
    pub(crate) credentials: Credentials,
    pub(crate) production: bool,
    pub(crate) reach: Reach,
}

/// Where the cluster is, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) nodes: Vec<NodeAddress>,
    pub(crate) security: Security,
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What is around Moonlight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Security {
    /// Nothing: credentials can be read on the way.
    Plaintext,
    /// TLS; trusted are the certificates of this file or else those that the system trusts.
    Tls {
        /// A PEM file.
        authorities: Option<PathBuf>,
    },
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub(crate) fn from_env() -> Result<Self, Failed> {
        Self::read(|name| env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failed> {
        let text = |name| variable(name).unwrap_or_default();
        let (fleet, device) = (text("FOSTROM_FLEET_ID"), text("FOSTROM_DEVICE_ID"));
        let secret = text("FOSTROM_DEVICE_SECRET");
        let credentials = credentials(&fleet, &device, &secret);
        let reach = Reach::read(&variable);
        match (credentials, reach) {
            (Ok(credentials), Ok(reach)) => Ok(Self {
                identity: Identity { fleet, device },
                credentials,
                production: is_production(&text("FOSTROM_RUNTIME_ENV")),
                reach,
            }),
            (credentials, reach) => {
                let wrong = credentials.err().into_iter().chain(reach.err());
                Err(invalid(&wrong.collect::<Vec<_>>().join("; ")))
            }
        }
    }

    /// Tells this configuration from others: what the vendor's agent hashes, and what ours has beyond that, if it is set.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.credentials.fleet);
        hasher.update(self.credentials.device);
        hasher.update(self.credentials.secret);
        hasher.update(if self.production { "true" } else { "false" });
        hasher.update(VERSION);
        if self.reach != Reach::default() {
            hasher.update(format!("\n{:?}", self.reach));
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Reach {
    /// Reads the environment.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn from_env() -> Result<Self, Failed> {
        Self::read(&|name: &str| env::var(name).ok()).map_err(|wrong| invalid(&wrong))
    }

    fn read(variable: &impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let local = switch("FOSTROM_LOCAL_MODE", set("FOSTROM_LOCAL_MODE"))?;
        let plaintext = switch("MOORLINE_PLAINTEXT", set("MOORLINE_PLAINTEXT"))?;
        let nodes = set("MOORLINE_NODES");
        let default = if local { NODES_LOCAL } else { NODES_DEFAULT };
        let nodes = nodes_of(nodes.as_deref().unwrap_or(default))?;
        // The agent in the background has another working directory, and the same configuration.
        let authorities = set("MOORLINE_CA").map(absolute).transpose();
        let authorities = authorities.map_err(|error| format!("MOORLINE_CA: {error}"))?;
        let security = match (local || plaintext, authorities) {
            (true, Some(_)) => {
                return Err("MOORLINE_CA: without TLS there is nobody to trust".to_owned());
            }
            (true, None) => Security::Plaintext,
            (false, authorities) => Security::Tls { authorities },
        };
        Ok(Self { nodes, security })
    }
}

impl Default for Reach {
    fn default() -> Self {
        Self::read(&|_: &str| None).expect("the defaults are fine")
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

fn invalid(wrong: &str) -> Failed {
    Failed::new("invalid_config", wrong)
}

fn credentials(fleet: &str, device: &str, secret: &str) -> Result<Credentials, String> {
    let (fleet, device, secret) = (fleet.as_bytes(), device.as_bytes(), secret.as_bytes());
    identity::Credentials::new(fleet, device, secret).map_err(|wrong| wrong.to_string())?;
    let sized = "its length was checked";
    Ok(Credentials {
        fleet: fleet.try_into().expect(sized),
        device: device.try_into().expect(sized),
        secret: secret.try_into().expect(sized),
    })
}

fn is_production(runtime: &str) -> bool {
    ["production", "prod"].contains(&runtime.trim().to_ascii_lowercase().as_str())
}

fn switch(name: &str, value: Option<String>) -> Result<bool, String> {
    match value.as_deref() {
        Some("true" | "1") => Ok(true),
        None | Some("false" | "0") => Ok(false),
        Some(_) => Err(format!("{name}: say true or false")),
    }
}

fn nodes_of(list: &str) -> Result<Vec<NodeAddress>, String> {
    let nodes = list.split(',').map(|node| node_of(node.trim()));
    let nodes = nodes.collect::<Option<Vec<_>>>();
    let nodes = nodes.ok_or("MOORLINE_NODES: say host:port,host:port")?;
    if nodes.len() > NODES_MAX {
        return Err(format!("MOORLINE_NODES: more than {NODES_MAX} nodes"));
    }
    Ok(nodes)
}

fn node_of(node: &str) -> Option<NodeAddress> {
    let (host, port) = node.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
    is_host.then(|| NodeAddress { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "FOS-0123456789abcdefghijklmnopqrstuv";
    const DEVICE: [(&str, &str); 3] = [
        ("FOSTROM_FLEET_ID", "FLEET001"),
        ("FOSTROM_DEVICE_ID", "DEVICE0001"),
        ("FOSTROM_DEVICE_SECRET", SECRET),
    ];

    fn read(variables: &[(&str, &str)]) -> Result<Config, String> {
        let all: Vec<_> = variables.iter().chain(&DEVICE).collect();
        let variable = |name: &str| {
            let found = all.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::read(variable).map_err(|failed| failed.to_string())
    }

    fn reach(variables: &[(&str, &str)]) -> Result<String, String> {
        let Reach { nodes, security } = read(variables)?.reach;
        let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
        Ok(format!("{} {security:?}", nodes.join(" ")))
    }

    #[test]
    fn the_cluster_is_found() {
        let system = "Tls { authorities: None }";
        #[rustfmt::skip]
        let table: [(&[(&str, &str)], String); 7] = [
            (&[], format!("device.fostrom.dev:8484 {system}")),
            (&[("MOORLINE_NODES", "")], format!("device.fostrom.dev:8484 {system}")),
            (&[("FOSTROM_LOCAL_MODE", "true")], "127.0.0.1:8484 Plaintext".to_owned()),
            (&[("FOSTROM_LOCAL_MODE", "1"), ("MOORLINE_NODES", "a:1")], "a:1 Plaintext".to_owned()),
            (&[("MOORLINE_NODES", "a:1, b.example:2,[::1]:3")], format!("a:1 b.example:2 [::1]:3 {system}")),
            (&[("MOORLINE_PLAINTEXT", "1"), ("MOORLINE_NODES", "a:1")], "a:1 Plaintext".to_owned()),
            (&[("MOORLINE_CA", "/a/ca.pem")], "device.fostrom.dev:8484 Tls { authorities: Some(\"/a/ca.pem\") }".to_owned()),
        ];
        for (variables, expected) in table {
            assert_eq!(reach(variables), Ok(expected), "{variables:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let nodes = "invalid_config: MOORLINE_NODES: say host:port,host:port";
        let many = ["a:1"; NODES_MAX + 1].join(",");
        #[rustfmt::skip]
        let table: [(&[(&str, &str)], &str); 16] = [
            (&[("FOSTROM_FLEET_ID", "")], "invalid_config: Fleet ID is missing"),
            (&[("FOSTROM_FLEET_ID", "FLEET01")], "invalid_config: Fleet ID is invalid"),
            (&[("FOSTROM_DEVICE_ID", "")], "invalid_config: Device ID is missing"),
            (&[("FOSTROM_DEVICE_SECRET", "")], "invalid_config: Device Secret is missing"),
            (&[("FOSTROM_DEVICE_SECRET", "FOS-1")], "invalid_config: Device Secret is invalid"),
            (&[("FOSTROM_FLEET_ID", ""), ("MOORLINE_NODES", "x")],
                "invalid_config: Fleet ID is missing; MOORLINE_NODES: say host:port,host:port"),
            (&[("MOORLINE_NODES", "a")], nodes),
            (&[("MOORLINE_NODES", "a:0")], nodes),
            (&[("MOORLINE_NODES", "a:65536")], nodes),
            (&[("MOORLINE_NODES", "a:1,")], nodes),
            (&[("MOORLINE_NODES", ":1")], nodes),
            (&[("MOORLINE_NODES", "::1:3")], nodes),
            (&[("MOORLINE_NODES", &many)], "invalid_config: MOORLINE_NODES: more than 32 nodes"),
            (&[("FOSTROM_LOCAL_MODE", "yes")], "invalid_config: FOSTROM_LOCAL_MODE: say true or false"),
            (&[("MOORLINE_PLAINTEXT", "yes")], "invalid_config: MOORLINE_PLAINTEXT: say true or false"),
            (&[("MOORLINE_PLAINTEXT", "1"), ("MOORLINE_CA", "x")], "invalid_config: MOORLINE_CA: without TLS there is nobody to trust"),
        ];
        for (variables, expected) in table {
            assert_eq!(reach(variables), Err(expected.to_owned()));
        }
    }

    #[test]
    fn the_hash_is_the_vendors_unless_something_of_ours_is_set() {
        let hash = |variables: &[(&str, &str)]| read(variables).unwrap().hash();
        let vendors = |production: &str| {
            let digest = Sha256::digest(format!("FLEET001DEVICE0001{SECRET}{production}v0.1.0"));
            digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(hash(&[]), vendors("false"));
        assert_eq!(hash(&[("FOSTROM_RUNTIME_ENV", "staging")]), vendors("false"));
        assert_eq!(hash(&[("FOSTROM_RUNTIME_ENV", "Production ")]), vendors("true"));
        let ours = [
            hash(&[]),
            hash(&[("FOSTROM_DEVICE_ID", "DEVICE0002")]),
            hash(&[("MOORLINE_NODES", "a:1")]),
            hash(&[("MOORLINE_NODES", "a:1,b:2")]),
            hash(&[("MOORLINE_NODES", "a:1"), ("MOORLINE_PLAINTEXT", "1")]),
            hash(&[("MOORLINE_CA", "/ca.pem")]),
            hash(&[("FOSTROM_LOCAL_MODE", "1")]),
        ];
        for (at, hash) in ours.iter().enumerate() {
            assert!(!ours[at + 1..].contains(hash), "{at}");
        }
    }
}
