//! What operators say about tenants and devices beyond what the log itself has to know: JSON in the records' `settings`.
//!
//! The log and the rows hold these bytes as they are. Fields are added with a default and never change their meaning, so that
//! settings written by an older version read as they were meant; unknown ones are kept out at the door (`deny_unknown_fields`),
//! not lost silently.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use moorline_core::{
    TenantId,
    rights::{Lists, Pattern, Rules},
};
use moorline_dialects::{fostrom::schema::Schemas, limits::Limit};
use moorline_machine::{
    events::{Retention, STREAM_BYTES_MAX},
    mail::{MAILBOX_BYTES_MAX, MAILBOX_ITEMS_MAX, MailLimits},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::credential::trust::TrustSettings;

/// Devices of a tenant in each shard, if its settings say nothing.
pub const DEVICES_PER_SHARD: u32 = 1_000_000;
/// Seconds of silence after which a device is offline, if neither it nor its tenant say anything.
pub const OFFLINE_AFTER_S: u32 = 300;
/// Tenants whose settings are held parsed: when there are more, all are parsed again.
const PARSED_MAX: usize = 16_384;
/// API tokens of a tenant.
pub const API_TOKENS_MAX: usize = 32;

/// A tenant's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TenantSettings {
    /// Whether its devices may show their credentials without TLS.
    pub plaintext: bool,
    /// Whether its devices may have passwords that people chose, which cost 22 ms of a core each time they are not known.
    pub chosen_passwords: bool,
    /// Whose certificates its devices may show.
    pub trust_anchors: TrustSettings,
    /// Devices in each shard.
    pub devices_per_shard_max: u32,
    /// Silent for longer than so many seconds, a device is offline, if it says nothing else.
    pub offline_after_s: u32,
    /// What it may say in a second.
    pub quotas: QuotaSettings,
    /// What its devices may send, on platforms that have such limits.
    pub rate_limits: RateLimitSettings,
    /// For devices that may be claimed, on platforms that have them.
    pub claims: ClaimSettings,
    /// For all its mailboxes.
    pub mail: MailSettings,
    /// For its events.
    pub events: EventSettings,
    /// For what its devices measure.
    pub telemetry: TelemetrySettings,
    /// For calls to its devices.
    pub calls: CallSettings,
    /// For commands to its devices, on platforms where they are lost when nobody is there.
    pub commands: CommandSettings,
    /// For sessions of its clients, on platforms that have none that last.
    pub sessions: SessionSettings,
    /// Which topics its clients may use. Without it, a device those below its own name, and any other client all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TopicLists>)]
    pub topics: Option<TopicRules>,
    /// For a tenant that is a fleet of Fostrom.
    pub fostrom: FostromSettings,
}

impl Default for TenantSettings {
    fn default() -> Self {
        Self {
            plaintext: false,
            chosen_passwords: false,
            trust_anchors: TrustSettings::default(),
            devices_per_shard_max: DEVICES_PER_SHARD,
            offline_after_s: OFFLINE_AFTER_S,
            quotas: QuotaSettings::default(),
            rate_limits: RateLimitSettings::default(),
            claims: ClaimSettings::default(),
            mail: MailSettings::default(),
            events: EventSettings::default(),
            telemetry: TelemetrySettings::default(),
            calls: CallSettings::default(),
            commands: CommandSettings::default(),
            sessions: SessionSettings::default(),
            topics: None,
            fostrom: FostromSettings::default(),
        }
    }
}

/// What a tenant may have and say at each node in a second; a second's worth at once. 0: as much as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QuotaSettings {
    /// Publishes by MQTT.
    pub publishes_s: u32,
    /// Bytes of their topics and payloads.
    pub publish_bytes_s: u64,
    /// Events, by whichever protocol, and writes of attributes and telemetry: one with an event counts once.
    pub events_s: u32,
    /// Mails that applications send.
    pub mails_s: u32,
    /// Clients of MQTT that are connected at the node at once.
    pub connections_max: u32,
}

impl Default for QuotaSettings {
    fn default() -> Self {
        let publish_bytes_s = 256 * 1024 * 1024;
        Self {
            publishes_s: 200_000,
            publish_bytes_s,
            events_s: 20_000,
            mails_s: 5_000,
            connections_max: 0,
        }
    }
}

/// What a tenant's devices may send at each node. A limit is `capacity:seconds`, several with commas, all of which have to agree
/// (`100:1,3000:60`); an empty text is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RateLimitSettings {
    /// All of its devices together.
    pub tenant: RateSettings,
    /// Each device, for itself.
    pub device: RateSettings,
    /// Each gateway, for all devices that it speaks for.
    pub gateway: RateSettings,
    /// Each device that a gateway speaks for.
    pub gateway_device: RateSettings,
    /// Requests of a platform's REST API, by all who integrate it together.
    #[schema(value_type = String)]
    pub rest: Limit,
}

/// What one sender may send. A message counts once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RateSettings {
    /// Messages without telemetry.
    #[schema(value_type = String)]
    pub messages: Limit,
    /// Messages with telemetry.
    #[schema(value_type = String)]
    pub telemetry_messages: Limit,
    /// Data points: keys times moments.
    #[schema(value_type = String)]
    pub telemetry_data_points: Limit,
}

/// Which devices may be claimed that say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClaimSettings {
    /// Whether all may; otherwise those whose server attribute `claimingAllowed` is true.
    pub by_default: bool,
}

impl Default for ClaimSettings {
    fn default() -> Self {
        Self { by_default: true }
    }
}

/// How much mail may wait, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MailSettings {
    /// Mails for one device.
    pub items_max: u32,
    /// Bytes of them.
    pub bytes_max: u64,
    /// Seconds a mail may wait unless it says something else; without it for ever.
    pub ttl_s: Option<u64>,
    /// How often a mail may be requeued before it is dead.
    pub requeues_max: u16,
}

impl Default for MailSettings {
    fn default() -> Self {
        Self { items_max: 1_000, bytes_max: 16 * 1024 * 1024, ttl_s: None, requeues_max: 100 }
    }
}

impl MailSettings {
    /// As the log takes them.
    #[must_use]
    pub fn limits(&self) -> MailLimits {
        let items = self.items_max.min(MAILBOX_ITEMS_MAX);
        MailLimits { items, bytes: self.bytes_max.min(MAILBOX_BYTES_MAX) }
    }
}

/// How long events are kept. The next event of a shard brings it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EventSettings {
    /// Seconds that an event is kept, and at most a sixteenth longer.
    pub keep_s: u32,
    /// Bytes of them in each shard. Beyond it the oldest go, a sixteenth at a time.
    pub bytes_max: u64,
    /// Whether devices that come, go, or fall silent are events.
    pub presence: bool,
    /// Whether what becomes of mail is an event: from the next mail in each shard on.
    pub mail: bool,
    /// Whether what devices publish for applications that subscribe is an event, too, on platforms where it is no event by itself.
    pub published: bool,
}

impl Default for EventSettings {
    fn default() -> Self {
        let (keep_s, bytes_max) = (7 * 24 * 3_600, 256 * 1024 * 1024);
        Self { keep_s, bytes_max, presence: true, mail: true, published: false }
    }
}

impl EventSettings {
    /// As the log takes them.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention { keep_s: self.keep_s, bytes_max: self.bytes_max.min(STREAM_BYTES_MAX) }
    }
}

/// How long telemetry is kept beside the latest values, which stay as long as their device. The next telemetry of a shard
/// brings it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TelemetrySettings {
    /// Seconds that a point is kept from when it came, and at most a sixteenth longer; 0: there is no history.
    pub keep_s: u32,
    /// Bytes of points in each shard. Beyond it the oldest go, a sixteenth at a time.
    pub bytes_max: u64,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { keep_s: 7 * 24 * 3_600, bytes_max: 256 * 1024 * 1024 }
    }
}

impl TelemetrySettings {
    /// As the log takes them; without one no history is kept.
    #[must_use]
    pub fn retention(&self) -> Option<Retention> {
        let bytes_max = self.bytes_max.min(STREAM_BYTES_MAX);
        (self.keep_s > 0).then_some(Retention { keep_s: self.keep_s, bytes_max })
    }
}

/// How calls go out to devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CallSettings {
    /// Which calls of a device may be out at once.
    pub order: CallOrder,
}

/// What becomes of commands, on platforms where they are lost when nobody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CommandSettings {
    /// Whether they wait in the mailbox of their device instead, until it takes them.
    pub keep: bool,
}

/// What becomes of clients that ask for a session that lasts, on platforms that have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SessionSettings {
    /// Whether they are refused; otherwise they are let in, and their session ends with the connection.
    pub clean_only: bool,
}

/// Which calls of a device may be out at once. In any case the oldest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CallOrder {
    /// All of them.
    #[default]
    Burst,
    /// One: the next goes out when the device has acknowledged it.
    AfterAcknowledgement,
    /// One: the next goes out when the device has answered it, or its time is over. One that wants no answer: as before.
    AfterAnswer,
}

/// What a fleet of Fostrom has besides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FostromSettings {
    /// Its packet schemas, by name. Without any, every packet is taken.
    #[schema(value_type = Object)]
    pub schemas: Schemas,
}

/// Which topics may be used: topic filters in which `{device}`, `{type}` and `{class}` stand for a level of the client's own.
/// What no list allows is denied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TopicLists {
    /// Topics that may be published to.
    pub publish: Vec<String>,
    /// Topics that may be subscribed to.
    pub subscribe: Vec<String>,
    /// Topics that may not be published to all the same.
    pub deny_publish: Vec<String>,
    /// Topics that are not delivered all the same.
    pub deny_subscribe: Vec<String>,
}

/// [`TopicLists`] that were read: as they are compared with topics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "TopicLists", into = "TopicLists")]
pub struct TopicRules(pub Rules);

impl TryFrom<TopicLists> for TopicRules {
    type Error = String;

    fn try_from(lists: TopicLists) -> Result<Self, String> {
        let read = |texts: &[String]| {
            let one = |text: &String| {
                Pattern::parse(text).map_err(|why| format!("the pattern {text:?}: {why}"))
            };
            texts.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        let rules = Rules::of(Lists {
            publish: read(&lists.publish)?,
            subscribe: read(&lists.subscribe)?,
            deny_publish: read(&lists.deny_publish)?,
            deny_subscribe: read(&lists.deny_subscribe)?,
        });
        rules.map(Self).map_err(|why| why.to_string())
    }
}

impl From<TopicRules> for TopicLists {
    fn from(TopicRules(rules): TopicRules) -> Self {
        let written =
            |list: &[Pattern]| list.iter().map(|pattern| pattern.text().to_string()).collect();
        let lists = rules.lists();
        Self {
            publish: written(&lists.publish),
            subscribe: written(&lists.subscribe),
            deny_publish: written(&lists.deny_publish),
            deny_subscribe: written(&lists.deny_subscribe),
        }
    }
}

/// Parsed settings of tenants, as of a version: events and mail would read them anew each time.
#[derive(Debug, Default)]
pub(crate) struct Parsed(Mutex<HashMap<TenantId, (u64, Arc<TenantSettings>)>>);

impl Parsed {
    /// The settings of a record.
    pub(crate) fn get(
        &self,
        tenant: TenantId,
        version: u64,
        settings: &Bytes,
    ) -> Arc<TenantSettings> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, parsed)) = all.get(&tenant)
            && *known == version
        {
            return Arc::clone(parsed);
        }
        if all.len() >= PARSED_MAX {
            all.clear();
        }
        let parsed = Arc::new(read::<TenantSettings>(settings));
        all.insert(tenant, (version, Arc::clone(&parsed)));
        parsed
    }
}

/// What a device is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// It speaks for itself.
    #[default]
    Device,
    /// It speaks for others too.
    Gateway,
}

impl Class {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Gateway => "gateway",
        }
    }
}

/// A device's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeviceSettings {
    /// What sort of thing it is, in the operator's words.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// See [`Class`].
    pub class: Class,
    /// For finding it, and for mail to many.
    pub labels: BTreeSet<String>,
    /// Silent for longer than so many seconds, it is offline; without it as its tenant says.
    pub offline_after_s: Option<u32>,
    /// In the place of the tenant's.
    pub mail: Option<MailSettings>,
    /// Which topics it may use, in the place of the tenant's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TopicLists>)]
    pub topics: Option<TopicRules>,
    /// Whatever else is to be remembered of it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
}

/// What whoever has a token of the API may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look.
    ReadOnly,
    /// Send mail and take events.
    App,
    /// Devices and credentials.
    Operator,
    /// Everything, tokens too.
    Admin,
}

/// Settings as they were stored; those of a later version, or none, are the defaults.
#[must_use]
pub fn read<S: DeserializeOwned + Default>(settings: &Bytes) -> S {
    serde_json::from_slice(settings).unwrap_or_default()
}

/// As they are stored.
///
/// # Panics
///
/// Never: they are maps with string keys.
#[must_use]
pub fn written(settings: &impl Serialize) -> Bytes {
    serde_json::to_vec(settings).expect("maps with string keys").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_texts_and_wrong_ones_are_refused() {
        let read = |text: &str| serde_json::from_str::<TenantSettings>(text);
        let said = r#"{"rate-limits":{"device":{"messages":"10:1,300:60"}}}"#;
        let settings = read(said).unwrap();
        assert_eq!(settings.rate_limits.device.messages.to_string(), "10:1,300:60");
        assert_eq!(super::read::<TenantSettings>(&written(&settings)), settings);
        let wrong = read(r#"{"rate-limits":{"device":{"messages":"10"}}}"#).unwrap_err();
        assert!(wrong.to_string().contains("not a limit: capacity:seconds"), "{wrong}");
        assert!(read("{}").unwrap().claims.by_default);
    }

    #[test]
    fn what_is_not_said_is_the_default_and_what_is_unknown_is_refused() {
        let read = |text: &str| serde_json::from_str::<DeviceSettings>(text);
        assert_eq!(read("{}").unwrap(), DeviceSettings::default());
        assert_eq!(read(r#"{"class":"gateway"}"#).unwrap().class, Class::Gateway);
        assert!(read(r#"{"clas":"gateway"}"#).is_err());
        let rules = r#"{"topics":{"publish":["{device}/#"],"deny-subscribe":["x"]}}"#;
        let topics = read(rules).unwrap();
        let written = String::from_utf8(written(&topics).to_vec()).unwrap();
        assert!(written.contains(r#""publish":["{device}/#"]"#), "{written}");
        let wrong = read(r#"{"topics":{"publish":["a{device}"]}}"#).unwrap_err().to_string();
        assert!(wrong.contains(r#"the pattern "a{device}": a placeholder"#), "{wrong}");
        let settings = DeviceSettings { kind: Some("pump".into()), ..topics };
        assert_eq!(super::read::<DeviceSettings>(&super::written(&settings)), settings);
    }
}
