//! Why something was refused, dropped or ended: each with what it means and what to do.
//!
//! Invariant: [`Cause::all`] has each cause once, in the order of the enum. Checked by `tests/causes.rs`.

use serde::{Deserialize, Serialize};

/// A cause. Its words are in [`Cause::what`] and [`Cause::fix`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The user name, token or password is not that of the device.
    WrongCredentials,
    /// The device, or its tenant, is disabled.
    Disabled,
    /// The device has no credential: all were revoked, or none was made.
    NoCredential,
    /// What it shows of itself has a shape that its platform does not have.
    CredentialsUnreadable,
    /// It is known, and not allowed here.
    NotAuthorised,
    /// It failed too often and is kept out for a while.
    Banned,
    /// The credential is right, and not valid yet or any more.
    CredentialExpired,
    /// Its tenant takes credentials over TLS only.
    PlaintextForbidden,
    /// Too many credentials are being checked at this node.
    CheckersBusy,
    /// The shard that knows the credential did not answer.
    AuthUnavailable,
    /// Its platform does not have such client ids.
    ClientIdRefused,
    /// Its platform speaks another version of MQTT.
    VersionRefused,
    /// Its platform does not answer such a client at all.
    Unanswered,
    /// It, or its tenant, connects more often than it may.
    TooManyConnects,
    /// Its tenant has as many connections at this node as it may.
    TooManyConnections,
    /// The queues in front of its session's shard are full.
    SessionBusy,
    /// The session's shard did not answer in time.
    SessionUnavailable,
    /// Its shard has as many sessions as it may.
    SessionsFull,
    /// The disks of too many nodes are nearly full.
    DiskFull,
    /// It may not publish to this topic.
    PublishForbidden,
    /// The tenant says more than it may in a second, or the shard's queues are full.
    PublishBusy,
    /// A shard did not answer: the message may have been taken or not.
    PublishUnavailable,
    /// Every queue that wanted it is full.
    QueueFull,
    /// Its tenant has as many retained messages as it may in this shard.
    RetainedFull,
    /// It is larger than may be.
    TooLarge,
    /// Its platform has no such topic.
    UnknownTopic,
    /// Its platform can't read the payload there.
    UnreadablePayload,
    /// The packet does not match its schema: it was answered as if it were taken, and dropped.
    SchemaMismatch,
    /// Its tenant has no packet schema of that name and kind.
    UnknownSchema,
    /// It does that more often than its platform allows.
    TooOften,
    /// Its platform refuses that for a reason of its own.
    PlatformRefused,
    /// Nobody subscribes to it: it was taken and is kept nowhere.
    NobodyListens,
    /// A message of QoS 0 could not be handed on: whoever takes it is busy or not reachable.
    NotHandedOn,
    /// It may not subscribe to this filter.
    SubscribeForbidden,
    /// It has as many subscriptions as it may.
    SubscriptionsFull,
    /// Its session's shard, or the nodes that have to know the route, did not answer in time.
    SubscribeUnavailable,
    /// Its platform has no such filter.
    FilterRefused,
    /// It may not read this topic, although a filter of it matches.
    ReadForbidden,
    /// Its own queue is full: messages for it are dropped until it takes some.
    SubscriberFull,
    /// It takes messages more slowly than they come: those that are kept nowhere were dropped.
    SlowClient,
    /// The message is larger than the client says that it takes.
    TooLargeForClient,
    /// Its time was over before it could be sent.
    MessageExpired,
    /// The clean sessions of its tenant were sent as many messages in that second as they may be.
    DeliveryQuota,
    /// The connection ended before the client acknowledged it.
    Unacknowledged,
    /// The mail has no form that this platform's devices read.
    MailUnreadable,
    /// Its session could not be opened in time.
    OpenTimeout,
    /// Nothing was heard of it for one and a half keep-alives.
    Silent,
    /// It did not take what it was sent.
    TakesNothing,
    /// It sent bytes that are no packet.
    Malformed,
    /// It sent a packet that is forbidden, at that point or at all.
    ProtocolError,
    /// One packet had too many of something.
    TooManyInPacket,
    /// It had more publishes under way than the Receive Maximum.
    TooManyUnanswered,
    /// It used a topic alias that there is not.
    TopicAlias,
    /// The topic has more bytes or levels than are taken.
    TopicNotAccepted,
    /// It used what the CONNACK says there is not.
    NotSupported,
    /// Its connection ended before this was answered: it may have been done or not.
    ConnectionEnded,
    /// Another connection of the same device or client id has the session now.
    TakenOver,
    /// The node stops.
    NodeStops,
    /// The session's promise can't be kept at this node.
    PromiseLost,
    /// This node was sent more than it gave credit for.
    Overrun,
    /// Its device, credential or tenant was deleted, disabled or changed.
    Revoked,
    /// It did something that its platform does not have.
    Misused,
    /// There is no such device any more, or a later one has its name.
    DeviceGone,
    /// Its mailbox, or its shard, has as much mail as it may.
    MailboxFull,
    /// Another mail is at the front of its mailbox, or none.
    MailNotNext,
    /// The device has as many keys, values or histories as it may.
    ValuesFull,
    /// The tenant's stream, or its shard, has no room for more.
    StreamFull,
    /// The shard refuses it.
    RegistryRefused,
    /// The connection broke, or the client closed it without a DISCONNECT.
    PeerGone,
}

/// One row of the table.
struct Words {
    cause: Cause,
    label: &'static str,
    what: &'static str,
    fix: &'static str,
}

const fn words(cause: Cause, label: &'static str, what: &'static str, fix: &'static str) -> Words {
    Words { cause, label, what, fix }
}

const TABLE: [Words; Cause::COUNT] = [
    words(
        Cause::WrongCredentials,
        "wrong_credentials",
        "the user name, token or password is not that of this device",
        "compare what it shows with `moorline cred list`; make a new credential with `moorline cred create`",
    ),
    words(
        Cause::Disabled,
        "disabled",
        "the device, or its tenant, is disabled",
        "enable it with `moorline device enable` or `moorline tenant enable`; `moorline audit` says who disabled it",
    ),
    words(
        Cause::NoCredential,
        "no_credential",
        "the device has no credential: all were revoked, or none was made",
        "make one with `moorline cred create`; `moorline audit` says who revoked what",
    ),
    words(
        Cause::CredentialsUnreadable,
        "credentials_unreadable",
        "what it shows of itself has a shape that its platform does not have",
        "compare user name, client id or header with the platform's page in docs/platforms",
    ),
    words(
        Cause::NotAuthorised,
        "not_authorised",
        "it is known, and not allowed here",
        "see what it may do with `moorline device show`, and its tenant's settings with `moorline tenant show`",
    ),
    words(
        Cause::Banned,
        "banned",
        "it failed too often, and is kept out for some minutes without being looked at",
        "stop whatever shows wrong credentials; the ban ends by itself after five minutes (for Fostrom's devices after fifteen)",
    ),
    words(
        Cause::CredentialExpired,
        "credential_expired",
        "the credential is right, and not valid yet or any more",
        "make a new one with `moorline cred create`, and compare the clocks of this cluster and of whoever made it",
    ),
    words(
        Cause::PlaintextForbidden,
        "plaintext_forbidden",
        "its tenant takes credentials over TLS only",
        "connect with TLS, or set `plaintext` in the tenant's settings",
    ),
    words(
        Cause::CheckersBusy,
        "checkers_busy",
        "too many credentials are being checked at this node",
        "nothing: the device should come again in a moment. If it stays so, more nodes help, or secrets made by `moorline cred create` in the place of passwords that people chose, which cost more to check",
    ),
    words(
        Cause::AuthUnavailable,
        "auth_unavailable",
        "the shard that knows the credential did not answer",
        "look at `moorline cluster status`: a shard without leader or majority is named there",
    ),
    words(
        Cause::ClientIdRefused,
        "client_id_refused",
        "its platform does not have such client ids",
        "compare it with the platform's page in docs/platforms",
    ),
    words(
        Cause::VersionRefused,
        "version_refused",
        "its platform speaks another version of MQTT",
        "set the client to the version on the platform's page in docs/platforms",
    ),
    words(
        Cause::Unanswered,
        "unanswered",
        "its platform does not answer such a client at all, so the client only sees that the connection ends",
        "compare client id and user name with the platform's page in docs/platforms",
    ),
    words(
        Cause::TooManyConnects,
        "too_many_connects",
        "it, or its tenant, connects more often than it may",
        "look for two clients with one client id that throw each other out; let the client wait longer between tries, or raise `connects-per-client-s` or `connects-per-tenant-s`",
    ),
    words(
        Cause::TooManyConnections,
        "too_many_connections",
        "its tenant has as many connections at this node as it may",
        "close connections that are not needed, or raise `connections-max` of the tenant's quotas",
    ),
    words(
        Cause::SessionBusy,
        "session_busy",
        "the queues in front of its session's shard are full",
        "nothing: the client should come again in a moment. If it stays so, docs/runbook.md says what loads a shard",
    ),
    words(
        Cause::SessionUnavailable,
        "session_unavailable",
        "its session's shard did not answer in time",
        "look at `moorline cluster status`: a shard without leader or majority is named there",
    ),
    words(
        Cause::SessionsFull,
        "sessions_full",
        "its shard has as many sessions as it may",
        "let sessions that nobody resumes expire sooner, or raise `sessions-per-shard-max`",
    ),
    words(
        Cause::DiskFull,
        "disk_full",
        "the disks of too many nodes are nearly full",
        "make room on the disks: before that nothing is taken that has to be kept",
    ),
    words(
        Cause::PublishForbidden,
        "publish_forbidden",
        "it may not publish to this topic",
        "correct the topic, or allow it in the settings of the device or its tenant (`topics`)",
    ),
    words(
        Cause::PublishBusy,
        "publish_busy",
        "its tenant says more in a second than it may, or the shard's queues are full",
        "let it publish more slowly, or raise the tenant's quota; `moorline_tenant_quota_refused_total` tells which of the two it is",
    ),
    words(
        Cause::PublishUnavailable,
        "publish_unavailable",
        "a shard did not answer in time: it may have been taken or not",
        "send it again; look at `moorline cluster status` for the shard",
    ),
    words(
        Cause::QueueFull,
        "queue_full",
        "the queue of every subscriber that wanted it is full",
        "let the subscribers connect and take what waits, or raise `session-queue-max`",
    ),
    words(
        Cause::RetainedFull,
        "retained_full",
        "its tenant has as many retained messages as it may in this shard",
        "clear some by publishing an empty payload with the retain flag, or raise the tenant's quota",
    ),
    words(
        Cause::TooLarge,
        "too_large",
        "it is larger than it may be",
        "send less at once, or raise the limit that docs/configuration.md names",
    ),
    words(
        Cause::UnknownTopic,
        "unknown_topic",
        "its platform has no such topic or address",
        "compare it with the platform's page in docs/platforms",
    ),
    words(
        Cause::UnreadablePayload,
        "unreadable_payload",
        "its platform can't read that payload there",
        "compare the payload with the platform's page in docs/platforms; the log at level `debug` may say more",
    ),
    words(
        Cause::SchemaMismatch,
        "schema_mismatch",
        "the packet does not match its schema: it was answered as if it were taken, and dropped",
        "correct what the device sends, or the schema in its tenant's settings",
    ),
    words(
        Cause::UnknownSchema,
        "unknown_schema",
        "its tenant has no packet schema of that name and kind",
        "make the schema, or correct the name that the device sends",
    ),
    words(
        Cause::TooOften,
        "too_often",
        "it does that more often than its platform allows",
        "let it send more slowly, or several values in one message; the limits are on the platform's page in docs/platforms",
    ),
    words(
        Cause::PlatformRefused,
        "platform_refused",
        "its platform refuses that for a reason of its own",
        "see the platform's page in docs/platforms; the reason is in the answer that the device got",
    ),
    words(
        Cause::NobodyListens,
        "nobody_listens",
        "nobody subscribes to it: it was taken, and is kept nowhere",
        "subscribe first, or publish with the retain flag. Is the topic written in the same way on both sides?",
    ),
    words(
        Cause::NotHandedOn,
        "not_handed_on",
        "a message of QoS 0 could not be handed on: whoever takes it is busy or not reachable",
        "publish with QoS 1 what must arrive; look at `moorline cluster status`",
    ),
    words(
        Cause::SubscribeForbidden,
        "subscribe_forbidden",
        "it may not subscribe to this filter",
        "correct the filter, or allow it in the settings of the device or its tenant (`topics`)",
    ),
    words(
        Cause::SubscriptionsFull,
        "subscriptions_full",
        "it has as many subscriptions as it may",
        "unsubscribe from some, use a wildcard, or raise `subscriptions-max`",
    ),
    words(
        Cause::SubscribeUnavailable,
        "subscribe_unavailable",
        "its session's shard, or the nodes that have to know the route, did not answer in time",
        "the client should subscribe again; look at `moorline cluster status`",
    ),
    words(
        Cause::FilterRefused,
        "filter_refused",
        "its platform has no such filter",
        "compare the filter with the platform's page in docs/platforms",
    ),
    words(
        Cause::ReadForbidden,
        "read_forbidden",
        "it may not read this topic, although a filter of it matches",
        "allow the topic in the settings of the device or its tenant (`topics`), or subscribe to less",
    ),
    words(
        Cause::SubscriberFull,
        "subscriber_full",
        "its own queue is full: messages for it are dropped until it takes some",
        "let it connect and acknowledge what waits, or raise `session-queue-max`; it gets what comes after that",
    ),
    words(
        Cause::SlowClient,
        "slow_client",
        "it takes messages more slowly than they come: those that are kept nowhere were dropped",
        "subscribe to less, or with QoS 1 in a session that lasts; `live-queue-max` says how many may wait",
    ),
    words(
        Cause::TooLargeForClient,
        "too_large_for_client",
        "the message is larger than the client says that it takes",
        "raise the client's Maximum Packet Size, or publish less at once",
    ),
    words(
        Cause::MessageExpired,
        "message_expired",
        "its time was over before it could be sent",
        "publish with a longer Message Expiry Interval, or see why the subscriber was away",
    ),
    words(
        Cause::DeliveryQuota,
        "delivery_quota",
        "the clean sessions of its tenant were sent as many messages in that second as they may be",
        "raise `deliveries-per-tenant-s`, or subscribe with sessions that last, which it does not count",
    ),
    words(
        Cause::Unacknowledged,
        "unacknowledged",
        "the connection ended before the client acknowledged it",
        "nothing, if its session lasts: it is sent again when the client comes back. A clean session has lost it",
    ),
    words(
        Cause::MailUnreadable,
        "mail_unreadable",
        "the mail has no form that devices of this platform read",
        "send it in a form that the platform's page in docs/platforms lists",
    ),
    words(
        Cause::OpenTimeout,
        "open_timeout",
        "its session could not be opened in time",
        "look at `moorline cluster status`: its shard is slow, or has no leader",
    ),
    words(
        Cause::Silent,
        "silent",
        "nothing was heard of it for one and a half keep-alives",
        "look at its power and its network; a keep-alive shorter than what the network forgets connections after keeps the way open",
    ),
    words(
        Cause::TakesNothing,
        "takes_nothing",
        "it did not take what it was sent for `write-stall-ms`",
        "look at its network, or at what it does in the time in which it should read",
    ),
    words(
        Cause::Malformed,
        "malformed",
        "it sent bytes that are no packet of MQTT",
        "look for a broken client library, or for something in between that changes bytes",
    ),
    words(
        Cause::ProtocolError,
        "protocol_error",
        "it sent a packet that is forbidden, at that point or at all",
        "look for a broken client library: with MQTT 5 the reason string of the DISCONNECT says what it sent",
    ),
    words(
        Cause::TooManyInPacket,
        "too_many_in_packet",
        "one packet had too many filters, or too many or too long properties",
        "send several smaller packets; `filters-max`, `user-properties-max` and `property-bytes-max` say how much may be in one",
    ),
    words(
        Cause::TooManyUnanswered,
        "too_many_unanswered",
        "it had more publishes under way than `receive-max` allows",
        "let the client wait for its answers, and read Receive Maximum of the CONNACK",
    ),
    words(
        Cause::TopicAlias,
        "topic_alias",
        "it used a topic alias that there is not",
        "let the client keep to Topic Alias Maximum of the CONNACK",
    ),
    words(
        Cause::TopicNotAccepted,
        "topic_not_accepted",
        "the topic has more bytes or levels than `topic-bytes-max` and `topic-levels-max` allow",
        "use a shorter topic, or raise them",
    ),
    words(
        Cause::NotSupported,
        "not_supported",
        "it used what the CONNACK says that there is not",
        "let the client read the CONNACK's properties",
    ),
    words(
        Cause::ConnectionEnded,
        "connection_ended",
        "its connection ended before this was answered: it may have been done or not",
        "nothing for QoS 1 and 2: the client sends it again when it comes back",
    ),
    words(
        Cause::TakenOver,
        "taken_over",
        "another connection of the same device or client id has the session now",
        "give each client an id of its own. Two that take over from each other for ever have one id",
    ),
    words(
        Cause::NodeStops,
        "node_stops",
        "this node stops, or moves its clients off",
        "nothing: the client should connect to another node",
    ),
    words(
        Cause::PromiseLost,
        "promise_lost",
        "this node lost touch with the cluster, or the client was too slow, so that it can't keep what the session promises",
        "nothing: the client should connect again. If it happens often, look at `moorline cluster status`",
    ),
    words(
        Cause::Overrun,
        "overrun",
        "this node sent the connection more than it gave credit for",
        "report it: this is a fault of Moorline",
    ),
    words(
        Cause::Revoked,
        "revoked",
        "its device, credential or tenant was deleted, disabled or changed",
        "`moorline audit` says who changed what",
    ),
    words(
        Cause::Misused,
        "misused",
        "it did something that its platform does not have",
        "compare what it does with the platform's page in docs/platforms",
    ),
    words(
        Cause::DeviceGone,
        "device_gone",
        "there is no such device any more, or a later one has its name",
        "see `moorline device show`; who sends should look the device up again",
    ),
    words(
        Cause::MailboxFull,
        "mailbox_full",
        "its mailbox, or its shard, has as much mail as it may",
        "let the device take what waits, give mail a shorter life, or raise the mailbox's limits in the settings",
    ),
    words(
        Cause::MailNotNext,
        "mail_not_next",
        "another mail is at the front of its mailbox, or none",
        "the device settles mail in its order. Somebody else may have settled or cancelled it: `moorline mail show`",
    ),
    words(
        Cause::ValuesFull,
        "values_full",
        "the device has as many keys, values or histories as it may",
        "delete keys that nobody needs, or send fewer: a key must not have a number or a time in it",
    ),
    words(
        Cause::StreamFull,
        "stream_full",
        "its shard has as many streams as it may",
        "delete tenants that nobody needs: each has a stream in each shard",
    ),
    words(
        Cause::RegistryRefused,
        "registry_refused",
        "the shard refuses it",
        "the answer that the device or the application got says more",
    ),
    words(
        Cause::PeerGone,
        "peer_gone",
        "the connection broke, or the client closed it without a DISCONNECT",
        "look at the client's log, its power and its network",
    ),
];

impl Cause {
    /// How many there are.
    pub const COUNT: usize = Self::PeerGone as usize + 1;

    fn words(self) -> &'static Words {
        &TABLE[self as usize]
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|words| words.cause)
    }

    /// A name for machines.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.words().label
    }

    /// What it means.
    #[must_use]
    pub fn what(self) -> &'static str {
        self.words().what
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(self) -> &'static str {
        self.words().fix
    }
}
