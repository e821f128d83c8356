//! What a node shows TLS clients: the files of `[tls]`, or those of a development authority, made when they are first needed.
//! And that the files of `[cluster.tls]`, which the wire has read, are read again.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use moorline_edge::{Tls, TlsMetrics};
use moorline_group::wire::Peers;
use prometheus::Registry;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{ca::dev, config::Config};

/// A node's TLS, and how to have its files read again.
#[derive(Debug)]
pub(super) struct Certificates {
    pub(super) tls: Option<Tls>,
    asked: Arc<Notify>,
    /// The same for `[cluster.tls]`.
    cluster_asked: Arc<Notify>,
}

impl Certificates {
    /// What the configuration says; a development certificate where it says nothing and somebody is to speak TLS.
    pub(super) fn prepare(config: &Config) -> anyhow::Result<Self> {
        let [asked, cluster_asked] = [(); 2].map(|()| Arc::new(Notify::new()));
        let listens = config.listen.with_tls();
        if listens.is_empty() {
            return Ok(Self { tls: None, asked, cluster_asked });
        }
        let files = match &config.tls {
            Some(files) => files.clone(),
            None => development(config, &listens)?,
        };
        Ok(Self { tls: Some(files.load().context("tls")?), asked, cluster_asked })
    }

    /// Keeps to the files until `stop`.
    pub(super) fn watch(
        &self,
        registry: &Registry,
        peers: &Peers,
        tasks: &mut JoinSet<anyhow::Result<()>>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let metrics = TlsMetrics::register(registry)?;
        let (peers, asked) = (peers.clone(), Arc::clone(&self.cluster_asked));
        let stopped = stop.clone();
        tasks.spawn(async move {
            peers.keep_tls_fresh(asked, stopped).await;
            Ok(())
        });
        if let Some(tls) = self.tls.clone() {
            let asked = Arc::clone(&self.asked);
            tasks.spawn(async move {
                tls.keep_fresh(metrics, asked, stop).await;
                Ok(())
            });
        }
        Ok(())
    }

    /// Has the files read again, soon.
    pub(super) fn reload(&self) {
        info!(tls = self.tls.is_some(), "asked to read the TLS files again");
        self.asked.notify_one();
        self.cluster_asked.notify_one();
    }
}

fn development(
    config: &Config,
    listens: &[(&'static str, SocketAddr)],
) -> anyhow::Result<moorline_edge::TlsConfig> {
    let hosts = listens.iter().map(|(_, address)| address.ip());
    let hosts = hosts.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    let made = dev::prepare(&config.node.data_dir, hosts.collect())?;
    warn!(
        ca = %made.ca.display(),
        "there is no [tls]: this node shows a certificate of a DEVELOPMENT CA of its own. Clients have to trust its file (--cafile, \
         --cacert, MOORLINE_CA); for real ones set tls.cert and tls.key (`moorline ca issue`)"
    );
    Ok(made.tls)
}
