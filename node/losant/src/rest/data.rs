//! What devices reported over a while, or last: questions about several devices at once.
//!
//! Invariant: **bounded**: so many devices for one question, and so many points, bytes and pages of all of them; so many questions of one
//! caller, and of an application at once. Who asks for more is told. Checked by the cluster tests (`losant_rest.rs`) and below.

use std::collections::BTreeMap;

use moorline_core::{Text, Value as Kept};
use moorline_dialects::losant::{
    data::{Last, Series},
    meant::Meant,
    rest::{Error, Kind},
    state,
};
use moorline_machine::{
    HistoryQuery,
    values::{POINTS_PER_QUESTION_MAX, Point},
};
use serde_json::{Value, json};

use super::{About, Http, Reply, of_registry};
use crate::{
    door::{Work, Working},
    pass::Known,
};

/// Devices of one question.
const DEVICES_MAX: usize = 100;
/// Points of all of them that are looked at.
const POINTS_MAX: usize = 100_000;
/// Bytes of their values.
const BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// What a value takes beside its own bytes and those of its name.
const VALUE_BYTES: usize = 32;
/// Pages of histories that are read: one looks at some thousand points, and may find none.
const PAGES_MAX: usize = 512;

/// How much of what was reported one question may still read.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    pages: usize,
    points: usize,
    bytes: usize,
}

impl Left {
    fn new() -> Self {
        Self { pages: PAGES_MAX, points: POINTS_MAX, bytes: BYTES_MAX }
    }

    /// Takes a page; [`None`] if it is too much.
    fn take(&mut self, points: &[Point]) -> Option<()> {
        let of = |(key, value): &(Text, Kept)| key.as_str().len() + value.len_bytes() + VALUE_BYTES;
        let bytes = points.iter().flat_map(|point| &point.values).map(of).sum();
        self.pages = self.pages.checked_sub(1)?;
        self.points = self.points.checked_sub(points.len())?;
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(())
    }
}

impl Http {
    async fn asked_about(
        &self,
        about: &About<'_>,
        meant: &Meant,
    ) -> Result<(Vec<Known>, Working), Error> {
        self.limited(about.tenant, &about.who.name(), "data")?;
        let place = self.door.may_work(about.tenant, Work::Question);
        let place = place.ok_or(Kind::TooManyRequests)?;
        let all = self.those_meant(about, meant).await?;
        if all.len() > DEVICES_MAX {
            let why = format!("{} devices are meant: at most {DEVICES_MAX}", all.len());
            return Err(Error::new(Kind::Validation, why));
        }
        Ok((all, place))
    }

    pub(super) async fn time_series(&self, about: &About<'_>, body: &[u8]) -> Result<Reply, Error> {
        let asked = Series::read(body, self.door.now_ms())?;
        let (mut devices, mut left) = (Vec::new(), Left::new());
        let (all, _place) = self.asked_about(about, &asked.meant).await?;
        for known in all {
            let values = self.values(about, &known, &asked, &mut left).await?;
            devices.push((known.id.to_string(), known.about.name, asked.points(values)));
        }
        Reply::ok(asked.answer(devices))
    }

    /// Values of a device with their times, the oldest first. All that is read is taken from what is `left`.
    async fn values(
        &self,
        about: &About<'_>,
        known: &Known,
        asked: &Series,
        left: &mut Left,
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
            left.take(&page.points).ok_or_else(|| {
                let why = format!(
                    "more than {POINTS_MAX} points, or {BYTES_MAX} bytes, or too much to look \
                     through: ask about fewer devices, or a shorter while"
                );
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
        let (all, _place) = self.asked_about(about, &asked.meant).await?;
        for known in all {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page(points: usize, text: usize) -> Vec<Point> {
        let value = || (Text::from("a"), Kept::Text(Text::from("x".repeat(text))));
        (0..points).map(|_| Point { ts_ms: 0, values: vec![value()] }).collect()
    }

    #[test]
    fn a_question_reads_so_many_points_bytes_and_pages() {
        let taken = |points: usize, text: usize| {
            let (mut left, page) = (Left::new(), page(points, text));
            (0..1_000).take_while(|_| left.take(&page).is_some()).count()
        };
        #[rustfmt::skip]
        let table = [
            // points of a page, bytes of their texts, pages that are read
            (1_000, 1,      100),
            (0,     0,      512),
            (100,   30_000, 5),
        ];
        for (points, text, pages) in table {
            assert_eq!(taken(points, text), pages, "{points} of {text} bytes");
        }
    }
}
