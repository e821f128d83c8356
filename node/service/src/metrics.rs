//! What the service counts. Labels take few values: a client or topic is never one.

use moorline_core::CallState;
use moorline_explain::Held;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

use crate::accounts::AccountMetrics;

/// What `moorline_attachments` is.
const ATTACHMENTS: &str = "Durable sessions that are sent deliveries by this node";

/// The service's metrics; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ServiceMetrics {
    pub(crate) links: IntGauge,
    pub(crate) live_subscriptions: IntGauge,
    pub(crate) attachments: IntGauge,
    pub(crate) sessions_connected: IntGauge,
    pub(crate) sessions_away: IntGauge,
    pub(crate) subscriptions: IntGauge,
    pub(crate) queued: IntGauge,
    pub(crate) routes_removed_bytes: IntGauge,
    pub(crate) kept: KeptMetrics,
    pub(crate) accounts: AccountMetrics,
    pub(crate) shares: ShareMetrics,
    pub(crate) events: EventMetrics,
    pub(crate) presence: PresenceMetrics,
    pub(crate) registry: RegistryMetrics,
    pub(crate) rights: RightsMetrics,
    pub(crate) explain: ExplainMetrics,
    pub(crate) takeovers: IntCounter,
    pub(crate) pushed: IntCounter,
    pub(crate) questions_confirmed: IntCounter,
    pub(crate) pushes_lost: IntCounter,
    pub(crate) news_lost: IntCounter,
    pub(crate) dropped_passing: IntCounter,
    pub(crate) dropped_disk_full: IntCounter,
    pub(crate) dropped_queue_full: IntCounter,
    pub(crate) dropped_quota: IntCounter,
    pub(crate) quota_refused: IntCounterVec,
    pub(crate) dropped_wills: IntCounter,
    pub(crate) dropped_retained: IntCounter,
    pub(crate) lease_failures: IntCounter,
    pub(crate) bad_frames: IntCounter,
}

impl ServiceMetrics {
    /// Registers them.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        let counter = |name, help| add(registry, IntCounter::new(name, help)?);
        let sessions = sessions(registry)?;
        let dropped = dropped(registry)?;
        Ok(Self {
            links: gauge("moorline_service_links", "Connections the service knows")?,
            live_subscriptions: gauge(
                "moorline_live_subscriptions",
                "Subscriptions of clean sessions connected here",
            )?,
            attachments: gauge("moorline_attachments", ATTACHMENTS)?,
            sessions_connected: sessions.with_label_values(&["connected"]),
            sessions_away: sessions.with_label_values(&["away"]),
            subscriptions: gauge(
                "moorline_subscriptions",
                "Subscriptions of durable sessions of the shards this node leads",
            )?,
            queued: gauge(
                "moorline_messages_queued",
                "Messages in the queues of the shards this node leads",
            )?,
            routes_removed_bytes: gauge(
                "moorline_routes_removed_bytes",
                "About what removed routes take that are remembered for a while",
            )?,
            kept: KeptMetrics::register(registry)?,
            accounts: AccountMetrics::register(registry)?,
            shares: ShareMetrics::register(registry)?,
            events: EventMetrics::register(registry)?,
            presence: PresenceMetrics::register(registry)?,
            registry: RegistryMetrics::register(registry)?,
            rights: RightsMetrics::register(registry)?,
            explain: ExplainMetrics::register(registry)?,
            takeovers: counter(
                "moorline_session_takeovers_total",
                "Sessions taken over from a connection that still held them",
            )?,
            pushed: counter(
                "moorline_service_pushed_total",
                "Deliveries handed to connections of this node by leaders",
            )?,
            questions_confirmed: counter(
                "moorline_service_questions_confirmed_total",
                "Questions this leader answered without asking others whether it leads, since the node that asked said so",
            )?,
            news_lost: counter(
                "moorline_device_news_lost_total",
                "News of devices that could not be sent to a node, whose connections ask later",
            )?,
            pushes_lost: counter(
                "moorline_service_pushes_lost_total",
                "Deliveries that could not be sent to their node, and were sent again",
            )?,
            dropped_passing: dropped.with_label_values(&["passing"]),
            dropped_disk_full: dropped.with_label_values(&["disk-full"]),
            dropped_queue_full: dropped.with_label_values(&["queue-full"]),
            quota_refused: quota_refused(registry)?,
            dropped_quota: dropped.with_label_values(&["deliveries_per_tenant_s"]),
            dropped_wills: dropped.with_label_values(&["wills-due"]),
            dropped_retained: dropped.with_label_values(&["retained-full"]),
            lease_failures: counter(
                "moorline_lease_failures_total",
                "Renewals of this node's meta lease that failed",
            )?,
            bad_frames: bad_frames(registry)?,
        })
    }
}

/// What is remembered of devices, for who asks why something did not arrive.
#[derive(Debug, Clone)]
pub(crate) struct ExplainMetrics {
    devices: IntGauge,
    bytes: IntGauge,
    notes: IntCounter,
    forgotten: [IntCounter; 3],
}

impl ExplainMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let devices = "Devices of which this node remembers what happened lately";
        let bytes = "About the bytes that this takes";
        let notes = "Steps of devices that were noted";
        let forgotten = Opts::new(
            "moorline_explain_forgotten_total",
            "What was forgotten to make room, by what it was",
        );
        let forgotten = add(registry, IntCounterVec::new(forgotten, &["what"])?)?;
        Ok(Self {
            devices: add(registry, IntGauge::new("moorline_explain_devices", devices)?)?,
            bytes: add(registry, IntGauge::new("moorline_explain_bytes", bytes)?)?,
            notes: add(registry, IntCounter::new("moorline_explain_notes_total", notes)?)?,
            forgotten: ["note", "refused-note", "device"]
                .map(|what| forgotten.with_label_values(&[what])),
        })
    }

    /// Shows what is held.
    pub(crate) fn show(&self, held: Held) {
        let Held { devices, bytes, noted, forgotten_notes, refused_notes, forgotten_devices } =
            held;
        self.devices.set(i64::try_from(devices).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let [notes, refused, quiet] = &self.forgotten;
        let counted = [
            (&self.notes, noted),
            (notes, forgotten_notes),
            (refused, refused_notes),
            (quiet, forgotten_devices),
        ];
        for (counter, now) in counted {
            counter.inc_by(now.saturating_sub(counter.get()));
        }
    }
}

/// What topic rights refused.
#[derive(Debug, Clone)]
pub(crate) struct RightsMetrics {
    pub(crate) publishes: IntCounter,
    pub(crate) filters: IntCounter,
    pub(crate) wills: IntCounter,
    pub(crate) wills_due: IntCounter,
    pub(crate) deliveries: IntCounter,
    pub(crate) pruned: IntCounter,
    pub(crate) narrowed: IntCounter,
}

impl RightsMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let name = "moorline_rights_refused_total";
        let help = "What clients may not do with a topic and wanted to, by what it was";
        let refused = add(registry, IntCounterVec::new(Opts::new(name, help), &["what"])?)?;
        Ok(Self {
            publishes: refused.with_label_values(&["publish"]),
            filters: refused.with_label_values(&["subscribe"]),
            wills: refused.with_label_values(&["will"]),
            wills_due: refused.with_label_values(&["will-due"]),
            deliveries: refused.with_label_values(&["delivery"]),
            pruned: refused.with_label_values(&["resumed-subscription"]),
            narrowed: refused.with_label_values(&["live-connection"]),
        })
    }
}

impl ServiceMetrics {
    /// Shows what was counted of the registry, mail and presence.
    pub(crate) fn show_registry(&self, of: impl Fn(&str) -> i64) {
        let PresenceMetrics { connected, active, offline, .. } = &self.presence;
        connected.set(of("connected"));
        active.set(of("active"));
        offline.set((of("devices") - of("connected") - of("active")).max(0));
        let registry = &self.registry;
        registry.tenants.set(of("tenants"));
        registry.devices.set(of("devices"));
        registry.device_bytes.set(of("device bytes"));
        registry.lookups.set(of("lookups"));
        registry.mailboxes.set(of("mailboxes"));
        registry.mails.set(of("mails"));
        registry.mail_bytes.set(of("mail bytes"));
        registry.mails_dead.set(of("dead mails"));
        registry.streams.set(of("streams"));
        registry.values.histories.set(of("histories"));
        registry.values.history_bytes.set(of("history bytes"));
        registry.calls.open.set(of("open calls"));
        registry.calls.kept.set(of("kept calls"));
        registry.calls.bytes.set(of("call bytes"));
        registry.calls.own.set(of("own calls"));
        registry.values.waiting.set(of("value questions"));
        registry.documents.set(of("documents"));
        registry.document_bytes.set(of("document bytes"));
    }
}

/// Sessions by whether they have a connection.
fn sessions(registry: &Registry) -> prometheus::Result<IntGaugeVec> {
    let opts = Opts::new("moorline_sessions", "Sessions of the shards this node leads");
    add(registry, IntGaugeVec::new(opts, &["state"])?)
}

/// What other nodes sent and nobody can read.
fn bad_frames(registry: &Registry) -> prometheus::Result<IntCounter> {
    let help = "Frames of other nodes that did not read";
    add(registry, IntCounter::new("moorline_service_bad_frames_total", help)?)
}

/// What was refused to tenants, by setting.
fn quota_refused(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let help = "What tenants wanted beyond what they may at this node, by setting";
    let opts = Opts::new("moorline_tenant_quota_refused_total", help);
    add(registry, IntCounterVec::new(opts, &["quota"])?)
}

/// Copies that were dropped, by reason.
fn dropped(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let name = "moorline_messages_dropped_total";
    let opts = Opts::new(name, "Copies of messages that were dropped, by reason");
    add(registry, IntCounterVec::new(opts.const_label("layer", "service"), &["reason"])?)
}

/// What is kept for later: wills and retained messages.
#[derive(Debug, Clone)]
pub(crate) struct KeptMetrics {
    pub(crate) wills: IntGauge,
    pub(crate) wills_due: IntGauge,
    pub(crate) wills_published: IntCounter,
    pub(crate) retained: IntGauge,
    pub(crate) retained_bytes: IntGauge,
    pub(crate) retained_reads: IntCounter,
}

impl KeptMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        let counter = |name, help| add(registry, IntCounter::new(name, help)?);
        Ok(Self {
            wills: gauge("moorline_wills", "Wills of the sessions of the shards this node leads")?,
            wills_due: gauge(
                "moorline_wills_due",
                "Wills of the shards this node leads that are due and not published yet",
            )?,
            wills_published: counter(
                "moorline_wills_published_total",
                "Wills that this node published as a leader",
            )?,
            retained: gauge(
                "moorline_retained_messages",
                "Retained messages of the shards this node leads",
            )?,
            retained_bytes: gauge(
                "moorline_retained_bytes",
                "Bytes of the retained messages of the shards this node leads",
            )?,
            retained_reads: counter(
                "moorline_retained_reads_total",
                "Pages of retained messages that this node read as a leader for subscribers",
            )?,
        })
    }
}

/// What is counted of shares led here.
#[derive(Debug, Clone)]
pub(crate) struct ShareMetrics {
    pub(crate) count: IntGauge,
    pub(crate) members: IntGauge,
    pub(crate) lag: IntGauge,
    pub(crate) lag_max: IntGauge,
    pub(crate) redeliveries: IntCounter,
}

impl ShareMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        Ok(Self {
            count: gauge("moorline_shares", "Shares of the shards this node leads")?,
            members: gauge("moorline_share_members", "Sessions that take part in them")?,
            lag: gauge(
                "moorline_share_lag_messages",
                "Messages in their queues that no member has",
            )?,
            lag_max: gauge(
                "moorline_share_lag_max_messages",
                "Messages that no member has in the longest of those queues",
            )?,
            redeliveries: add(
                registry,
                IntCounter::new(
                    "moorline_share_redeliveries_total",
                    "Messages lent again because the member that had them was lost",
                )?,
            )?,
        })
    }
}

/// What is counted of events in shards led here, and of who reads them at this node.
#[derive(Debug, Clone)]
pub(crate) struct EventMetrics {
    pub(crate) appended: IntCounter,
    pub(crate) kept: IntGauge,
    pub(crate) kept_bytes: IntGauge,
    pub(crate) consumers: IntGauge,
    pub(crate) lag_max: IntGauge,
    pub(crate) waiting: IntGauge,
    pub(crate) readers: IntGauge,
    pub(crate) readers_refused: IntCounter,
}

impl EventMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        let counter = |name, help| add(registry, IntCounter::new(name, help)?);
        Ok(Self {
            appended: counter(
                "moorline_events_appended_total",
                "Events appended to the streams of the shards this node leads",
            )?,
            kept: gauge("moorline_events", "Events in the streams of the shards this node leads")?,
            kept_bytes: gauge("moorline_events_bytes", "Bytes of their rows")?,
            consumers: gauge(
                "moorline_event_consumers",
                "Consumer groups in the shards this node leads, one for each shard",
            )?,
            lag_max: gauge(
                "moorline_event_consumer_lag_max",
                "Events that the consumer group furthest behind has not committed, in one shard",
            )?,
            waiting: gauge(
                "moorline_event_questions_waiting",
                "Questions that wait at this leader for something new in a stream",
            )?,
            readers: gauge("moorline_event_readers", "Event streams this node serves")?,
            readers_refused: counter(
                "moorline_event_readers_refused_total",
                "Event streams refused because the node, or the tenant, has as many as it may",
            )?,
        })
    }
}

/// What is counted of attributes and telemetry in shards led here.
#[derive(Debug, Clone)]
pub(crate) struct ValueMetrics {
    pub(crate) points: IntCounter,
    pub(crate) attributes: IntCounter,
    pub(crate) histories: IntGauge,
    pub(crate) history_bytes: IntGauge,
    pub(crate) waiting: IntGauge,
}

impl ValueMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        let counter = |name, help| add(registry, IntCounter::new(name, help)?);
        Ok(Self {
            points: counter(
                "moorline_points_recorded_total",
                "Points of telemetry kept in the histories of the shards this node leads",
            )?,
            attributes: counter(
                "moorline_shared_attributes_changed_total",
                "Shared attributes set or deleted in the shards this node leads",
            )?,
            histories: gauge(
                "moorline_histories",
                "Histories of the shards this node leads, one for each tenant and shard",
            )?,
            history_bytes: gauge("moorline_histories_bytes", "Bytes of the rows of their points")?,
            waiting: gauge(
                "moorline_value_questions_waiting",
                "Questions that wait at this leader for something new of a device's values",
            )?,
        })
    }
}

/// What is counted of calls to devices in shards led here.
#[derive(Debug, Clone)]
pub(crate) struct CallMetrics {
    pub(crate) open: IntGauge,
    pub(crate) kept: IntGauge,
    pub(crate) bytes: IntGauge,
    pub(crate) ended: IntCounterVec,
    pub(crate) own: IntGauge,
    pub(crate) own_refused: IntCounter,
}

impl CallMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        let help = "Calls that ended in the shards this node leads, by how they stand since";
        let opts = Opts::new("moorline_calls_ended_total", help);
        let ended = add(registry, IntCounterVec::new(opts, &["state"])?)?;
        // A one-way call ends when it is delivered.
        for state in CallState::ALL.into_iter().filter(|state| state.is_final(true)) {
            ended.with_label_values(&[state.name()]);
        }
        Ok(Self {
            open: gauge("moorline_calls_open", "Calls that wait, in the shards this node leads")?,
            kept: gauge("moorline_calls_kept", "Calls that have ended and are kept there")?,
            bytes: gauge("moorline_calls_bytes", "Bytes of what they all ask and were answered")?,
            ended,
            own: gauge(
                "moorline_own_calls_waiting",
                "Calls that devices made and that wait at this node for an answer",
            )?,
            own_refused: add(
                registry,
                IntCounter::new(
                    "moorline_own_calls_refused_total",
                    "Calls of devices that did not wait because as many did at this node as may",
                )?,
            )?,
        })
    }
}

/// Who is there.
#[derive(Debug, Clone)]
pub(crate) struct PresenceMetrics {
    pub(crate) connected: IntGauge,
    pub(crate) active: IntGauge,
    pub(crate) offline: IntGauge,
    pub(crate) reports: IntCounter,
    pub(crate) dropped: IntCounter,
}

impl PresenceMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help| add(registry, IntCounter::new(name, help)?);
        let help = "Devices of the shards this node leads; offline are also those that never came";
        let devices = add(
            registry,
            IntGaugeVec::new(Opts::new("moorline_presence_devices", help), &["state"])?,
        )?;
        Ok(Self {
            connected: devices.with_label_values(&["connected"]),
            active: devices.with_label_values(&["active"]),
            offline: devices.with_label_values(&["offline"]),
            reports: counter(
                "moorline_presence_reports_total",
                "Reports of this node about the presence of devices that their shards took",
            )?,
            dropped: counter(
                "moorline_presence_dropped_total",
                "Devices of which nothing was noted, since too many others were noticed lately",
            )?,
        })
    }
}

/// What the registry holds.
#[derive(Debug, Clone)]
pub(crate) struct RegistryMetrics {
    pub(crate) tenants: IntGauge,
    pub(crate) devices: IntGauge,
    pub(crate) device_bytes: IntGauge,
    pub(crate) lookups: IntGauge,
    pub(crate) mailboxes: IntGauge,
    pub(crate) mails: IntGauge,
    pub(crate) mail_bytes: IntGauge,
    pub(crate) mails_dead: IntGauge,
    pub(crate) streams: IntGauge,
    pub(crate) values: ValueMetrics,
    pub(crate) calls: CallMetrics,
    pub(crate) documents: IntGauge,
    pub(crate) document_bytes: IntGauge,
    pub(crate) refused: IntCounterVec,
}

impl RegistryMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        let help = "Requests to the API that were refused to whoever asked, by HTTP status";
        let refused = add(
            registry,
            IntCounterVec::new(Opts::new("moorline_api_unauthorised_total", help), &["status"])?,
        )?;
        for status in ["401", "403", "429"] {
            refused.with_label_values(&[status]);
        }
        Ok(Self {
            refused,
            values: ValueMetrics::register(registry)?,
            calls: CallMetrics::register(registry)?,
            documents: gauge(
                "moorline_documents",
                "Documents of tenants in the shards this node leads, without those of devices",
            )?,
            document_bytes: gauge("moorline_documents_bytes", "Bytes of their ids and of them")?,
            tenants: gauge("moorline_tenants", "Tenants of the cluster, as this node knows them")?,
            devices: gauge("moorline_devices", "Devices of the shards this node leads")?,
            device_bytes: gauge("moorline_devices_bytes", "Bytes of their names and rows")?,
            lookups: gauge(
                "moorline_credential_lookups",
                "Credentials by which a device is found, in the shards this node leads",
            )?,
            mailboxes: gauge(
                "moorline_mailboxes",
                "Mailboxes with mail in them, of the shards this node leads",
            )?,
            mails: gauge("moorline_mails_waiting", "Mails that wait in them")?,
            mail_bytes: gauge("moorline_mails_waiting_bytes", "Bytes of their names and payloads")?,
            mails_dead: gauge("moorline_mails_dead", "Mails that were requeued too often")?,
            streams: gauge(
                "moorline_event_streams",
                "Streams of events in the shards this node leads, one for each tenant and shard",
            )?,
        })
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
