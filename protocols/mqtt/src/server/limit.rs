//! The limits that a connection can run into: facts for whoever counts them.

/// One limit of [`super::Config`], or of the service behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// No CONNECT in time.
    FirstPacket,
    /// A CONNECT with more bytes than a stranger may send.
    ConnectBytes,
    /// A later packet with too many bytes.
    PacketBytes,
    /// A client id with too many bytes.
    ClientIdBytes,
    /// A topic name or filter with too many bytes.
    TopicBytes,
    /// A topic name or filter with too many levels.
    TopicLevels,
    /// A topic alias above the maximum.
    TopicAlias,
    /// Too many user properties in one packet.
    UserProperties,
    /// Too many bytes of user properties and reason string in one packet.
    PropertyBytes,
    /// Too many filters in one packet.
    Filters,
    /// A longer keep-alive than is allowed, or none: the client has to use another.
    KeepAlive,
    /// More unanswered publishes than the Receive Maximum.
    ReceiveMax,
    /// Deliveries that are stored nowhere waited for a client that is too slow.
    LiveQueue,
    /// The client took nothing of what it was sent.
    WriteStall,
    /// The session has all the subscriptions it may have, or the cluster all the routes.
    Subscriptions,
    /// The shard has all the sessions it may have.
    Sessions,
    /// A publish found every queue full.
    SessionQueue,
}

impl Limit {
    /// All of them, by number.
    pub const ALL: [Self; 17] = [
        Self::FirstPacket,
        Self::ConnectBytes,
        Self::PacketBytes,
        Self::ClientIdBytes,
        Self::TopicBytes,
        Self::TopicLevels,
        Self::TopicAlias,
        Self::UserProperties,
        Self::PropertyBytes,
        Self::Filters,
        Self::KeepAlive,
        Self::ReceiveMax,
        Self::LiveQueue,
        Self::WriteStall,
        Self::Subscriptions,
        Self::Sessions,
        Self::SessionQueue,
    ];

    /// The name for metrics and logs: where there is a setting, the setting's.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::FirstPacket => "first_packet_ms",
            Self::ConnectBytes => "connect_bytes_max",
            Self::PacketBytes => "packet_bytes_max",
            Self::ClientIdBytes => "client_id_bytes_max",
            Self::TopicBytes => "topic_bytes_max",
            Self::TopicLevels => "topic_levels_max",
            Self::TopicAlias => "topic_alias_max",
            Self::UserProperties => "user_properties_max",
            Self::PropertyBytes => "property_bytes_max",
            Self::Filters => "filters_max",
            Self::KeepAlive => "keep_alive_max_s",
            Self::ReceiveMax => "receive_max",
            Self::LiveQueue => "live_queue_max",
            Self::WriteStall => "write_stall_ms",
            Self::Subscriptions => "subscriptions_max",
            Self::Sessions => "sessions_per_shard_max",
            Self::SessionQueue => "session_queue_max",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_list() {
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place);
        }
    }
}
