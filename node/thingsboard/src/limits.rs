//! Limits on what devices send, and integrators ask: the tenant's settings, counted with at this node.
//!
//! ```text
//!   a device's message ──► its own limits ───────────────────────────────► the tenant's ──► it is taken
//!   of a gateway's device ► its own limits ──► those of its gateway ─────┘
//! ```
//!
//! # Invariants
//!
//! - **What is left outlives connections**: who comes again has not more than before. It is each node's own.
//! - **Bounded**: [`SENDERS_MAX`] senders are remembered.
//! - **Who is refused is counted each time, and told of once in a window**: in the log, and as an event to applications.
//!
//! Checked by the cluster tests (`thingsboard_limits.rs`).

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_dialects::thingsboard::{
    json::Json,
    limits::RateLimits,
    meters::{Cost, Exceeded, Meters, What},
};
use moorline_service::registry::settings::{RateLimitSettings, RateSettings};
use prometheus::IntCounterVec;
use tracing::warn;

use crate::{device::Device, door::Door};

/// Senders that are remembered at once: about half a kilobyte each.
const SENDERS_MAX: usize = 65_536;

/// Whose limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Tenant,
    Device,
    Gateway,
    GatewayDevice,
    /// Those who integrate the tenant.
    Rest,
}

impl Who {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Tenant, Self::Device, Self::Gateway, Self::GatewayDevice, Self::Rest];

    /// Its name, for people and metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Device => "device",
            Self::Gateway => "gateway",
            Self::GatewayDevice => "gateway_device",
            Self::Rest => "rest",
        }
    }

    fn limits(self, settings: &RateLimitSettings) -> RateLimits {
        match self {
            Self::Tenant => read(&settings.tenant),
            Self::Device => read(&settings.device),
            Self::Gateway => read(&settings.gateway),
            Self::GatewayDevice => read(&settings.gateway_device),
            Self::Rest => RateLimits { messages: settings.rest.clone(), ..RateLimits::default() },
        }
    }
}

/// A message was refused.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// By whose limits.
    pub(crate) who: Who,
    pub(crate) why: Exceeded,
}

impl Refusal {
    /// For whoever sends too much.
    pub(crate) fn text(&self) -> String {
        let Exceeded { what, rate, .. } = self.why;
        format!("{} rate limit reached: {rate} {}", self.who.label().to_uppercase(), what.label())
    }
}

/// What is counted with.
#[derive(Debug)]
pub(crate) struct Limiter {
    began: Instant,
    left: Mutex<Meters<(TenantId, Who, Text)>>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { began: Instant::now(), left: Mutex::new(Meters::new(SENDERS_MAX)) }
    }
}

impl Limiter {
    fn take(
        &self,
        (tenant, who, name): (TenantId, Who, &Text),
        limits: &RateLimits,
        cost: Cost,
    ) -> Result<(), Refusal> {
        if !limits.is_any() {
            return Ok(());
        }
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = left.take((tenant, who, name.clone()), limits, cost, now_ms);
        taken.map_err(|why| Refusal { who, why })
    }
}

/// Limits as the pure code has them.
pub(crate) fn read(settings: &RateSettings) -> RateLimits {
    let RateSettings { messages, telemetry_messages, telemetry_data_points } = settings.clone();
    RateLimits { messages, telemetry_messages, telemetry_data_points }
}

/// A counter for each reason there may be.
pub(crate) fn count_all(limited: &IntCounterVec) {
    for who in Who::ALL {
        for what in What::ALL {
            limited.with_label_values(&[who.label(), what.label()]);
        }
    }
}

impl Door {
    /// Whether somebody may ask the REST API for something of a tenant's.
    pub(crate) fn admits_request(&self, tenant: TenantId) -> bool {
        let (who, settings) = (Who::Rest, self.registry.settings(tenant));
        let limits = who.limits(&settings.rate_limits);
        let taken = self.limiter.take((tenant, who, &Text::default()), &limits, Cost::Message);
        let Err(Refusal { why: Exceeded { what, rate, first }, .. }) = taken else { return true };
        self.metrics.limited.with_label_values(&[who.label(), what.label()]).inc();
        if first {
            let tenant = tenant.0;
            warn!(tenant, limit = who.label(), %rate, "the REST API is asked more than it may be");
        }
        false
    }
}

impl Device {
    /// Whether it may send this for itself.
    pub(crate) fn admitted(&self, cost: Cost) -> Result<(), Refusal> {
        let device = self.guest.device.clone();
        self.all_admit(&[(Who::Device, &device)], cost, &device)
    }

    /// Whether it may send this for a device that it speaks for.
    pub(crate) fn child_admitted(&self, child: &str, cost: Cost) -> Result<(), Refusal> {
        let child = Text::from(child);
        let of = [(Who::GatewayDevice, &child), (Who::Gateway, &self.guest.device)];
        self.all_admit(&of, cost, &child)
    }

    /// The narrowest first: who may not itself takes nothing from others.
    fn all_admit(&self, of: &[(Who, &Text)], cost: Cost, about: &Text) -> Result<(), Refusal> {
        let tenant = self.guest.tenant;
        let settings = self.door.registry.settings(tenant);
        if settings.rate_limits == RateLimitSettings::default() {
            return Ok(());
        }
        let everybody = Text::default();
        let tenants = [(Who::Tenant, &everybody)];
        for (who, name) in of.iter().chain(&tenants) {
            let limits = who.limits(&settings.rate_limits);
            let taken = self.door.limiter.take((tenant, *who, *name), &limits, cost);
            if let Err(refusal) = taken {
                self.refused(&refusal, about);
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Has those who run this know of a refusal.
    fn refused(&self, refusal: &Refusal, about: &Text) {
        let Exceeded { what, rate, first } = refusal.why;
        let (who, what) = (refusal.who.label(), what.label());
        self.door.metrics.limited.with_label_values(&[who, what]).inc();
        if !first {
            return;
        }
        let tenant = self.guest.tenant.0;
        warn!(tenant, device = %about, limit = who, what, %rate, "a device sends more than it may");
        let body = Json::object([
            ("device", Json::from(about.as_str())),
            ("limit", Json::from(who)),
            ("what", Json::from(what)),
            ("rate", Json::from(rate.to_string().as_str())),
        ]);
        self.tell_of_limits(Bytes::from(body.to_string()));
    }
}
