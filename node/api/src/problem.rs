//! Errors of the API: RFC 9457 problems with codes that stay what they are.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use moorline_machine::{
    CallRefused, DocumentRefused, EventRefused, MailRefused, ValueRefused, answer::Refused,
};
use moorline_service::registry::RegistryError;
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// Which problem: programs may rely on it.
    #[schema(example = "not-found")]
    code: &'static str,
    /// The status in words.
    title: &'static str,
    /// What, and what to do about it.
    detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("error");
        Self { status: status.as_u16(), code, title, detail: detail.into() }
    }

    /// Its code and what it says: for one line of many.
    pub(crate) fn into_parts(self) -> (&'static str, String) {
        (self.code, self.detail)
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("there is no such {what}"))
    }

    /// What the registry says of one thing: that there is none is said with its name.
    pub(crate) fn about(what: &str, error: RegistryError) -> Self {
        if error == RegistryError::Refused(Refused::NotFound) {
            return Self::not_found(what);
        }
        error.into()
    }

    pub(crate) fn unauthorised() -> Self {
        let detail =
            "an API token is wanted: `Authorization: Bearer …`; `moorline token create` makes one";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorised", detail)
    }

    pub(crate) fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("made of one");
        let mut response = (status, Json(&self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderName::from_static("www-authenticate");
            response.headers_mut().insert(challenge, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Unavailable => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the shard did not answer in time; what was asked may or may not have happened",
            ),
            RegistryError::Busy => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "busy",
                "the cluster is busy: try again later",
            ),
            RegistryError::Taken(_) => {
                let detail = "another device has this credential";
                Self::new(StatusCode::CONFLICT, "credential-taken", detail)
            }
            RegistryError::Refused(refused) => refused_as(&refused),
            RegistryError::Mail(refused) => mail_refused_as(refused),
            RegistryError::Events(refused) => event_refused_as(refused),
            RegistryError::Values(refused) => value_refused_as(refused),
            RegistryError::Calls(refused) => call_refused_as(refused),
            RegistryError::Documents(refused) => document_refused_as(refused),
            RegistryError::TooManyReaders => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-readers",
                "as many read events at this node, or of this tenant, as may: ask another node",
            ),
            RegistryError::DiskFull => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk-full",
                "the cluster is out of disk space",
            ),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is not said to what the API asks")]
fn refused_as(refused: &Refused) -> Problem {
    use StatusCode as S;
    let (status, code, detail) = match refused {
        Refused::NotFound => (S::NOT_FOUND, "not-found", "there is no such thing".to_owned()),
        Refused::Exists => {
            (S::CONFLICT, "exists", "the name or an alias is in use already".to_owned())
        }
        Refused::VersionMismatch { version } => (
            S::PRECONDITION_FAILED,
            "version-mismatch",
            format!("it has version {version} now: read it again, and decide again"),
        ),
        Refused::TooMany => (S::FORBIDDEN, "quota", "there are as many as there may be".to_owned()),
        Refused::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large", "it is too large".to_owned()),
        other => (S::BAD_REQUEST, "refused", format!("refused: {other:?}")),
    };
    Problem::new(status, code, detail)
}

fn mail_refused_as(refused: MailRefused) -> Problem {
    use StatusCode as S;
    match refused {
        MailRefused::Full => Problem::new(
            S::INSUFFICIENT_STORAGE,
            "mailbox-full",
            "as much mail waits for this device as may",
        ),
        MailRefused::TooLarge => {
            Problem::new(S::PAYLOAD_TOO_LARGE, "too-large", "a payload has at most 64 KiB")
        }
        MailRefused::NotNext { .. } => {
            Problem::new(S::CONFLICT, "not-next-mail", "another mail is at the front")
        }
        MailRefused::NoSuchMail => Problem::not_found("mail"),
        MailRefused::TooManyMailboxes => {
            Problem::new(S::INSUFFICIENT_STORAGE, "quota", "too many devices have mail waiting")
        }
        MailRefused::DeviceGone | MailRefused::DeviceChanged => Problem::not_found("device"),
    }
}

fn event_refused_as(refused: EventRefused) -> Problem {
    use StatusCode as S;
    match refused {
        EventRefused::TooLarge => {
            Problem::new(S::PAYLOAD_TOO_LARGE, "too-large", "an event has at most 256 KiB")
        }
        EventRefused::DeviceGone => Problem::not_found("device"),
        EventRefused::TooManyStreams => {
            Problem::new(S::INSUFFICIENT_STORAGE, "quota", "too many tenants have events")
        }
        EventRefused::BeyondTail { last } => Problem::new(
            S::CONFLICT,
            "beyond-the-end",
            format!("there is no such event yet; the last one of a shard has offset {last}"),
        ),
        EventRefused::TooManyConsumers => {
            Problem::new(S::FORBIDDEN, "quota", "there are as many consumer groups as there may be")
        }
        EventRefused::NoSuchConsumer => Problem::not_found("consumer group"),
    }
}

fn document_refused_as(refused: DocumentRefused) -> Problem {
    use StatusCode as S;
    match refused {
        DocumentRefused::Conflict { .. } => {
            Problem::new(S::CONFLICT, "conflict", "it changed meanwhile: try again")
        }
        DocumentRefused::DeviceGone => Problem::not_found("device"),
        DocumentRefused::Full => {
            Problem::new(S::INSUFFICIENT_STORAGE, "quota", "as much is kept of it as may")
        }
        DocumentRefused::TooLarge => {
            Problem::new(S::PAYLOAD_TOO_LARGE, "too-large", "a document has at most 128 KiB")
        }
        DocumentRefused::BadName => Problem::new(
            S::BAD_REQUEST,
            "bad-name",
            "a name is empty, too long, or has a zero byte",
        ),
    }
}

fn value_refused_as(refused: ValueRefused) -> Problem {
    use StatusCode as S;
    match refused {
        ValueRefused::DeviceGone => Problem::not_found("device"),
        ValueRefused::Key => Problem::new(S::BAD_REQUEST, "bad-key", "a key has 1 to 1,020 bytes"),
        ValueRefused::TooLarge => Problem::new(
            S::PAYLOAD_TOO_LARGE,
            "too-large",
            "an attribute has at most 32 KiB, a value of telemetry 64 KiB",
        ),
        ValueRefused::TooManyAtOnce => Problem::new(
            S::PAYLOAD_TOO_LARGE,
            "too-many-at-once",
            "these are more keys, points or values than one request may have",
        ),
        ValueRefused::TooManyKeys => Problem::new(
            S::INSUFFICIENT_STORAGE,
            "quota",
            "a device has at most 1,024 keys of each scope, and of telemetry",
        ),
        ValueRefused::Full => Problem::new(
            S::INSUFFICIENT_STORAGE,
            "quota",
            "a device has at most 128 KiB of attributes of each scope, and of latest values",
        ),
        ValueRefused::TooManyHistories => {
            Problem::new(S::INSUFFICIENT_STORAGE, "quota", "too many tenants have telemetry")
        }
    }
}

fn call_refused_as(refused: CallRefused) -> Problem {
    use StatusCode as S;
    match refused {
        CallRefused::DeviceGone => Problem::not_found("device"),
        CallRefused::NoSuchCall => Problem::not_found("call"),
        CallRefused::Full => Problem::new(
            S::INSUFFICIENT_STORAGE,
            "calls-full",
            "as many calls to this device are open as may be",
        ),
        CallRefused::TooLarge => Problem::new(
            S::PAYLOAD_TOO_LARGE,
            "too-large",
            "parameters and an answer have at most 64 KiB each",
        ),
        CallRefused::Expired => {
            Problem::new(S::BAD_REQUEST, "expired", "its deadline has passed already")
        }
        CallRefused::TooManyCalls => {
            Problem::new(S::INSUFFICIENT_STORAGE, "quota", "too many calls are kept")
        }
    }
}
