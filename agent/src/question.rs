//! What the local API asks of the cluster, and what may come of it. Values only.

use bytes::Bytes;
use moorline_core::{
    Text,
    op::{MailId, Settlement},
};
use moorline_moonlight::{
    client::{Ended, Failure},
    codec::{ConnectFailedReason, Next, PulseKind, UnauthorizedReason},
};

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// Take this.
    Pulse {
        /// What kind.
        kind: PulseKind,
        /// Its schema.
        name: Text,
        /// JSON, or nothing.
        payload: Bytes,
    },
    /// What is the front mail?
    Next {
        /// Whether its payload may stay where it is.
        header_only: bool,
    },
    /// This became of the front mail.
    Settle {
        /// Its id.
        id: MailId,
        /// What became of it.
        settlement: Settlement,
    },
}

impl Question {
    /// Whether it may be asked again when the connection was lost before the answer. A pulse would be there twice.
    pub(crate) fn may_repeat(&self) -> bool {
        match self {
            Self::Pulse { .. } => false,
            Self::Next { .. } | Self::Settle { .. } => true,
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The pulse is safe.
    Taken,
    /// The front mail.
    Mail(Next),
    /// The settlement is noted; so many mails are left.
    Settled(u16),
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// There was no connection for as long as a request waits. Nothing happened.
    NotConnected(Option<Why>),
    /// Too many others are under way. Nothing happened.
    Busy,
    /// The same mail is being settled. Nothing happened.
    Pending,
    /// It can't be said in Moonlight. Nothing happened.
    Unspeakable,
    /// It was sent; see there what may have happened.
    Failed(Failure),
}

/// Why the uplink is down: a code of two that SDKs know, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Why {
    /// `unauthorized` or `connect_failed`.
    pub(crate) code: &'static str,
    /// A sentence without its capital and its stop.
    pub(crate) text: String,
}

impl Why {
    /// Anything that is not the credentials' fault.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self { code: "connect_failed", text: text.into() }
    }

    /// As event streams say it.
    pub(crate) fn line(&self) -> String {
        format!("{}: {}", self.code, self.text)
    }
}

impl From<&Ended> for Why {
    fn from(ended: &Ended) -> Self {
        match ended {
            Ended::Unauthorized(reason) => {
                Self { code: "unauthorized", text: unauthorized(*reason).to_owned() }
            }
            Ended::ConnectFailed(reason) => Self::failed(connect_failed(*reason)),
            Ended::Goodbye
            | Ended::Malformed(_)
            | Ended::OutOfTurn
            | Ended::NoAnswer
            | Ended::Silence
            | Ended::Stalled
            | Ended::Own => Self::failed(ended.to_string()),
        }
    }
}

fn unauthorized(reason: UnauthorizedReason) -> &'static str {
    match reason {
        UnauthorizedReason::Unknown => "the server does not let the device in",
        UnauthorizedReason::CredentialsMalformed => "the credentials are malformed",
        UnauthorizedReason::FleetNotFound => "there is no such fleet",
        UnauthorizedReason::DeviceNotFound => "the fleet has no such device",
        UnauthorizedReason::SecretIncorrect => "the device secret is wrong",
        UnauthorizedReason::DeviceDisabled => "the device is disabled",
        UnauthorizedReason::TemporaryBan => "too many failed attempts: banned for a while",
    }
}

fn connect_failed(reason: ConnectFailedReason) -> &'static str {
    match reason {
        ConnectFailedReason::Unknown => "the server can't let the device in",
        ConnectFailedReason::Restarting => "the server restarts",
        ConnectFailedReason::Unavailable => "the server is unavailable",
        ConnectFailedReason::Degraded => "the server lets in fewer devices than usual",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refused_credentials_are_called_unauthorized() {
        let refused = Why::from(&Ended::Unauthorized(UnauthorizedReason::SecretIncorrect));
        assert_eq!(refused.line(), "unauthorized: the device secret is wrong");
        let table = [
            (
                Ended::ConnectFailed(ConnectFailedReason::Restarting),
                "connect_failed: the server restarts",
            ),
            (Ended::Silence, "connect_failed: no answer to heartbeats"),
            (Ended::Goodbye, "connect_failed: the server closed the connection"),
        ];
        for (ended, line) in table {
            assert_eq!(Why::from(&ended).line(), line);
        }
    }
}
