//! One subscription: what is there is pushed, and then what changes, until the device is gone or nobody wants it any more.
//!
//! ```text
//!   marks ─► read ─► push what is new ─► wait at the shard's leader for other marks ─► read …
//! ```
//!
//! # Invariants
//!
//! - **No change is missed**: marks are asked for before values are read, so what comes in between is other marks.
//! - **One of many devices is watched as long as it is on its page**: what fails for a while is begun again.
//! - **Of a key's samples each is pushed that is newer than the one before**, as long as there is a history of them and there are
//!   [`SAMPLES_PER_PUSH_MAX`] at most; of attributes the last.

use std::time::Duration;

use moorline_core::{AttributeScope, TenantId, Text};
use moorline_dialects::thingsboard::{
    attributes::Scope,
    rest::{
        aggregation::{Aggregation, Range},
        errors::ErrorCode,
        finding,
        telemetry::History,
        told::{Series, Told, between, pushes},
        websocket::{Past, SubscriptionError, push, refused},
    },
    values::Value,
};
use moorline_machine::values::Marks;
use moorline_service::registry::ASK_AGAIN;
use tokio::{sync::mpsc, time::sleep};
use uuid::Uuid;

use super::super::{Failed, Rest, devices::Row};
use crate::convert::{from_core, keys};

/// How long a question waits for news before it is asked again. Attributes that the server shows without that anybody has written
/// them (`active`, …) are looked at as often.
const NEWS_WAIT: Duration = Duration::from_secs(20);
/// The pause between two looks at a device: what it says meanwhile is pushed together.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Samples of a key that one push has beside the newest.
const SAMPLES_PER_PUSH_MAX: u64 = 1_000;

/// What of a device is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Subject {
    /// Attributes, of one scope or of all, and their changes; no keys: all.
    Attributes { scope: Option<Scope>, keys: Vec<String> },
    /// Latest values and new ones, and past ones first; no keys: all.
    Series { keys: Vec<String>, past: Option<Past> },
    /// Past ones, once.
    Past { keys: Vec<String>, past: Past },
}

/// A subscription.
pub(super) struct Watching {
    pub(super) rest: Rest,
    pub(super) tenant: TenantId,
    pub(super) id: i64,
    pub(super) subject: Subject,
    /// How pushes are written.
    pub(super) form: Form,
    pub(super) outgoing: mpsc::Sender<String>,
}

/// How pushes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As of a subscription.
    Subscription,
    /// As of one of many devices.
    OfMany {
        /// Whose they are.
        device: Uuid,
        /// Whether samples are told one by one, or the newest as the latest value.
        whole: bool,
    },
}

/// Why a subscription ends by itself.
enum End {
    /// There is nobody to push to.
    Left,
    /// What it is told.
    Failed(Failed),
}

impl From<Failed> for End {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl Watching {
    /// Pushes until it is over.
    pub(super) async fn run(self, device: Uuid) {
        let ended = loop {
            match self.watch(device).await {
                // Who subscribed to one device is told, and may subscribe again. Of a list nobody would.
                Err(End::Failed(failed))
                    if passes_by(failed.code) && self.form != Form::Subscription =>
                {
                    sleep(ASK_AGAIN).await;
                }
                ended => break ended,
            }
        };
        if let Err(End::Failed(Failed { code, message })) = ended {
            if code == ErrorCode::ItemNotFound && self.form != Form::Subscription {
                // The others are still there.
                return;
            }
            let code = told_as(code);
            let refused = match self.form {
                Form::Subscription => refused(self.id, code, &message),
                Form::OfMany { .. } => finding::not_found(self.id, code, &message, false),
            };
            drop(self.outgoing.send(refused.to_string()).await);
        }
    }

    async fn watch(&self, device: Uuid) -> Result<(), End> {
        let row = self.rest.find(self.tenant, device).await?;
        if let Subject::Past { keys, past } = &self.subject {
            let series = self.past(&row.0, keys, *past).await?;
            return self.push(&series).await;
        }
        let (mut told, mut marks) = (Told::default(), self.marks(&row, None).await?);
        self.begin(&row, &mut told).await?;
        loop {
            sleep(LOOK_PAUSE).await;
            let known = marks;
            marks = match self.marks(&row, Some(known)).await {
                Ok(marks) => marks,
                // Nobody leads the shard, or it is busy: what was missed is read then.
                Err(failed) if failed.code != ErrorCode::ItemNotFound => {
                    sleep(ASK_AGAIN).await;
                    continue;
                }
                Err(gone) => return Err(gone.into()),
            };
            if !self.may_differ(known, marks) {
                continue;
            }
            match self.look(&row, &mut told).await {
                Err(End::Failed(failed)) if failed.code == ErrorCode::Database => {
                    // What was not read is news again.
                    marks = known;
                    sleep(ASK_AGAIN).await;
                }
                other => other?,
            }
        }
    }

    /// What the device's values are by now; it is not found if it is another device.
    async fn marks(&self, row: &Row, known: Option<Marks>) -> Result<Marks, Failed> {
        let wait = if known.is_some() { NEWS_WAIT } else { Duration::ZERO };
        let marks = self.rest.door.registry.marks(self.tenant, &row.0, known, wait).await?;
        marks.filter(|marks| marks.born == row.1.born).ok_or_else(Failed::not_found)
    }

    /// Whether what is wanted may be something else.
    fn may_differ(&self, known: Marks, now: Marks) -> bool {
        match &self.subject {
            Subject::Series { .. } | Subject::Past { .. } => known.latest != now.latest,
            Subject::Attributes { scope, .. } => match scope {
                Some(Scope::Client) => of_scope(known, now, AttributeScope::Client),
                Some(Scope::Shared) => of_scope(known, now, AttributeScope::Shared),
                // Some of them nobody writes.
                Some(Scope::Server) | None => true,
            },
        }
    }

    /// Pushes what is there: once in any case.
    async fn begin(&self, row: &Row, told: &mut Told) -> Result<(), End> {
        let now = self.read(row).await?;
        let news = told.update(now);
        if let Subject::Series { keys, past: Some(past) } = &self.subject {
            let of: Vec<String> = match news.is_empty() || !keys.is_empty() {
                true => keys.clone(),
                false => told.keys().map(str::to_owned).collect(),
            };
            let series = self.past(&row.0, &of, *past).await?;
            return self.push(&series).await;
        }
        self.push(&pushes(news, Series::new())).await
    }

    /// Pushes what is new, if there is something.
    async fn look(&self, row: &Row, told: &mut Told) -> Result<(), End> {
        let mut after = told.clone();
        let news = after.update(self.read(row).await?);
        if news.is_empty() {
            return Ok(());
        }
        let missed = match between(&news) {
            Some((keys, start_ms, end_ms)) if self.has_history() => {
                let range = Range { start_ms, end_ms, interval_ms: 0 };
                let (aggregation, limit) = (Aggregation::None, SAMPLES_PER_PUSH_MAX);
                self.past(&row.0, &keys, Past { range, aggregation, limit }).await?
            }
            Some(_) | None => Series::new(),
        };
        *told = after;
        self.push(&pushes(news, missed)).await
    }

    fn has_history(&self) -> bool {
        match &self.subject {
            Subject::Series { .. } | Subject::Past { .. } => true,
            Subject::Attributes { .. } => false,
        }
    }

    /// What is wanted, as it is now.
    async fn read(&self, row: &Row) -> Result<Vec<(String, i64, Value)>, Failed> {
        match &self.subject {
            Subject::Attributes { scope, keys } => {
                let found = self.rest.attributes(self.tenant, row, *scope, keys).await?;
                let found = found.into_iter().map(|one| (one.key, one.updated_ms, one.value));
                Ok(found.collect())
            }
            Subject::Series { keys: wanted, .. } | Subject::Past { keys: wanted, .. } => {
                let found = self.rest.door.registry.latest(self.tenant, &row.0, keys(wanted));
                let found = found.await?.ok_or_else(Failed::not_found)?.values.into_iter();
                let found = found.map(|(key, ts, value)| (key.to_string(), ts, from_core(&value)));
                Ok(found.collect())
            }
        }
    }

    async fn past(&self, device: &Text, keys: &[String], past: Past) -> Result<Series, Failed> {
        if keys.is_empty() {
            return Ok(Series::new());
        }
        let Past { range, aggregation, limit } = past;
        let (keys, descending, strict) = (keys.to_vec(), true, false);
        let asked = History { keys, range, aggregation, limit, descending, strict };
        self.rest.series(self.tenant, device, &asked).await
    }

    async fn push(&self, series: &Series) -> Result<(), End> {
        let text = match self.form {
            Form::Subscription => push(self.id, series),
            Form::OfMany { .. } if series.is_empty() => return Ok(()),
            Form::OfMany { device, whole } => {
                let scope = match &self.subject {
                    Subject::Attributes { scope, .. } => Some(*scope),
                    Subject::Series { .. } | Subject::Past { .. } => None,
                };
                finding::news(self.id, &[finding::changed(device, scope, series, whole)])
            }
        };
        self.outgoing.send(text.to_string()).await.map_err(|_| End::Left)
    }
}

/// Whether a failure is over by itself: nobody leads a shard, or it is busy.
pub(super) fn passes_by(code: ErrorCode) -> bool {
    code == ErrorCode::Database || code == ErrorCode::TooManyRequests
}

/// What a subscription is told of a failure.
pub(super) fn told_as(code: ErrorCode) -> SubscriptionError {
    match code {
        ErrorCode::PermissionDenied | ErrorCode::Authentication => SubscriptionError::Unauthorized,
        ErrorCode::General | ErrorCode::Database => SubscriptionError::Internal,
        ErrorCode::TokenExpired
        | ErrorCode::CredentialsExpired
        | ErrorCode::InvalidArguments
        | ErrorCode::BadRequestParams
        | ErrorCode::ItemNotFound
        | ErrorCode::TooManyRequests
        | ErrorCode::TooManyUpdates
        | ErrorCode::VersionConflict
        | ErrorCode::SubscriptionViolation
        | ErrorCode::EntitiesLimit
        | ErrorCode::PasswordViolation => SubscriptionError::BadRequest,
    }
}

fn of_scope(known: Marks, now: Marks, scope: AttributeScope) -> bool {
    let at = AttributeScope::ALL.iter().position(|other| *other == scope);
    at.is_none_or(|at| known.attributes[at] != now.attributes[at])
}
