//! Asking: checks, a place, the request, and as much of the answer as may be.

use std::{error::Error, fmt, future::Future, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Uri, body::Body, rt::Executor};
use hyper_util::{client::legacy, rt::TokioTimer};
use moorline_core::TenantId;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::{
    address::Networks,
    checked::{Checked, Request, checked, host},
    config::{OutwardConfig, OutwardConfigError},
    connect::{Connector, SHARE, ours},
    metrics::OutwardMetrics,
    places::Places,
    unanswered::Unanswered,
};

/// Connections to one host that are kept while nobody uses them.
const IDLE_PER_HOST_MAX: usize = 16;
/// Headers of an answer.
const HEADERS_MAX: usize = 64;
/// Bytes of an answer that are read before they are understood: also of its head.
const BUFFER_BYTES_MAX: usize = 32 * 1024;

/// What an endpoint answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers that are text: names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

type Client = legacy::Client<Connector, Full<Bytes>>;

struct Inner {
    config: OutwardConfig,
    networks: Networks,
    places: Places,
    /// For connections that are kept.
    keeping: Client,
    /// For connections that are not, when as many are kept as may be.
    passing: Client,
    metrics: OutwardMetrics,
}

/// Asks endpoints outside the cluster. Clones are the same.
#[derive(Clone)]
pub struct Outward(Arc<Inner>);

impl fmt::Debug for Outward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outward").finish_non_exhaustive()
    }
}

/// Where hyper's tasks go, one for each connection: each ends with it.
#[derive(Clone, Default)]
struct Tasks(TaskTracker);

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

impl Outward {
    /// A client as it is configured.
    ///
    /// # Errors
    ///
    /// What [`OutwardConfig::check`] says, and a file that can't be read any more.
    pub fn new(config: OutwardConfig, metrics: OutwardMetrics) -> Result<Self, OutwardConfigError> {
        let within = Duration::from_millis(config.connect_ms);
        let (networks, tls) = (config.networks()?, config.tls()?);
        let connector = Connector::new(networks.clone(), tls, within, metrics.clone());
        let mut builder = legacy::Client::builder(Tasks::default());
        builder
            .http1_max_headers(HEADERS_MAX)
            .http1_max_buf_size(BUFFER_BYTES_MAX)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(config.idle_ms));
        let passing = builder.pool_max_idle_per_host(0).build(connector.clone());
        let keeping = builder.pool_max_idle_per_host(IDLE_PER_HOST_MAX).build(connector);
        let places = Places::new(config.share());
        Ok(Self(Arc::new(Inner { config, networks, places, keeping, passing, metrics })))
    }

    /// Asks an endpoint for a tenant.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub async fn ask(&self, tenant: TenantId, request: &Request) -> Result<Answer, Unanswered> {
        let Inner { config, metrics, .. } = &*self.0;
        let (begun, _under_way) = (Instant::now(), metrics.begin());
        let within = request.within.min(Duration::from_millis(config.request_ms_max));
        let result = self.asked(tenant, request, begun + within).await;
        let took = begun.elapsed();
        let (tenant, ms) = (tenant.0, took.as_millis());
        match &result {
            Ok(answer) => {
                metrics.answered(answer.status, took);
                let (status, host) = (answer.status, host(&request.url));
                debug!(tenant, host, status, ms, "an endpoint answered");
            }
            Err(why) => {
                let (reason, host) = (why.name(), host(&request.url));
                if metrics.unanswered(*why, took) {
                    info!(tenant, host, reason, ms, "an endpoint was not asked, or did not answer");
                } else {
                    debug!(
                        tenant,
                        host, reason, ms, "an endpoint was not asked, or did not answer"
                    );
                }
            }
        }
        result
    }

    /// Whether a request might be sent, as far as that can be said without looking up a name. A name's addresses are judged when it is
    /// asked.
    ///
    /// # Errors
    ///
    /// [`Unanswered`]: it would be refused. It is counted as a request that was.
    pub fn judge(&self, request: &Request) -> Result<(), Unanswered> {
        let Inner { config, networks, metrics, .. } = &*self.0;
        let judged = if config.enabled { checked(request) } else { Err(Unanswered::Disabled) };
        let judged = judged.and_then(|ready| match literal(ready.uri()) {
            Some(address) if !networks.may(address) => Err(Unanswered::Address),
            Some(_) | None => Ok(()),
        });
        if let Err(why) = judged {
            metrics.unanswered(why, Duration::ZERO);
        }
        judged
    }

    async fn asked(
        &self,
        tenant: TenantId,
        request: &Request,
        until: Instant,
    ) -> Result<Answer, Unanswered> {
        let Inner { config, places, .. } = &*self.0;
        if !config.enabled {
            return Err(Unanswered::Disabled);
        }
        let request = checked(request)?;
        let place = timeout_at(until, places.take(tenant)).await;
        let place = place.map_err(|_| Unanswered::Busy)??;
        let exchange = SHARE.scope(Arc::clone(&place.lookups), self.exchange(request));
        let answer = timeout_at(until, exchange).await;
        answer.map_err(|_| Unanswered::Timeout)?
    }

    async fn exchange(&self, request: Checked) -> Result<Answer, Unanswered> {
        let Inner { config, keeping, passing, metrics, .. } = &*self.0;
        let keeps = metrics.open() < config.connections_max;
        let client = if keeps { keeping } else { passing };
        let response = client.request(request).await.map_err(|error| why(&error))?;
        let (head, body) = response.into_parts();
        let most = config.answer_bytes_max;
        // Nothing of what is said to be too large is read.
        if body.size_hint().lower() > u64::try_from(most).unwrap_or(u64::MAX) {
            return Err(Unanswered::TooLarge);
        }
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|error| {
            let is_large = error.is::<LengthLimitError>();
            if is_large { Unanswered::TooLarge } else { Unanswered::Broken }
        })?;
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).ok();
        let headers = head
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value.as_bytes())?)));
        let headers = headers.collect();
        Ok(Answer { status: head.status.as_u16(), headers, body: body.to_bytes() })
    }
}

/// The address that stands in a URL in the place of a name.
fn literal(uri: &Uri) -> Option<IpAddr> {
    uri.host()?.trim_matches(['[', ']']).parse().ok()
}

/// What of ours is among the causes of an error; else the connection broke off.
fn why(error: &legacy::Error) -> Unanswered {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(why) = ours(cause) {
            return why;
        }
        next = cause.source();
    }
    Unanswered::Broken
}
