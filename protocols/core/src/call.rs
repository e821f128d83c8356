//! How a call to a device stands: its states, and what follows which.
//!
//! ```text
//!             ┌────────────── Unacknowledged, again ◄─┐
//!             ▼                                       │
//!   Queued ─► Timeout ─► Sent ─► Delivered ─► Successful, Failed      one way: it ends with Delivered
//!             └───────────┴────────────────► Expired, Deleted         from wherever it is open
//! ```
//!
//! # Invariants
//!
//! - **What has ended stays as it is**, but that it can be deleted. Checked by this file's tests, for all states and events.
//! - **Numbers are never given twice.** Rows and frames hold those of [`CallState`]. Frozen by the same tests.
//!
//! # Deliberately absent
//!
//! What a platform calls them (`protocols/dialects`), and how a call is kept (`raft/machine`).

/// How a call stands. Disks hold the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CallState {
    /// It waits for its device.
    Queued = 1,
    /// It went out to a connection of the device.
    Sent = 2,
    /// The device has acknowledged that it has it.
    Delivered = 3,
    /// The device has answered.
    Successful = 4,
    /// The device did not acknowledge it in time: it waits, and goes out again.
    Timeout = 5,
    /// Its time was over.
    Expired = 6,
    /// The device answered that it could not, or never acknowledged it.
    Failed = 7,
    /// Somebody took it back.
    Deleted = 8,
}

/// What befalls a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEvent {
    /// It was given to a connection of the device.
    Sent,
    /// The device has acknowledged it.
    Delivered,
    /// The device has not acknowledged it in time.
    Unacknowledged {
        /// Whether it may be sent again.
        again: bool,
    },
    /// The device has answered.
    Answered {
        /// Whether it says that it could not.
        failed: bool,
    },
    /// Its time is over.
    Expired,
    /// Somebody has deleted it.
    Deleted,
}

impl CallState {
    /// All of them, by number.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Sent,
        Self::Delivered,
        Self::Successful,
        Self::Timeout,
        Self::Expired,
        Self::Failed,
        Self::Deleted,
    ];

    /// The state of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }

    /// Its name, for eyes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Successful => "successful",
            Self::Timeout => "timeout",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Deleted => "deleted",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing follows. A one-way call ends when it is delivered.
    #[must_use]
    pub fn is_final(self, one_way: bool) -> bool {
        match self {
            Self::Queued | Self::Sent | Self::Timeout => false,
            Self::Delivered => one_way,
            Self::Successful | Self::Expired | Self::Failed | Self::Deleted => true,
        }
    }

    /// Whether the device does not have it yet, for all that is known: whoever serves the device sends it.
    #[must_use]
    pub fn is_waiting(self) -> bool {
        match self {
            Self::Queued | Self::Sent | Self::Timeout => true,
            Self::Delivered | Self::Successful | Self::Expired | Self::Failed | Self::Deleted => {
                false
            }
        }
    }

    /// The state after an event; the same if the event comes too late.
    #[must_use]
    pub fn after(self, event: CallEvent, one_way: bool) -> Self {
        match event {
            CallEvent::Deleted => Self::Deleted,
            _ if self.is_final(one_way) => self,
            CallEvent::Sent if self != Self::Delivered => Self::Sent,
            CallEvent::Delivered => Self::Delivered,
            CallEvent::Unacknowledged { again: true } if self == Self::Sent => Self::Timeout,
            CallEvent::Unacknowledged { again: false } if self == Self::Sent => Self::Failed,
            CallEvent::Answered { failed: true } => Self::Failed,
            CallEvent::Answered { failed: false } => Self::Successful,
            CallEvent::Expired => Self::Expired,
            CallEvent::Sent | CallEvent::Unacknowledged { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CallState::{
        Deleted, Delivered, Expired, Failed, Queued, Sent, Successful, Timeout,
    };
    use super::*;

    const AGAIN: CallEvent = CallEvent::Unacknowledged { again: true };
    const NO_MORE: CallEvent = CallEvent::Unacknowledged { again: false };
    const DONE: CallEvent = CallEvent::Answered { failed: false };
    const COULD_NOT: CallEvent = CallEvent::Answered { failed: true };

    #[test]
    fn numbers_and_names_stay() {
        // Frozen: disks hold the numbers.
        assert_eq!(CallState::ALL.map(|state| state as u8), [1, 2, 3, 4, 5, 6, 7, 8]);
        for state in CallState::ALL {
            assert_eq!(CallState::from_number(state as u8), Some(state));
            assert_eq!(CallState::by_name(state.name()), Some(state));
        }
        assert_eq!((CallState::from_number(0), CallState::from_number(9)), (None, None));
        assert_eq!(CallState::by_name("QUEUED"), None);
    }

    #[test]
    fn each_state_goes_where_the_table_says() {
        let (sent, delivered) = (CallEvent::Sent, CallEvent::Delivered);
        let events = [sent, delivered, AGAIN, NO_MORE, DONE, COULD_NOT, CallEvent::Expired];
        #[rustfmt::skip]
        let table = [
            // state     sent        delivered   again       no more     done        could not   expired
            (Queued,     [Sent,      Delivered,  Queued,     Queued,     Successful, Failed,     Expired]),
            (Sent,       [Sent,      Delivered,  Timeout,    Failed,     Successful, Failed,     Expired]),
            (Timeout,    [Sent,      Delivered,  Timeout,    Timeout,    Successful, Failed,     Expired]),
            (Delivered,  [Delivered, Delivered,  Delivered,  Delivered,  Successful, Failed,     Expired]),
            (Successful, [Successful; 7]),
            (Expired,    [Expired; 7]),
            (Failed,     [Failed; 7]),
            (Deleted,    [Deleted; 7]),
        ];
        for (state, expected) in table {
            for (event, expected) in events.into_iter().zip(expected) {
                assert_eq!(state.after(event, false), expected, "{state:?} {event:?}");
                let one_way = if state == Delivered { Delivered } else { expected };
                assert_eq!(state.after(event, true), one_way, "one way: {state:?} {event:?}");
            }
            assert_eq!(state.after(CallEvent::Deleted, false), Deleted);
            let moves = expected.iter().any(|next| *next != state);
            assert_eq!(state.is_final(false), !moves, "{state:?}");
            assert!(!state.is_waiting() || !state.is_final(true), "{state:?}");
        }
        assert!(Delivered.is_final(true) && !Delivered.is_waiting());
    }
}
