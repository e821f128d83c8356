//! When a message expires, and by which clock: by the process clock where a connection has it in hand, by its shard's log
//! time in rows. What is left of it travels from one to the other, so that clocks of two nodes are never compared.
//!
//! Invariant: what has expired stays so; nothing is left of it, by whatever clock. The way itself costs no lifetime.

use std::sync::Arc;

use moorline_core::{Delivery, Message, UnixMillis};

/// What is left, by the clock that says `now`.
pub(crate) fn left(expires_at: UnixMillis, now: UnixMillis) -> u64 {
    expires_at.0.saturating_sub(now.0)
}

/// When it is over, by the clock that says `now`.
pub(crate) fn over(left: u64, now: UnixMillis) -> UnixMillis {
    UnixMillis(now.0.saturating_add(left))
}

/// A message for a log: its expiry is relative there, see [`moorline_machine::Command::Publish`].
pub(crate) fn for_log(message: Message, now: UnixMillis) -> Message {
    let expires_at = message.expires_at.map(|at| UnixMillis(left(at, now)));
    Message { expires_at, ..message }
}

/// Deliveries from rows for a connection of this node: from log time to the process clock.
pub(crate) fn to_process_clock(deliveries: &mut [Delivery], log: UnixMillis, now: UnixMillis) {
    for delivery in deliveries {
        if let Some(at) = delivery.message.expires_at {
            let expires_at = Some(over(left(at, log), now));
            delivery.message =
                Arc::new(Message { expires_at, ..Message::clone(&delivery.message) });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::{QoS, Text};

    use super::*;

    fn message(expires_at: Option<u64>) -> Message {
        Message {
            topic: Text::from("t"),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Bytes::new(),
            expires_at: expires_at.map(UnixMillis),
            payload: Bytes::new(),
        }
    }

    #[test]
    fn what_is_left_is_the_same_by_every_clock() {
        let (log, now) = (UnixMillis(1_000), UnixMillis(900_000));
        #[rustfmt::skip]
        let table = [
            (None,        None,          None),
            (Some(1_070), Some(70),      Some(900_070)),
            (Some(1_000), Some(0),       Some(900_000)), // expired, and still is
            (Some(5),     Some(0),       Some(900_000)),
            (Some(u64::MAX), Some(u64::MAX - 1_000), Some(u64::MAX)),
        ];
        for (at, in_log, by_process) in table {
            assert_eq!(for_log(message(at), log), message(in_log));
            let message_of_rows = Arc::new(message(at));
            let mut deliveries = [Delivery::new(None, QoS::AtLeastOnce, message_of_rows)];
            to_process_clock(&mut deliveries, log, now);
            assert_eq!(*deliveries[0].message, message(by_process));
        }
    }
}
