//! Which events a webhook wants: kinds, channels, devices, labels, protocols; what the event stream of the API filters by, each as a list.
//! Pure.
//!
//! A list that is empty wants everything. An event has to fit one entry of each list that is not.

use std::collections::BTreeSet;

use moorline_machine::events::{Event, EventKind, NEWS};
use moorline_service::registry::{door::By, pattern::fits};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Entries of each list: each is tried with each event.
const ENTRIES_MAX: usize = 16;
/// Bytes of an entry.
const ENTRY_BYTES_MAX: usize = 255;
/// What may stand in front of a kind, as in the `type` of a CloudEvent.
const TYPE_PREFIX: &str = "moorline.";

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = WebhookFilter)]
pub struct Filter {
    /// `datapoint`, `message`, `system`, `presence`, `mail` or `state`; also `presence.offline`, `mail.acked`, ….
    pub types: Vec<String>,
    /// Channels (a schema's name, a topic), in which `*` stands for anything.
    pub channels: Vec<String>,
    /// Names of devices, in which `*` stands for anything.
    pub devices: Vec<String>,
    /// Labels of devices: those that have one of them. A device that is deleted has none.
    pub labels: BTreeSet<String>,
    /// By which protocol it came: `api`, `mqtt`, `http`, `moonlight` or `cluster`.
    pub protocols: Vec<String>,
}

/// A kind, and which of the cluster's own news.
fn kind_of(name: &str) -> Option<(EventKind, Option<&str>)> {
    let name = name.strip_prefix(TYPE_PREFIX).unwrap_or(name);
    let (name, what) = match name.split_once('.') {
        Some((name, what)) => (name, Some(what)),
        None => (name, None),
    };
    let kind = EventKind::ALL.into_iter().find(|kind| kind.name() == name)?;
    Some((kind, what))
}

impl Filter {
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(wrong) = self.types.iter().find(|name| kind_of(name).is_none()) {
            return Err(format!("filter.types: there is no such kind of event: {wrong:?}"));
        }
        let labels: Vec<_> = self.labels.iter().cloned().collect();
        let lists = [
            ("types", &self.types),
            ("channels", &self.channels),
            ("devices", &self.devices),
            ("labels", &labels),
            ("protocols", &self.protocols),
        ];
        let fits = |text: &String| (1..=ENTRY_BYTES_MAX).contains(&text.len());
        let is_wrong = |list: &Vec<String>| list.len() > ENTRIES_MAX || !list.iter().all(fits);
        match lists.into_iter().find(|(_, list)| is_wrong(list)) {
            Some((name, _)) => Err(format!(
                "filter.{name}: at most {ENTRIES_MAX}, of 1 to {ENTRY_BYTES_MAX} bytes"
            )),
            None => Ok(()),
        }
    }

    /// Whether it wants an event, as far as the event itself says that.
    pub(crate) fn admits(&self, event: &Event) -> bool {
        let of_kind = |name: &String| match kind_of(name) {
            Some((kind, None)) => kind == event.event.kind,
            Some((kind, Some(what))) => {
                kind == event.event.kind
                    && event.event.content_type == NEWS
                    && event.event.channel.as_str() == what
            }
            None => false,
        };
        let one =
            |list: &[String], is: &dyn Fn(&String) -> bool| list.is_empty() || list.iter().any(is);
        one(&self.types, &of_kind)
            && one(&self.channels, &|pattern| fits(pattern, event.event.channel.as_str()))
            && one(&self.devices, &|pattern| fits(pattern, event.device.as_str()))
            && one(&self.protocols, &|name| name == By::name(event.event.by))
    }

    /// Whether the labels of the event's device have to be looked up.
    pub(crate) fn asks_labels(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Whether it wants events of a device with these labels.
    pub(crate) fn labelled(&self, labels: &BTreeSet<String>) -> bool {
        self.labels.is_empty() || !self.labels.is_disjoint(labels)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::{Offset, UnixMillis};
    use moorline_machine::events::NewEvent;

    use super::*;

    fn event(kind: EventKind, channel: &str, content_type: u8) -> Event {
        Event {
            offset: Offset(1),
            at: UnixMillis(0),
            device: "pump-1".into(),
            born: None,
            event: NewEvent {
                kind,
                channel: channel.into(),
                content_type,
                body: Bytes::new(),
                by: 1,
            },
        }
    }

    fn filter(change: impl FnOnce(&mut Filter)) -> Filter {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    }

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_list_has_to_agree() {
        let env = event(EventKind::Datapoint, "env/room", 1);
        let offline = event(EventKind::Presence, "offline", NEWS);
        #[rustfmt::skip]
        let table = [
            (filter(|_| {}),                                                    true,  true),
            (filter(|f| f.types = list(&["datapoint"])),                        true,  false),
            (filter(|f| f.types = list(&["moorline.presence"])),                false, true),
            (filter(|f| f.types = list(&["presence.offline"])),                 false, true),
            (filter(|f| f.types = list(&["presence.online"])),                  false, false),
            (filter(|f| f.types = list(&["datapoint.env/room"])),               false, false),
            (filter(|f| f.types = list(&["mail", "datapoint"])),                true,  false),
            (filter(|f| f.channels = list(&["env/*"])),                         true,  false),
            (filter(|f| f.channels = list(&["env"])),                           false, false),
            (filter(|f| f.devices = list(&["valve-*", "pump-*"])),              true,  true),
            (filter(|f| f.devices = list(&["pump"])),                           false, false),
            (filter(|f| f.protocols = list(&["mqtt"])),                         true,  true),
            (filter(|f| f.protocols = list(&["http", "api"])),                  false, false),
            (filter(|f| { f.channels = list(&["env/*"]); f.devices = list(&["x"]); }), false, false),
        ];
        for (filter, of_env, of_offline) in table {
            assert_eq!(filter.check(), Ok(()), "{filter:?}");
            assert_eq!(
                (filter.admits(&env), filter.admits(&offline)),
                (of_env, of_offline),
                "{filter:?}"
            );
        }
    }

    #[test]
    fn one_label_is_enough() {
        let north = filter(|filter| filter.labels = ["north".to_owned(), "roof".to_owned()].into());
        assert!(north.asks_labels() && !Filter::default().asks_labels());
        for (labels, expected) in [(&["north", "x"][..], true), (&["south"], false), (&[], false)] {
            let labels = labels.iter().map(ToString::to_string).collect();
            assert_eq!(north.labelled(&labels), expected, "{labels:?}");
        }
        assert!(Filter::default().labelled(&BTreeSet::new()));
    }

    #[test]
    fn what_no_event_fits_is_refused() {
        let many = vec!["x".to_owned(); ENTRIES_MAX + 1];
        let long = "x".repeat(ENTRY_BYTES_MAX + 1);
        for wrong in [
            filter(|filter| filter.types = list(&["nothing"])),
            filter(|filter| filter.types = list(&[""])),
            filter(|filter| filter.channels = many.clone()),
            filter(|filter| filter.devices = list(&[&long])),
            filter(|filter| filter.labels = [String::new()].into()),
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
