//! `[outward]`: whom a node may ask, and how much of it.

use std::{fmt, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{address::Networks, places::Share};

/// The most that a limit may be: beyond it is a slip of the pen.
const REQUESTS_MAX: usize = 100_000;
/// The same of bytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// The same of times: ten minutes.
const MS_MAX: u64 = 600_000;

/// What is wrong with `[outward]`: key, and what.
#[derive(Debug, Error)]
#[error("{key}: {what}")]
pub struct OutwardConfigError {
    key: &'static str,
    what: String,
}

fn wrong(key: &'static str, what: impl fmt::Display) -> OutwardConfigError {
    OutwardConfigError { key, what: what.to_string() }
}

/// Whom a node may ask outside the cluster, and how much of it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct OutwardConfig {
    /// Whether anybody is asked at all.
    pub enabled: bool,
    /// Networks (`10.1.0.0/16`) that may be asked although they are not routable from everywhere.
    pub allow: Vec<String>,
    /// Networks that may not be asked, whatever else is said.
    pub deny: Vec<String>,
    /// PEM file with authorities that are trusted besides the machine's.
    pub ca: Option<PathBuf>,
    /// Requests at once. Each holds its answer in memory.
    pub requests_max: usize,
    /// The same of one tenant: slow endpoints of one leave room for others.
    pub requests_per_tenant_max: usize,
    /// Requests of one tenant that wait for their turn.
    pub waiting_per_tenant_max: usize,
    /// Connections that may be kept for the next request; beyond it each has its own.
    pub connections_max: usize,
    /// How long one is kept.
    pub idle_ms: u64,
    /// How long the look-up of a name, TCP and TLS may take together.
    pub connect_ms: u64,
    /// How long a request may take in all, whatever its platform says.
    pub request_ms_max: u64,
    /// Bytes of an answer's body.
    pub answer_bytes_max: usize,
}

impl Default for OutwardConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            allow: Vec::new(),
            deny: Vec::new(),
            ca: None,
            requests_max: 256,
            requests_per_tenant_max: 64,
            waiting_per_tenant_max: 1_000,
            connections_max: 256,
            idle_ms: 15_000,
            connect_ms: 3_000,
            request_ms_max: 30_000,
            answer_bytes_max: 256 * 1024,
        }
    }
}

impl OutwardConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), OutwardConfigError> {
        self.networks()?;
        self.authorities()?;
        let limits = [
            ("requests-max", self.requests_max),
            ("requests-per-tenant-max", self.requests_per_tenant_max),
            ("answer-bytes-max", self.answer_bytes_max),
        ];
        if let Some((key, _)) = limits.into_iter().find(|(_, value)| *value == 0) {
            return Err(wrong(key, "must not be 0"));
        }
        let limits = [
            ("requests-max", self.requests_max, REQUESTS_MAX),
            ("requests-per-tenant-max", self.requests_per_tenant_max, REQUESTS_MAX),
            ("waiting-per-tenant-max", self.waiting_per_tenant_max, REQUESTS_MAX),
            ("connections-max", self.connections_max, REQUESTS_MAX),
            ("answer-bytes-max", self.answer_bytes_max, BYTES_MAX),
        ];
        if let Some((key, _, most)) = limits.into_iter().find(|(_, value, most)| value > most) {
            return Err(wrong(key, format!("more than {most}")));
        }
        let times = [
            ("idle-ms", self.idle_ms),
            ("connect-ms", self.connect_ms),
            ("request-ms-max", self.request_ms_max),
        ];
        let is_wrong = |(_, value): &(&'static str, u64)| !(1..=MS_MAX).contains(value);
        match times.into_iter().find(is_wrong) {
            Some((key, _)) => Err(wrong(key, format!("is not in 1 to {MS_MAX}"))),
            None => Ok(()),
        }
    }

    pub(crate) fn share(&self) -> Share {
        Share {
            node: self.requests_max,
            tenant: self.requests_per_tenant_max,
            waiting: self.waiting_per_tenant_max,
        }
    }

    pub(crate) fn networks(&self) -> Result<Networks, OutwardConfigError> {
        let parsed = |key, networks: &[String]| {
            let parse = |text: &String| {
                let network =
                    text.parse::<IpNet>().ok().filter(|network| *network == network.trunc());
                network
                    .ok_or_else(|| wrong(key, format!("{text:?} is no network as 10.1.0.0/16 is")))
            };
            networks.iter().map(parse).collect::<Result<Vec<_>, _>>()
        };
        Ok(Networks::new(parsed("allow", &self.allow)?, parsed("deny", &self.deny)?))
    }

    /// Those of `ca`.
    fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, OutwardConfigError> {
        let Some(file) = &self.ca else { return Ok(Vec::new()) };
        let unreadable = |why: &dyn fmt::Display| wrong("ca", format!("{}: {why}", file.display()));
        let all = CertificateDer::pem_file_iter(file).map_err(|why| unreadable(&why))?;
        let all = all.collect::<Result<Vec<_>, _>>().map_err(|why| unreadable(&why))?;
        for authority in &all {
            let added = RootCertStore::empty().add(authority.clone());
            added.map_err(|why| unreadable(&why))?;
        }
        if all.is_empty() { Err(unreadable(&"there is no certificate in it")) } else { Ok(all) }
    }

    /// TLS to endpoints: whom this machine trusts, and `ca`.
    pub(crate) fn tls(&self) -> Result<ClientConfig, OutwardConfigError> {
        let mut roots = RootCertStore::empty();
        // Some of a machine's may be of a kind nobody knows any more.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(self.authorities()?);
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| wrong("ca", why))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named_by_its_key() {
        type Change = fn(&mut OutwardConfig);
        assert!(OutwardConfig::default().check().is_ok());
        let with = |change: Change| {
            let mut config = OutwardConfig::default();
            change(&mut config);
            config.check().map_err(|error| error.to_string()).err().unwrap_or_default()
        };
        #[rustfmt::skip]
        let table: [(&str, Change); 11] = [
            ("allow: \"10.1.0.0\" is no network", |c| c.allow = vec!["10.1.0.0".into()]),
            ("allow: \"10.1.0.0/33\" is", |c| c.allow = vec!["10.1.0.0/33".into()]),
            ("deny: \"10.1.2.0/16\" is",  |c| c.deny = vec!["10.1.2.0/16".into()]),
            ("ca: /nowhere.pem: ",        |c| c.ca = Some("/nowhere.pem".into())),
            ("requests-max: must not",    |c| c.requests_max = 0),
            ("requests-per-tenant-max: ", |c| c.requests_per_tenant_max = 0),
            ("waiting-per-tenant-max: ",  |c| c.waiting_per_tenant_max = 100_001),
            ("answer-bytes-max: more",    |c| c.answer_bytes_max = usize::MAX),
            ("idle-ms: ",                 |c| c.idle_ms = 0),
            ("connect-ms: ",              |c| c.connect_ms = 600_001),
            ("request-ms-max: ",          |c| c.request_ms_max = 0),
        ];
        for (expected, change) in table {
            let said = with(change);
            assert!(said.starts_with(expected), "{expected}: {said}");
        }
        let good = OutwardConfig {
            allow: vec!["10.1.0.0/16".into(), "fd00::/8".into(), "127.0.0.1/32".into()],
            ..OutwardConfig::default()
        };
        assert!(good.check().is_ok());
    }
}
