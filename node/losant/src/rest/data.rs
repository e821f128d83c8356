//! What devices reported over a while, or last: questions about several devices at once.
//!
//! Invariant: **bounded**: so many devices, and so many points of all of them, for one question; who asks for more is told. Checked by
//! the cluster tests (`losant_rest.rs`).

use std::collections::BTreeMap;

use moorline_core::{Text, Value as Kept};
use moorline_dialects::losant::{
    data::{Last, Series},
    rest::{Error, Kind},
    state,
};
use moorline_machine::{HistoryQuery, values::POINTS_PER_QUESTION_MAX};
use serde_json::{Value, json};

use super::{About, Http, Reply, of_registry};
use crate::pass::Known;

/// Devices of one question.
const DEVICES_MAX: usize = 100;
/// Points of all of them that are looked at.
const POINTS_MAX: usize = 100_000;

impl Http {
    async fn asked_about(
        &self,
        about: &About<'_>,
        meant: &moorline_dialects::losant::meant::Meant,
    ) -> Result<Vec<Known>, Error> {
        let all = self.those_meant(about, meant).await?;
        if all.len() > DEVICES_MAX {
            let why = format!("{} devices are meant: at most {DEVICES_MAX}", all.len());
            return Err(Error::new(Kind::Validation, why));
        }
        Ok(all)
    }

    pub(super) async fn time_series(&self, about: &About<'_>, body: &[u8]) -> Result<Reply, Error> {
        let asked = Series::read(body, self.door.now_ms())?;
        let (mut devices, mut left) = (Vec::new(), POINTS_MAX);
        for known in self.asked_about(about, &asked.meant).await? {
            let values = self.values(about, &known, &asked, &mut left).await?;
            devices.push((known.id.to_string(), known.about.name, asked.points(values)));
        }
        Reply::ok(asked.answer(devices))
    }

    /// Values of a device with their times, the oldest first. Each of its points is taken from what is `left`.
    async fn values(
        &self,
        about: &About<'_>,
        known: &Known,
        asked: &Series,
        left: &mut usize,
    ) -> Result<Vec<(i64, Text, Kept)>, Error> {
        let wanted =
            |name: &&String| asked.attributes.is_empty() || asked.attributes.contains(name);
        let keys = known.about.attributes.keys().filter(wanted);
        let keys: Vec<_> = keys.map(|name| Text::from(name.as_str())).collect();
        let mut values = Vec::new();
        // No keys are all keys there.
        let mut next = (!keys.is_empty()).then_some(asked.start_ms);
        while let Some(from_ms) = next {
            let query = HistoryQuery {
                tenant: about.tenant,
                device: known.id.text().clone(),
                keys: keys.clone(),
                from_ms,
                to_ms: asked.end_ms,
                descending: false,
                points_max: u16::try_from(POINTS_PER_QUESTION_MAX).unwrap_or(u16::MAX),
            };
            let page = self.door.registry.history(query).await.map_err(of_registry)?;
            let Some(page) = page else { break };
            *left = left.checked_sub(page.points.len()).ok_or_else(|| {
                let why =
                    format!("more than {POINTS_MAX} points: ask for fewer, or a shorter while");
                Error::new(Kind::Validation, why)
            })?;
            for point in page.points {
                let of_point = |(key, value)| (point.ts_ms, key, value);
                values.extend(point.values.into_iter().map(of_point));
            }
            next = page.next;
        }
        Ok(values)
    }

    pub(super) async fn last_values(&self, about: &About<'_>, body: &[u8]) -> Result<Reply, Error> {
        let asked = Last::read(body)?;
        let mut found: BTreeMap<String, Value> = BTreeMap::new();
        for known in self.asked_about(about, &asked.meant).await? {
            if !known.about.attributes.contains_key(&asked.attribute) {
                continue;
            }
            let keys = vec![Text::from(asked.attribute.as_str())];
            let latest = self.door.registry.latest(about.tenant, known.id.text(), keys).await;
            let latest = latest.map_err(of_registry)?;
            let last = latest.and_then(|latest| latest.values.into_iter().next());
            if let Some((key, at_ms, value)) = last {
                found.insert(known.id.to_string(), state::shown(at_ms, &[(key, value)]));
            }
        }
        Reply::ok(json!(found))
    }
}
