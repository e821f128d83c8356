//! Refusals as text: a code that programs look at, a colon, and a sentence for people. The vendor's codes where there are
//! some, ours where not.

use moorline_core::{
    op::{Declined, Denial},
    port::Refusal,
};

/// Why an op was not done.
#[must_use]
pub fn declined(declined: &Declined) -> String {
    let code = match declined {
        Declined::Unreadable(_) => "deserialization_failed",
        Declined::UnknownSchema => {
            return "packet_schema_not_found: the fleet has no such packet schema".to_owned();
        }
        Declined::InvalidMailId => "invalid_pulse_id",
        Declined::NotNextMail => "not_next_mail",
        Declined::UnknownMail => "mail_not_found",
        Declined::Denied(denial) => return denied(*denial),
        Declined::Refused(refusal) => match refusal {
            Refusal::Busy => "busy",
            Refusal::Unavailable => "unavailable",
            Refusal::Quota => "quota_exceeded",
            Refusal::DiskFull => "disk_full",
            Refusal::NotAuthorised => "not_authorised",
            Refusal::TooLarge => "too_large",
            Refusal::Topic => "unknown_topic",
            Refusal::Payload => "unreadable",
            Refusal::Platform(_) => "refused",
        },
    };
    format!("{code}: {declined}")
}

/// Why a device is not let in.
#[must_use]
pub fn denied(denial: Denial) -> String {
    let code = match denial {
        Denial::Malformed
        | Denial::UnknownTenant
        | Denial::UnknownDevice
        | Denial::WrongSecret
        | Denial::Disabled
        | Denial::Plaintext
        | Denial::Banned { .. } => "unauthorized",
        Denial::Stopping | Denial::Unavailable | Denial::TooOften => "connect_failed",
    };
    format!("{code}: {denial}")
}
