//! `ENTITY_DATA` and `ENTITY_COUNT`: a page of devices with what is wanted of each, and then what changes of them.
//!
//! Which devices are on the page is looked at once, when it is asked for: who wants to know of others asks again.

use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use moorline_core::{TenantId, Text};
use moorline_dialects::thingsboard::{
    attributes::Scope,
    rest::{
        entities::PageQuery,
        errors::ErrorCode,
        finding::{self, DataCommand, Devices, Finding, Found, Wanted},
        telemetry::History,
        told::Series,
        websocket::Past,
    },
};
use moorline_service::registry::settings::{self, DeviceSettings};
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    super::{
        Failed, Rest,
        devices::{Row, device_id, shown},
    },
    watching::{Form, Subject, Watching, told_as},
};
use crate::{
    convert::{from_core, keys},
    marks,
};

/// Devices of a page that are read at once.
const AT_ONCE: usize = 16;
/// Scopes as they are asked for: all of them, or one.
const SCOPES: [Option<Scope>; 4] =
    [None, Some(Scope::Client), Some(Scope::Shared), Some(Scope::Server)];

/// How many subscriptions a command is, if its page is full.
pub(super) fn weight(command: &DataCommand, finding: &Finding) -> usize {
    let of_each = subjects(command).len();
    let size = usize::try_from(finding.page.size).unwrap_or(usize::MAX);
    size.saturating_mul(of_each).max(1)
}

/// What is watched of each device, and whether samples are told one by one.
fn subjects(command: &DataCommand) -> Vec<(Subject, bool)> {
    let mut all = Vec::new();
    let series = series_keys(&command.latest);
    if !series.is_empty() {
        all.push((Subject::Series { keys: series, past: None }, false));
    }
    for scope in SCOPES {
        let keys = attribute_keys(&command.latest, scope);
        if !keys.is_empty() {
            all.push((Subject::Attributes { scope, keys }, false));
        }
    }
    if let Some((keys, past)) = &command.series {
        all.push((Subject::Series { keys: keys.clone(), past: Some(*past) }, true));
    }
    all
}

fn series_keys(wanted: &[Wanted]) -> Vec<String> {
    let key = |one: &Wanted| match one {
        Wanted::Series(key) => Some(key.clone()),
        Wanted::Field(_) | Wanted::Attribute(..) => None,
    };
    wanted.iter().filter_map(key).collect()
}

fn attribute_keys(wanted: &[Wanted], of: Option<Scope>) -> Vec<String> {
    let key = |one: &Wanted| match one {
        Wanted::Attribute(scope, key) if *scope == of => Some(key.clone()),
        Wanted::Attribute(..) | Wanted::Field(_) | Wanted::Series(_) => None,
    };
    wanted.iter().filter_map(key).collect()
}

/// A command that is carried out.
pub(super) struct Many {
    pub(super) rest: Rest,
    pub(super) tenant: TenantId,
    pub(super) id: i64,
    pub(super) outgoing: mpsc::Sender<String>,
}

impl Many {
    /// Says how many there are.
    pub(super) async fn count(self, devices: Devices) {
        let page = PageQuery {
            size: 1,
            page: 0,
            text_search: None,
            sort_property: None,
            descending: false,
        };
        let said = match self.find(&devices, &page).await {
            Ok((_, total)) => finding::count(self.id, total),
            Err(Failed { code, message }) => {
                finding::not_found(self.id, told_as(code), &message, true)
            }
        };
        drop(self.outgoing.send(said.to_string()).await);
    }

    /// Shows a page, and pushes what changes until nobody wants it any more.
    pub(super) async fn run(self, command: DataCommand, found: Finding) {
        if let Err(Failed { code, message }) = self.look(&command, &found).await {
            let refused = finding::not_found(self.id, told_as(code), &message, false);
            drop(self.outgoing.send(refused.to_string()).await);
        }
    }

    async fn look(&self, command: &DataCommand, finding: &Finding) -> Result<(), Failed> {
        let (rows, total) = self.find(&finding.devices, &finding.page).await?;
        let ids: Vec<Uuid> =
            rows.iter().map(|(device, row)| device_id(self.tenant, device, row).id).collect();
        if command.finding.is_some() {
            let all = stream::iter(rows.clone().into_iter().zip(ids.clone()))
                .map(|(row, id)| self.shown(row, id, &finding.wanted));
            let all: Vec<_> = all.buffered(AT_ONCE).collect().await;
            let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
            let page = finding::page_found(self.id, &all, total, &finding.page);
            if self.outgoing.send(page.to_string()).await.is_err() {
                return Ok(());
            }
        }
        if let Some((keys, past)) = &command.past {
            let all = stream::iter(rows.into_iter().zip(ids.clone()))
                .map(|((device, _), id)| self.past_of(device, id, keys.clone(), *past));
            let all: Vec<_> = all.buffered(AT_ONCE).collect().await;
            let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
            let news = finding::news(self.id, &all);
            if self.outgoing.send(news.to_string()).await.is_err() {
                return Ok(());
            }
        }
        let mut watching = FuturesUnordered::new();
        for device in ids {
            for (subject, whole) in subjects(command) {
                let (rest, tenant, id) = (self.rest.clone(), self.tenant, self.id);
                let (form, outgoing) = (Form::OfMany { device, whole }, self.outgoing.clone());
                let one = Watching { rest, tenant, id, subject, form, outgoing };
                watching.push(one.run(device));
            }
        }
        while watching.next().await.is_some() {}
        Ok(())
    }

    async fn find(&self, devices: &Devices, page: &PageQuery) -> Result<(Vec<Row>, u64), Failed> {
        match devices {
            Devices::Ids(ids) => self.rest.of_ids(self.tenant, page, ids).await,
            Devices::Named { .. } => {
                // Those of ids are found by them.
                let fits =
                    |(device, _): &Row, kind: &str| devices.has(Uuid::nil(), device.as_str(), kind);
                self.rest.on_page(self.tenant, page, fits).await
            }
        }
    }

    /// A device with what is wanted of it. What it has not is an empty text of the time 0, as the original says it.
    async fn shown(&self, row: Row, id: Uuid, wanted: &[Wanted]) -> Result<Found, Failed> {
        let row = &row;
        let mut known: Vec<(Wanted, i64, String)> = Vec::new();
        let series = series_keys(wanted);
        if !series.is_empty() {
            let found = self.rest.door.registry.latest(self.tenant, &row.0, keys(&series)).await?;
            let found = found.map(|found| found.values).unwrap_or_default();
            known.extend(found.iter().map(|(key, ts_ms, value)| {
                (Wanted::Series(key.to_string()), *ts_ms, from_core(value).to_text())
            }));
        }
        for scope in SCOPES {
            let keys = attribute_keys(wanted, scope);
            if keys.is_empty() {
                continue;
            }
            let found = match self.rest.attributes(self.tenant, row, scope, &keys).await {
                // It went a moment ago.
                Err(failed) if failed.code == ErrorCode::ItemNotFound => Vec::new(),
                found => found?,
            };
            known.extend(found.into_iter().map(|one| {
                (Wanted::Attribute(scope, one.key), one.updated_ms, one.value.to_text())
            }));
        }
        let value = |one: &Wanted| {
            let found = known.iter().find(|(known, ..)| known == one).cloned();
            let nothing = || (one.clone(), 0, String::new());
            match one {
                Wanted::Field(name) => (one.clone(), 0, field(self.tenant, row, name)),
                Wanted::Series(_) | Wanted::Attribute(..) => found.unwrap_or_else(nothing),
            }
        };
        Ok(Found { id, latest: wanted.iter().map(value).collect(), series: Series::new() })
    }

    async fn past_of(
        &self,
        device: Text,
        id: Uuid,
        keys: Vec<String>,
        past: Past,
    ) -> Result<Found, Failed> {
        let Past { range, aggregation, limit } = past;
        let (descending, strict, latest) = (true, false, Vec::new());
        let asked = History { keys, range, aggregation, limit, descending, strict };
        let series = match self.rest.series(self.tenant, &device, &asked).await {
            // It went a moment ago.
            Err(failed) if failed.code == ErrorCode::ItemNotFound => Series::new(),
            series => series?,
        };
        Ok(Found { id, latest, series })
    }
}

/// A field of a device, as text.
fn field(tenant: TenantId, row: &Row, name: &str) -> String {
    let settings: DeviceSettings = settings::read(&row.1.settings);
    match name {
        "name" => row.0.to_string(),
        "type" => marks::kind(&settings).to_owned(),
        "label" => settings.labels.first().cloned().unwrap_or_default(),
        "createdTime" => row.1.created.0.to_string(),
        "entityType" => "DEVICE".to_owned(),
        "additionalInfo" => json!(shown(tenant, row).additional_info).to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use moorline_dialects::thingsboard::rest::aggregation::{Aggregation, Range};

    use super::*;

    #[test]
    fn a_command_weighs_as_much_as_it_watches() {
        let page = PageQuery {
            size: 20,
            page: 0,
            text_search: None,
            sort_property: None,
            descending: false,
        };
        let devices = Devices::Named { kinds: Vec::new(), name: String::new() };
        let finding = Finding { devices, page, wanted: Vec::new() };
        let series = |key: &str| Wanted::Series(key.to_owned());
        let attribute = |scope, key: &str| Wanted::Attribute(scope, key.to_owned());
        let mut command = DataCommand {
            finding: Some(finding.clone()),
            latest: Vec::new(),
            series: None,
            past: None,
        };
        assert_eq!(weight(&command, &finding), 1);
        command.latest = vec![series("t"), series("u"), Wanted::Field("name".to_owned())];
        assert_eq!(weight(&command, &finding), 20);
        command.latest.extend([attribute(None, "a"), attribute(Some(Scope::Client), "b")]);
        assert_eq!(weight(&command, &finding), 60);
        let range = Range { start_ms: 0, end_ms: 1, interval_ms: 0 };
        let past = Past { range, aggregation: Aggregation::None, limit: 1 };
        command.series = Some((vec!["t".to_owned()], past));
        assert_eq!(weight(&command, &finding), 80);
    }
}
