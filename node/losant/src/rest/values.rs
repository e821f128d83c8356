//! What is kept of a device, and what it is told.

use moorline_core::Text;
use moorline_dialects::losant::{
    command::Command,
    id::Id,
    presence,
    rest::{Error, Kind, Method, Resource, sse::Stream},
    state::{composite, read_strictly},
};
use moorline_service::registry::door::By;
use serde_json::Value;

use super::{About, Http, Reply, of_command, of_history, of_registry, streams::Feed};
use crate::{
    device::{Device, Slice, TooLarge, is_for_good},
    pass::Known,
};

/// States, commands and entries of a log of one answer, if nothing is said, as the vendor's API has it; and the most.
const LIMIT: usize = 1;
/// See [`LIMIT`].
const LIMIT_MAX: usize = 1_000;

impl Http {
    /// A device that is asked about, if whoever asks may have it.
    pub(super) async fn found(&self, about: &About<'_>, id: &Id) -> Result<Known, Error> {
        let known = self.door.known(about.tenant, id).await.map_err(of_registry)?;
        let known = known.ok_or(Kind::NotFound)?;
        about.who.may_have(&known)?;
        Ok(known)
    }

    pub(super) async fn of_device(
        &self,
        about: &About<'_>,
        resource: &Resource,
        id: &Id,
        body: &[u8],
    ) -> Result<Reply, Error> {
        let known = self.found(about, id).await?;
        let device = Device::new(about.tenant, &about.application, &known, By::Http);
        let (query, gets) = (about.query, about.method == Method::Get);
        let slice = Slice {
            since_ms: query.since_ms,
            most: query.limit.unwrap_or(LIMIT).min(LIMIT_MAX),
            descending: query.descending()?,
        };
        match resource {
            Resource::State(_) if gets => {
                let keys = known.about.attributes.keys().map(|key| Text::from(key.as_str()));
                let wanted = |key: &Text| {
                    query.attributes.is_empty()
                        || query.attributes.iter().any(|name| name == key.as_str())
                };
                let keys = keys.filter(wanted).collect();
                let states = self.door.states(&device, keys, slice).await;
                Reply::ok(Value::Array(states.map_err(of_history)?))
            }
            Resource::State(_) => self.report(&device, &known, body).await,
            Resource::Command(_) if gets => {
                let commands = self.door.commands(&device, slice).await;
                Reply::ok(Value::Array(commands.map_err(of_history)?))
            }
            Resource::Command(_) => {
                self.limited(about.tenant, id.text(), "command")?;
                let command = Command::read(body)?;
                self.door.command(&device, &known, &command).await.map_err(of_command)?;
                Reply::success()
            }
            Resource::CompositeState(_) => {
                let latest = self.door.registry.latest(about.tenant, id.text(), Vec::new()).await;
                let latest = latest.map_err(of_registry)?.ok_or(Kind::NotFound)?;
                let declared = |(key, ..): &(Text, i64, moorline_core::Value)| {
                    known.about.attributes.contains_key(key.as_str())
                };
                let values: Vec<_> = latest.values.into_iter().filter(declared).collect();
                Reply::ok(composite(&values))
            }
            Resource::Logs(_) => {
                let log = self.door.connections(&device, slice).await;
                Reply::ok(Value::Array(log.map_err(of_history)?))
            }
            Resource::StateStream(_) => self.stream(about, &device, Stream::States).await,
            Resource::CommandStream(_) => self.stream(about, &device, Stream::Commands).await,
            Resource::ConnectionStatus(_) => {
                self.limited(about.tenant, id.text(), "status")?;
                let change = presence::said(body, self.door.now_ms())?;
                self.door.note_connection(&device, &change).await.map_err(of_registry)?;
                Reply::success()
            }
            Resource::Application
            | Resource::Devices
            | Resource::CommandToMany
            | Resource::Device(_)
            | Resource::Publish
            | Resource::TimeSeries
            | Resource::LastValues
            | Resource::Passes(_)
            | Resource::Pass(..) => Err(Kind::NotFound.into()),
        }
    }

    async fn report(&self, device: &Device, known: &Known, body: &[u8]) -> Result<Reply, Error> {
        self.limited(device.tenant, device.id.text(), "state")?;
        let reports = read_strictly(body)?;
        let (all, now_ms) = (reports.len(), self.door.now_ms());
        let counted: Vec<_> = reports
            .into_iter()
            .filter_map(|report| report.counted(&known.about.attributes, now_ms))
            .collect();
        let ignored = all - counted.len();
        let some: Vec<_> = counted.into_iter().filter(|state| !state.values.is_empty()).collect();
        let states = &self.door.metrics.states;
        states.with_label_values(&["ignored"]).inc_by(ignored as u64);
        states.with_label_values(&["nothing_left"]).inc_by((all - ignored - some.len()) as u64);
        let count = some.len() as u64;
        let kept = self.door.keep_states(device, some).map_err(|TooLarge| Kind::TooLarge)?.await;
        let result = kept.as_ref().err().map_or("taken", |error| match is_for_good(error) {
            true => "refused",
            false => "failed",
        });
        states.with_label_values(&[result]).inc_by(count);
        kept.map_err(of_registry)?;
        Reply::success()
    }

    async fn stream(
        &self,
        about: &About<'_>,
        device: &Device,
        stream: Stream,
    ) -> Result<Reply, Error> {
        let how = (stream, about.query.keep_alive_s);
        let feed = Feed::begin(&self.door, device, how, &about.who).await;
        feed.map(|feed| Reply::Stream(Box::new(feed))).map_err(of_registry)
    }
}
