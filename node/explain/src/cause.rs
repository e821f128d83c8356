//! Why something was refused, dropped or ended: each with what it means and what to do.
//!
//! Invariant: [`Cause::all`] has each cause once, in the order of the enum. Checked by `tests/it.rs`.

use serde::{Deserialize, Serialize};

/// A cause. Its words are in [`Cause::what`] and [`Cause::fix`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The user name, token or password is not that of an enabled device.
    WrongCredentials,
    /// It is known, and not allowed here.
    NotAuthorised,
    /// It, or its address, failed too often and is kept out for a while.
    Banned,
    /// The credential is right, and not valid yet or any more.
    CredentialExpired,
    /// Its tenant takes credentials with TLS only.
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
    /// The queues in front of the session's shard are full.
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
    /// It is larger than may be.
    TooLarge,
    /// Its platform has no such topic.
    UnknownTopic,
    /// Its platform can't read the payload there.
    UnreadablePayload,
    /// Its platform refuses that for a reason of its own.
    PlatformRefused,
    /// Nobody subscribes to it: it was taken and is kept nowhere.
    NobodyListens,
    /// It may not subscribe to this filter.
    SubscribeForbidden,
    /// It has as many subscriptions as it may.
    SubscriptionsFull,
    /// The session's shard or the routes did not answer in time.
    SubscribeUnavailable,
    /// Its platform has no such filter.
    FilterRefused,
    /// It may not read this topic, although it subscribes to it.
    ReadForbidden,
    /// The mail has no form that this platform's devices read.
    MailUnreadable,
    /// It opened a connection and sent no CONNECT in time.
    ConnectTimeout,
    /// Its session could not be opened in time.
    OpenTimeout,
    /// Nothing was heard of it for one and a half keep-alives.
    Silent,
    /// It did not take what it was sent.
    TakesNothing,
    /// What it said first is no CONNECT.
    NotMqtt,
    /// It sent bytes that are no packet.
    Malformed,
    /// It sent a packet that is forbidden there.
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
    /// Its mailbox, or its shard's mailboxes, hold as much as they may.
    MailboxFull,
    /// Another mail is at the front of its mailbox, or none.
    MailNotNext,
    /// The device has as many keys, values or histories as it may.
    ValuesFull,
    /// The tenant's stream, or its shard, has no room for more.
    StreamFull,
    /// The shard refuses it.
    RegistryRefused,
    /// The connection broke, or the client closed it without a goodbye.
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
        "the user name, token or password is not that of an enabled device",
        "compare the credentials with `moorline cred list`; make new ones with `moorline cred create`",
    ),
    words(
        Cause::NotAuthorised,
        "not_authorised",
        "it is known, and not allowed here",
        "see what it may do: `moorline device get`, and its tenant's rights",
    ),
    words(
        Cause::Banned,
        "banned",
        "it, or its address, failed too often and is kept out for a while",
        "stop whatever shows wrong credentials; the ban ends by itself after five minutes",
    ),
    words(
        Cause::CredentialExpired,
        "credential_expired",
        "the credential is right, and not valid yet or any more",
        "give it another validity, or a new credential",
    ),
    words(
        Cause::PlaintextForbidden,
        "plaintext_forbidden",
        "its tenant takes credentials with TLS only",
        "connect with TLS, or allow `plaintext` in the tenant's settings",
    ),
    words(
        Cause::CheckersBusy,
        "checkers_busy",
        "too many credentials are being checked at this node",
        "the device should come again in a moment; more nodes help, or tokens in the place of passwords",
    ),
    words(
        Cause::AuthUnavailable,
        "auth_unavailable",
        "the shard that knows the credential did not answer",
        "look at `moorline cluster status`: that shard has no leader or no majority",
    ),
    words(
        Cause::ClientIdRefused,
        "client_id_refused",
        "its platform does not have such client ids",
        "use the form that the platform's page in docs/platforms shows",
    ),
    words(
        Cause::VersionRefused,
        "version_refused",
        "its platform speaks another version of MQTT",
        "set the client to the version that the platform's page shows",
    ),
    words(
        Cause::Unanswered,
        "unanswered",
        "its platform does not answer such a client at all",
        "compare client id and user name with the platform's page",
    ),
    words(
        Cause::TooManyConnects,
        "too_many_connects",
        "it, or its tenant, connects more often than it may",
        "let the client wait longer between tries; the rates are in `[mqtt]`",
    ),
    words(
        Cause::SessionBusy,
        "session_busy",
        "the queues in front of the session's shard are full",
        "the client should come again in a moment; see the dashboard for what loads the shard",
    ),
    words(
        Cause::SessionUnavailable,
        "session_unavailable",
        "the session's shard did not answer in time",
        "look at `moorline cluster status`: the shard has no leader or no majority",
    ),
    words(
        Cause::SessionsFull,
        "sessions_full",
        "its shard has as many sessions as it may",
        "delete sessions that nobody resumes, or raise `sessions-per-shard-max`",
    ),
    words(
        Cause::DiskFull,
        "disk_full",
        "the disks of too many nodes are nearly full",
        "make room: nothing durable is taken before",
    ),
    words(
        Cause::PublishForbidden,
        "publish_forbidden",
        "it may not publish to this topic",
        "allow the topic in the device's or its tenant's rights, or correct the topic",
    ),
    words(
        Cause::PublishBusy,
        "publish_busy",
        "the tenant says more than it may in a second, or the shard's queues are full",
        "let it publish more slowly, or raise the tenant's quota",
    ),
    words(
        Cause::PublishUnavailable,
        "publish_unavailable",
        "a shard did not answer: the message may have been taken or not",
        "repeat it; look at `moorline cluster status`",
    ),
    words(
        Cause::QueueFull,
        "queue_full",
        "every queue that wanted it is full",
        "let the subscribers come and take what waits, or raise `session-queue-max`",
    ),
    words(
        Cause::TooLarge,
        "too_large",
        "it is larger than may be",
        "send less at once, or raise the limit that docs/configuration.md names",
    ),
    words(
        Cause::UnknownTopic,
        "unknown_topic",
        "its platform has no such topic",
        "compare the topic with the platform's page in docs/platforms",
    ),
    words(
        Cause::UnreadablePayload,
        "unreadable_payload",
        "its platform can't read the payload there",
        "compare the payload with the platform's page in docs/platforms",
    ),
    words(
        Cause::PlatformRefused,
        "platform_refused",
        "its platform refuses that for a reason of its own",
        "see the platform's page in docs/platforms",
    ),
    words(
        Cause::NobodyListens,
        "nobody_listens",
        "nobody subscribes to it: it was taken and is kept nowhere",
        "subscribe first, or publish with the retain flag; events of a platform's devices are kept in the stream",
    ),
    words(
        Cause::SubscribeForbidden,
        "subscribe_forbidden",
        "it may not subscribe to this filter",
        "allow the filter in the device's or its tenant's rights, or correct it",
    ),
    words(
        Cause::SubscriptionsFull,
        "subscriptions_full",
        "it has as many subscriptions as it may",
        "unsubscribe from some, or raise `subscriptions-max`",
    ),
    words(
        Cause::SubscribeUnavailable,
        "subscribe_unavailable",
        "the session's shard or the routes did not answer in time",
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
        "it may not read this topic, although it subscribes to it",
        "allow the topic in the device's or its tenant's rights",
    ),
    words(
        Cause::MailUnreadable,
        "mail_unreadable",
        "the mail has no form that this platform's devices read",
        "send it in a form that docs/mail.md lists for the platform",
    ),
    words(
        Cause::ConnectTimeout,
        "connect_timeout",
        "it opened a connection and sent no CONNECT in time",
        "look for something in between that opens connections, such as a load balancer's check",
    ),
    words(
        Cause::OpenTimeout,
        "open_timeout",
        "its session could not be opened in time",
        "look at `moorline cluster status`: its shard is slow or has no leader",
    ),
    words(
        Cause::Silent,
        "silent",
        "nothing was heard of it for one and a half keep-alives",
        "look at its network; a keep-alive shorter than the network's own timeout keeps the way open",
    ),
    words(
        Cause::TakesNothing,
        "takes_nothing",
        "it did not take what it was sent",
        "look at its network, or at what it does while it should read",
    ),
    words(
        Cause::NotMqtt,
        "not_mqtt",
        "what it said first is no CONNECT",
        "see which protocol belongs to the port: docs/configuration.md",
    ),
    words(
        Cause::Malformed,
        "malformed",
        "it sent bytes that are no packet",
        "look for a broken client library, or TLS at a port without",
    ),
    words(
        Cause::ProtocolError,
        "protocol_error",
        "it sent a packet that is forbidden there",
        "look for a broken client library: the log at `debug` names the rule",
    ),
    words(
        Cause::TooManyInPacket,
        "too_many_in_packet",
        "one packet had too many of something",
        "send several smaller packets",
    ),
    words(
        Cause::TooManyUnanswered,
        "too_many_unanswered",
        "it had more publishes under way than the Receive Maximum",
        "let the client wait for its answers",
    ),
    words(
        Cause::TopicAlias,
        "topic_alias",
        "it used a topic alias that there is not",
        "let the client keep to Topic Alias Maximum",
    ),
    words(
        Cause::TopicNotAccepted,
        "topic_not_accepted",
        "the topic has more bytes or levels than are taken",
        "use a shorter topic",
    ),
    words(
        Cause::NotSupported,
        "not_supported",
        "it used what the CONNACK says there is not",
        "let the client read the CONNACK's properties",
    ),
    words(
        Cause::TakenOver,
        "taken_over",
        "another connection of the same device or client id has the session now",
        "give each client an id of its own; a pair that takes over for ever has one id",
    ),
    words(
        Cause::NodeStops,
        "node_stops",
        "the node stops",
        "nothing: the client should connect to another node",
    ),
    words(
        Cause::PromiseLost,
        "promise_lost",
        "the session's promise can't be kept at this node",
        "nothing: the client should connect again",
    ),
    words(
        Cause::Overrun,
        "overrun",
        "this node was sent more than it gave credit for",
        "this is a fault of Moorline: report it",
    ),
    words(
        Cause::Revoked,
        "revoked",
        "its device, credential or tenant was deleted, disabled or changed",
        "see `moorline audit` for who changed what",
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
        "see `moorline device get`; who sends should look the device up anew",
    ),
    words(
        Cause::MailboxFull,
        "mailbox_full",
        "its mailbox, or its shard's mailboxes, hold as much as they may",
        "let the device take what waits, give mail a shorter life, or raise the mailbox's limits",
    ),
    words(
        Cause::MailNotNext,
        "mail_not_next",
        "another mail is at the front of its mailbox, or none",
        "the device settles mail in its order; a repeat of what was settled before changes nothing",
    ),
    words(
        Cause::ValuesFull,
        "values_full",
        "the device has as many keys, values or histories as it may",
        "delete keys that nobody needs, or send fewer at once",
    ),
    words(
        Cause::StreamFull,
        "stream_full",
        "the tenant's stream, or its shard, has no room for more",
        "see `moorline events` for groups that lag; raise the retention's limits",
    ),
    words(
        Cause::RegistryRefused,
        "registry_refused",
        "the shard refuses it",
        "the answer of the API says more",
    ),
    words(
        Cause::PeerGone,
        "peer_gone",
        "the connection broke, or the client closed it without a goodbye",
        "look at the client's log and its network",
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
