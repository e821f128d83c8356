//! Which devices a query means: those that it names, as far as its `keyFilters` let them pass.
//!
//! ```text
//!   rows of the tenant ─► names and types ─► fields ─► values, asked for device by device ─► the page
//! ```
//!
//! # Invariants
//!
//! - **Nothing is asked of a device that is left out by what its row says.**
//! - **Bounded**: the values of [`LOOKED_AT_MAX`] devices at most are looked at for one list. Checked by this file's tests.

use futures_util::{StreamExt, stream};
use moorline_core::TenantId;
use moorline_dialects::thingsboard::{
    attributes::Scope,
    rest::{
        entities::PageQuery,
        errors::ErrorCode,
        filtering::KeyFilter,
        finding::{Devices, Sought, Wanted},
    },
    values::Value,
};
use moorline_service::registry::settings::{self, DeviceSettings};
use serde_json::json;
use uuid::Uuid;

use super::super::{
    Failed, Rest,
    devices::{FOUND_AT_ONCE, Row, Window, shown},
    telemetry::ACTIVE,
};
use crate::{
    convert::{from_core, keys},
    marks,
};

/// Devices whose values are looked at for one list: each is a question or more to its shard.
const LOOKED_AT_MAX: usize = 10_000;
/// Scopes as they are asked for: all of them, or one.
pub(super) const SCOPES: [Option<Scope>; 4] =
    [None, Some(Scope::Client), Some(Scope::Shared), Some(Scope::Server)];

/// Values of a device, of which time, by what was wanted.
type Known = Vec<(Wanted, i64, Value)>;

/// Keys of latest values.
pub(super) fn series_keys(wanted: &[Wanted]) -> Vec<String> {
    let key = |one: &Wanted| match one {
        Wanted::Series(key) => Some(key.clone()),
        Wanted::Field(_) | Wanted::Attribute(..) => None,
    };
    wanted.iter().filter_map(key).collect()
}

/// Keys of attributes that are looked for so.
pub(super) fn attribute_keys(wanted: &[Wanted], of: Option<Scope>) -> Vec<String> {
    let key = |one: &Wanted| match one {
        Wanted::Attribute(scope, key) if *scope == of => Some(key.clone()),
        Wanted::Attribute(..) | Wanted::Field(_) | Wanted::Series(_) => None,
    };
    wanted.iter().filter_map(key).collect()
}

/// The devices on a page of those that are meant, and how many are.
pub(super) async fn find(
    rest: &Rest,
    tenant: TenantId,
    sought: &Sought,
    page: &PageQuery,
) -> Result<(Vec<Row>, u64), Failed> {
    let (mut window, mut sieve) = (Window::of(page), Sieve::new(rest, tenant, &sought.filters));
    if let Devices::Ids(ids) = &sought.devices {
        let asked = stream::iter(ids.clone()).map(|id| rest.find(tenant, id));
        let mut rows = Vec::new();
        for found in asked.buffered(FOUND_AT_ONCE).collect::<Vec<_>>().await {
            match found {
                Ok(row) => rows.push(row),
                Err(failed) if failed.code == ErrorCode::ItemNotFound => {}
                Err(failed) => return Err(failed),
            }
        }
        rows.retain(|row| Window::wants(page, row, |_, _| true));
        sieve.sift(rows).await?.into_iter().try_for_each(|row| window.add(row))?;
    } else {
        let mut after = None;
        loop {
            let (mut rows, next) = rest.some(tenant, after).await?;
            // Those of ids are found by them.
            let fits =
                |row: &Row, kind: &str| sought.devices.has(Uuid::nil(), row.0.as_str(), kind);
            rows.retain(|row| Window::wants(page, row, fits));
            sieve.sift(rows).await?.into_iter().try_for_each(|row| window.add(row))?;
            let Some(next) = next else { break };
            after = Some(next);
        }
    }
    Ok(window.page(page))
}

/// Lets devices pass.
struct Sieve<'a> {
    rest: &'a Rest,
    tenant: TenantId,
    /// Of fields, which a row says.
    of_fields: Vec<&'a KeyFilter>,
    /// Of values, which are asked for.
    of_values: Vec<&'a KeyFilter>,
    /// What is asked for.
    wanted: Vec<Wanted>,
    looked_at: usize,
}

impl<'a> Sieve<'a> {
    fn new(rest: &'a Rest, tenant: TenantId, filters: &'a [KeyFilter]) -> Self {
        let (of_fields, of_values): (Vec<_>, Vec<_>) =
            filters.iter().partition(|filter| matches!(filter.key, Wanted::Field(_)));
        let mut wanted: Vec<Wanted> = Vec::new();
        for filter in &of_values {
            if !wanted.contains(&filter.key) {
                wanted.push(filter.key.clone());
            }
        }
        Self { rest, tenant, of_fields, of_values, wanted, looked_at: 0 }
    }

    /// Those of some devices that pass, in their order.
    async fn sift(&mut self, mut rows: Vec<Row>) -> Result<Vec<Row>, Failed> {
        if !self.of_fields.is_empty() {
            rows.retain(|row| {
                let passes = |filter: &&KeyFilter| {
                    let (_, name) = filter.key.name();
                    filter.passes(field(self.tenant, row, name).as_ref())
                };
                self.of_fields.iter().all(passes)
            });
        }
        if self.of_values.is_empty() {
            return Ok(rows);
        }
        self.looked_at = counted(self.looked_at, rows.len())?;
        let (rest, tenant, wanted) = (self.rest, self.tenant, &self.wanted);
        let asked = stream::iter(rows).map(|row| async move {
            let known = values_of(rest, tenant, &row, wanted).await?;
            Ok::<_, Failed>((row, known))
        });
        let mut left = Vec::new();
        let mut asked = std::pin::pin!(asked.buffered(FOUND_AT_ONCE));
        while let Some(found) = asked.next().await {
            let (row, known) = found?;
            let passes = |filter: &&KeyFilter| filter.passes(said(&known, &filter.key).as_ref());
            if self.of_values.iter().all(passes) {
                left.push(row);
            }
        }
        Ok(left)
    }
}

fn counted(before: usize, more: usize) -> Result<usize, Failed> {
    let now = before.saturating_add(more);
    if now > LOOKED_AT_MAX {
        let why = format!(
            "keyFilters: values of at most {LOOKED_AT_MAX} devices are looked at: name fewer, by types or names"
        );
        return Err(Failed::new(ErrorCode::BadRequestParams, why));
    }
    Ok(now)
}

/// What a device says under a key. One that was never heard from is not active.
fn said(known: &Known, key: &Wanted) -> Option<Value> {
    let found = known.iter().find(|(of, ..)| of == key).map(|(.., value)| value.clone());
    let is_active = match key {
        Wanted::Attribute(None | Some(Scope::Server), name) => name == ACTIVE,
        Wanted::Attribute(Some(Scope::Client | Scope::Shared), _)
        | Wanted::Field(_)
        | Wanted::Series(_) => false,
    };
    found.or(is_active.then_some(Value::Bool(false)))
}

/// What is wanted of a device, as far as it is there; fields are not among it.
pub(super) async fn values_of(
    rest: &Rest,
    tenant: TenantId,
    row: &Row,
    wanted: &[Wanted],
) -> Result<Known, Failed> {
    let (mut known, series) = (Known::new(), series_keys(wanted));
    if !series.is_empty() {
        let found = rest.door.registry.latest(tenant, &row.0, keys(&series)).await?;
        let found = found.map(|found| found.values).unwrap_or_default();
        known.extend(found.iter().map(|(key, ts_ms, value)| {
            (Wanted::Series(key.to_string()), *ts_ms, from_core(value))
        }));
    }
    for scope in SCOPES {
        let keys = attribute_keys(wanted, scope);
        if keys.is_empty() {
            continue;
        }
        let found = match rest.attributes(tenant, row, scope, &keys).await {
            // It went a moment ago.
            Err(failed) if failed.code == ErrorCode::ItemNotFound => Vec::new(),
            found => found?,
        };
        known.extend(
            found
                .into_iter()
                .map(|one| (Wanted::Attribute(scope, one.key), one.updated_ms, one.value)),
        );
    }
    Ok(known)
}

/// A field of a device; `None`: it has none of that name.
pub(super) fn field(tenant: TenantId, row: &Row, name: &str) -> Option<Value> {
    let settings: DeviceSettings = settings::read(&row.1.settings);
    let text = match name {
        "name" => row.0.to_string(),
        "type" => marks::kind(&settings).to_owned(),
        "label" => return settings.labels.first().cloned().map(Value::Text),
        "createdTime" => return i64::try_from(row.1.created.0).ok().map(Value::Long),
        "entityType" => "DEVICE".to_owned(),
        "additionalInfo" => json!(shown(tenant, row).additional_info).to_string(),
        _ => return None,
    };
    Some(Value::Text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_looks_at_more_than_it_may() {
        assert_eq!(counted(LOOKED_AT_MAX - 1, 1).unwrap(), LOOKED_AT_MAX);
        let failed = counted(LOOKED_AT_MAX, 1).unwrap_err();
        assert_eq!(failed.code, ErrorCode::BadRequestParams);
        assert!(failed.message.contains("10000"), "{}", failed.message);
    }

    #[test]
    fn who_was_never_heard_from_is_not_active() {
        let active = |scope| Wanted::Attribute(scope, ACTIVE.to_owned());
        let no = Some(Value::Bool(false));
        assert_eq!(said(&Vec::new(), &active(Some(Scope::Server))), no);
        assert_eq!(said(&Vec::new(), &active(None)), no);
        assert_eq!(said(&Vec::new(), &active(Some(Scope::Shared))), None);
        let known = vec![(active(None), 1, Value::Bool(true))];
        assert_eq!(said(&known, &active(None)), Some(Value::Bool(true)));
    }
}
