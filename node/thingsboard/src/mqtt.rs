//! A [`Port`] for each device: what its connection asks goes to one task.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use moorline_core::{
    ConnId, Message, Offset, ShareNumber, Text,
    port::{Close, Filter, Inbox, Link, Notice, Open, Opened, Port, Token},
};
use moorline_dialects::thingsboard::{connect::session_present, mqtt::Version};
use moorline_edge::{Begin, Identity};
use moorline_service::registry::{Watch, door::Guest};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{door::Door, session::Session};

/// What a connection may ask before it is answered: the edge's own windows are smaller for all but QoS 0.
const ASKS_MAX: usize = 2_048;

/// ThingsBoard's devices among the clients of an MQTT edge. Clones are the same.
#[derive(Debug, Clone)]
pub struct Mqtt(Door);

impl Mqtt {
    /// Behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self(door)
    }

    /// A device that proved who it is, if its tenant is one of ThingsBoard's: `begin` watches over its connection.
    ///
    /// # Errors
    ///
    /// `begin`, if it is not.
    pub fn identity(
        &self,
        guest: &Guest,
        version: moorline_mqtt::Version,
        begin: Begin,
    ) -> Result<Identity, Begin> {
        if !self.0.takes(guest.tenant) {
            return Err(begin);
        }
        let version = if version.is_v5() { Version::V5 } else { Version::V3 };
        let watch = self.0.registry.watch(guest.tenant, &guest.device);
        let device = Device {
            door: self.0.clone(),
            guest: guest.clone(),
            version,
            watch: Mutex::new(Some(watch)),
        };
        let (port, rules) = (Some(Arc::new(device) as Arc<dyn Port>), Arc::clone(&self.0.rules));
        let session = Some(guest.device.clone());
        let (rules, begin) = (Some(rules), Some(begin));
        Ok(Identity { session, port, rules, begin, ..Identity::of(guest.tenant) })
    }
}

/// A device that was let in, before its connection takes it up.
struct Device {
    door: Door,
    guest: Guest,
    version: Version,
    watch: Mutex<Option<Watch>>,
}

impl Port for Device {
    fn connect(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Link> {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A port is taken up once.
        if let Some(watch) = watch {
            watch.take_over();
            let session = Session::new(
                self.door.clone(),
                self.guest.clone(),
                self.version,
                Arc::clone(&inbox),
            );
            self.door.tasks.spawn(session.run(asked, watch));
        }
        Box::new(DeviceLink { asks, inbox })
    }
}

/// What a connection asks of its task.
pub(crate) enum Ask {
    Publish(Token, Message),
    Subscribe(Token, Vec<Filter>),
    Unsubscribe(Token, Vec<Text>),
}

struct DeviceLink {
    asks: mpsc::Sender<Ask>,
    inbox: Arc<dyn Inbox>,
}

impl fmt::Debug for DeviceLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceLink").finish_non_exhaustive()
    }
}

/// Tells a connection. One that takes nothing is ending anyway.
pub(crate) fn tell(inbox: &Arc<dyn Inbox>, notice: Notice) {
    inbox.push(notice).unwrap_or_default();
}

impl DeviceLink {
    fn ask(&self, ask: Ask) {
        match self.asks.try_send(ask) {
            Ok(()) => {}
            // It asks faster than it can be served, with QoS 0: nothing of it was promised.
            Err(TrySendError::Full(_)) => tell(&self.inbox, Notice::Lost),
            // The task has said why it ended.
            Err(TrySendError::Closed(_)) => {}
        }
    }
}

impl Link for DeviceLink {
    fn conn(&self) -> ConnId {
        ConnId(0)
    }

    fn open(&mut self, open: Open) {
        let present = session_present(open.clean_start);
        let opened = Opened { present, first: Offset(0), end: Offset(0) };
        tell(&self.inbox, Notice::Opened(Ok(opened)));
    }

    fn publish(&mut self, token: Token, message: Message) {
        self.ask(Ask::Publish(token, message));
    }

    /// What comes again is written again: telemetry of the same time is the same, and so are attributes.
    fn publish_once(&mut self, token: Token, _: u16, message: Message) {
        self.ask(Ask::Publish(token, message));
    }

    fn complete(&mut self, packet: u16) {
        tell(&self.inbox, Notice::Completed { packet, known: true });
    }

    fn release(&mut self, offsets: Vec<Offset>) {
        tell(&self.inbox, Notice::Released(offsets));
    }

    fn subscribe(&mut self, token: Token, filters: Vec<Filter>) {
        self.ask(Ask::Subscribe(token, filters));
    }

    fn unsubscribe(&mut self, token: Token, filters: Vec<Text>) {
        self.ask(Ask::Unsubscribe(token, filters));
    }

    fn settle(&mut self, _: &[Offset]) {}

    fn settle_shared(&mut self, _: &[(ShareNumber, Offset)]) {}

    fn retained_taken(&mut self) {}

    fn close(&mut self, _: Close) {}
}
