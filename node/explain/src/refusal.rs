//! What the words of ports and doors mean as causes. No wildcard arms: a new word has to say which cause it is.

use moorline_core::{
    op::{Declined, Denial},
    port::{PlatformReason, Refusal},
};

use crate::Cause;

impl Cause {
    /// Why a session was not opened.
    #[must_use]
    pub fn of_session(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Busy => Self::SessionBusy,
            Refusal::Unavailable => Self::SessionUnavailable,
            Refusal::Quota => Self::SessionsFull,
            Refusal::DiskFull => Self::DiskFull,
            Refusal::NotAuthorised => Self::NotAuthorised,
            Refusal::TooLarge => Self::TooLarge,
            Refusal::Topic => Self::UnknownTopic,
            Refusal::Payload => Self::UnreadablePayload,
            Refusal::Platform(_) => Self::PlatformRefused,
        }
    }

    /// Why a message was not taken.
    #[must_use]
    pub fn of_publish(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Busy => Self::PublishBusy,
            Refusal::Unavailable => Self::PublishUnavailable,
            Refusal::Quota => Self::QueueFull,
            Refusal::DiskFull => Self::DiskFull,
            Refusal::NotAuthorised => Self::PublishForbidden,
            Refusal::TooLarge => Self::TooLarge,
            Refusal::Topic => Self::UnknownTopic,
            Refusal::Payload => Self::UnreadablePayload,
            Refusal::Platform(_) => Self::PlatformRefused,
        }
    }

    /// Why a filter was not granted.
    #[must_use]
    pub fn of_subscribe(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Busy | Refusal::Unavailable => Self::SubscribeUnavailable,
            Refusal::Quota => Self::SubscriptionsFull,
            Refusal::DiskFull => Self::DiskFull,
            Refusal::NotAuthorised => Self::SubscribeForbidden,
            Refusal::TooLarge => Self::TooLarge,
            Refusal::Topic
            | Refusal::Payload
            | Refusal::Platform(
                PlatformReason::Unspecified
                | PlatformReason::Unsupported
                | PlatformReason::Wildcard,
            ) => Self::FilterRefused,
        }
    }

    /// Why a device was not let in.
    #[must_use]
    pub fn of_denial(denial: Denial) -> Self {
        match denial {
            Denial::Malformed => Self::CredentialsUnreadable,
            // Nobody's ring holds these two but where a device was found and is not the one that is meant.
            Denial::UnknownTenant | Denial::UnknownDevice | Denial::WrongSecret => {
                Self::WrongCredentials
            }
            Denial::Disabled => Self::Disabled,
            Denial::Plaintext => Self::PlaintextForbidden,
            Denial::Banned { .. } => Self::Banned,
            Denial::Stopping => Self::NodeStops,
            Denial::Unavailable => Self::AuthUnavailable,
            Denial::TooOften => Self::TooManyConnects,
        }
    }

    /// Why something was not done for a device that was let in.
    #[must_use]
    pub fn of_declined(declined: &Declined) -> Self {
        match declined {
            Declined::Unreadable(_) => Self::UnreadablePayload,
            Declined::UnknownSchema => Self::UnknownSchema,
            Declined::InvalidMailId | Declined::NotNextMail | Declined::UnknownMail => {
                Self::MailNotNext
            }
            Declined::Denied(denial) => match denial {
                // It was let in: it is gone since.
                Denial::UnknownTenant | Denial::UnknownDevice => Self::DeviceGone,
                known @ (Denial::Malformed
                | Denial::WrongSecret
                | Denial::Disabled
                | Denial::Plaintext
                | Denial::Banned { .. }
                | Denial::Stopping
                | Denial::Unavailable
                | Denial::TooOften) => Self::of_denial(*known),
            },
            Declined::Refused(refusal) => Self::of_publish(*refusal),
        }
    }
}
