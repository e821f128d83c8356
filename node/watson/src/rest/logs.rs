//! When a device came, went and was not let in: its events of presence, among the newest of the stream that they are in, and its last
//! failures.
//!
//! Invariant: **bounded**: [`LOOKED_MAX`] events of the device's shard are looked at, [`PAGES_MAX`] pages at most, and [`ENTRIES_MAX`]
//! entries shown. Checked by the cluster tests (`watson_rest.rs`).

use std::{cmp::Reverse, collections::VecDeque, time::Duration};

use moorline_core::{Offset, UnixMillis};
use moorline_dialects::watson::{
    identity::DeviceName,
    rest::{error::Error, query::Query, response::ConnectionLogEntry},
};
use moorline_machine::events::EventKind;

use super::{Reply, Rest, Who, Wrong, states::client};
use crate::door::device_name;

/// Events that are looked at: a busy organisation's log is shorter.
const LOOKED_MAX: u64 = 20_000;
/// Pages that they are read in.
const PAGES_MAX: usize = 64;
/// Entries of an answer, the newest first.
const ENTRIES_MAX: usize = 100;
/// Behind everything: such a page is empty, and says where the stream ends.
const BEHIND: Offset = Offset(u64::MAX - 1);

/// Whose log is asked for.
fn asked(query: &Query) -> Result<DeviceName, Error> {
    let part = |name| query.filter(name).unwrap_or_default().as_bytes();
    let name = DeviceName::new(part("typeId"), part("deviceId"));
    name.ok_or(Error::Malformed("typeId and deviceId say no device"))
}

impl Rest {
    pub(super) async fn connection_log(&self, who: &Who, query: &Query) -> Result<Reply, Wrong> {
        let name = asked(query)?;
        let (registry, device) = (&self.judge.door.registry, device_name(&name));
        let record = registry.device(who.tenant, &device).await?.ok_or(Error::NotFound)?;
        let client = client(&who.org, &name, &record);
        let shards = registry.event_shards(who.tenant, Some(&device));
        let shard = shards.first().copied().ok_or(Error::Unavailable)?;
        let page =
            |after| registry.events(shard, who.tenant, after, Some(device.clone()), Duration::ZERO);
        let end = page(BEHIND).await?.tail.0.saturating_sub(1);
        let mut at = Offset(end.saturating_sub(LOOKED_MAX));
        let mut newest: VecDeque<(UnixMillis, ConnectionLogEntry)> = VecDeque::new();
        for _ in 0..PAGES_MAX {
            if at.0 >= end {
                break;
            }
            let page = page(at).await?;
            let of_it = page.events.iter().filter(|event| {
                event.event.kind == EventKind::Presence
                    && event.born.is_none_or(|born| born == record.born)
            });
            for event in of_it {
                let channel = event.event.channel.as_str();
                newest.push_front((event.at, ConnectionLogEntry::new(&client, channel, event.at)));
                newest.truncate(ENTRIES_MAX);
            }
            if page.upto <= at {
                break;
            }
            at = page.upto;
        }
        let failures = self.manager.failures(who.tenant, &name, &record).await?;
        let failed = failures.iter().map(|one| (one.at, ConnectionLogEntry::failed(&client, one)));
        let mut all: Vec<(UnixMillis, ConnectionLogEntry)> =
            newest.into_iter().chain(failed).collect();
        all.sort_by_key(|(at, _)| Reverse(*at));
        all.truncate(ENTRIES_MAX);
        let entries: Vec<ConnectionLogEntry> = all.into_iter().map(|(_, entry)| entry).collect();
        Ok(Reply::json(200, &entries))
    }
}
