//! Nodes of Sparkplug B: a connection whose device's profile asks for it. What the node says of itself is the device's, what it says of
//! its devices is theirs, as a gateway's; the other way go changes of shared attributes and calls, as commands.
//!
//! # Invariants
//!
//! - **Metrics that are attributes are shared ones**, as with the original, so that they can be set; who said one is not told it.
//! - **Changes of shared attributes are told who has a birth certificate**, and the last of several of a key. What changed before it
//!   connected is not, and what is under way when the connection ends may be lost: its next certificate says how it stands.
//! - **Who goes is `OFFLINE`**. When another connection took over, the node's own state is that one's to say, and its devices are gone as of
//!   the last word of this one: those that the other bears are there as of later. A node that is killed leaves all that to presence.
//!
//! Checked by the cluster tests (`thingsboard_sparkplug.rs`).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::{BoxFuture, try_join_all},
    stream,
};
use moorline_core::{
    AttributeScope, QoS, Text,
    port::{Ended, Notice},
};
use moorline_dialects::thingsboard::{
    meters::Cost,
    mqtt::Outcome,
    sparkplug::{
        commands,
        metrics::{Reading, Report},
        node::{self, Node, Said, Unsaid},
    },
    values::{Entries, Rules, data_points},
};
use moorline_edge::asks::tell;
use moorline_service::registry::RegistryError;
use tokio::sync::oneshot;
use tracing::debug;

use crate::{
    children::{Came, Children},
    device::{Device, attributes_body, telemetry_body},
    left::Left,
    limits::Who,
    outgoing,
    session::{Asked, Session},
};

/// Devices of which it is written together that they are gone.
const GONE_AT_ONCE: usize = 16;

type Write = BoxFuture<'static, Result<(), RegistryError>>;

impl Session {
    /// Begins to speak with a node; false at the end.
    pub(crate) async fn begin_node(
        &mut self,
        left: oneshot::Receiver<Left>,
    ) -> Result<bool, RegistryError> {
        // It has gone already.
        let Ok(left) = left.await else { return Ok(false) };
        let message = left.will.as_ref().map(|will| &will.message);
        let said = node::Left {
            clean: left.clean,
            topic: message.map_or("", |message| message.topic.as_str()),
            payload: message.map_or(&[][..], |message| &*message.payload),
            plain: message.is_some_and(|will| will.qos == QoS::AtLeastOnce && !will.retain),
        };
        let (profile, rules) = (Arc::clone(&self.profile), Rules::default());
        let attributes = profile.profile.sparkplug().unwrap_or_default();
        let by = Reading { attributes, now_ms: self.now_ms(), rules: &rules };
        let (node, samples) = match Node::connect(said, &by) {
            Ok(node) => node,
            Err(why) => {
                debug!(device = %self.device.guest.device, %why, "not a node of Sparkplug");
                let requests = &self.device.door.metrics.requests;
                requests.with_label_values(&["sparkplug", "invalid"]).inc();
                tell(&self.inbox, Notice::Ended(Ended::Misused));
                return Ok(false);
            }
        };
        // Before it can have a birth certificate: what changes from then on is told.
        self.told = self.device.news(None).await?.version;
        if !samples.is_empty() {
            let body = telemetry_body(None, &samples);
            self.device.spawn(self.device.telemetry(samples, body));
        }
        self.children = Some(Children::new(self.device.clone(), self.address.clone()));
        self.node = Some(Box::new(node));
        Ok(true)
    }

    /// Whether its profile still says that it is a node, or is none; otherwise it comes again as what it is.
    pub(crate) fn speaks_as_it_did(&self) -> bool {
        let as_it_did = self.profile.profile.sparkplug().is_some() == self.node.is_some();
        if !as_it_did {
            tell(&self.inbox, Notice::Ended(Ended::Revoked));
        }
        as_it_did
    }

    /// The node publishes something; false at the end.
    pub(crate) async fn node_says(&mut self, asked: Asked, topic: &Text, payload: &Bytes) -> bool {
        let (profile, rules, now_ms) = (Arc::clone(&self.profile), Rules::default(), self.now_ms());
        let attributes = profile.profile.sparkplug().unwrap_or_default();
        let by = Reading { attributes, now_ms, rules: &rules };
        self.said_ms = now_ms;
        let Some(node) = &mut self.node else {
            return self.outcome(asked, Outcome::UnknownTopic);
        };
        let said = node.read(topic.as_bytes(), payload, &by);
        if let Some(command) = node.rebirth(now_ms) {
            self.say(&command.topic, command.payload);
        }
        match said {
            Err(Unsaid::Topic) => self.outcome(asked, Outcome::UnknownTopic),
            Err(Unsaid::Unborn) => self.outcome(asked, Outcome::TooEarly),
            Err(Unsaid::Invalid(_)) => self.outcome(asked, Outcome::Invalid),
            Err(Unsaid::TooMuch) => self.outcome(asked, Outcome::GatewayLimited),
            Ok(Said::Born(report)) => self.node_reports(asked, report) && self.node_is_born().await,
            Ok(Said::Data(report)) => self.node_reports(asked, report),
            Ok(Said::Died) => {
                self.all_are_gone();
                self.outcome(asked, Outcome::Done)
            }
            Ok(Said::DeviceBorn(device, report)) => {
                self.node_device_reports(asked, &device, report, true).await
            }
            Ok(Said::DeviceData(device, report)) => {
                self.node_device_reports(asked, &device, report, false).await
            }
            Ok(Said::DeviceDied(device)) => self.node_device_is_gone(asked, &device),
        }
    }

    fn node_reports(&self, asked: Asked, report: Report) -> bool {
        if self.device.admitted(cost(&report)).is_err() {
            return self.outcome(asked, Outcome::RateLimited);
        }
        self.write_all(asked, writes(&self.device, report));
        true
    }

    /// The node can be told what has waited for its certificate.
    async fn node_is_born(&mut self) -> bool {
        self.tell_node().await;
        self.send_commands(&self.device.clone()).await;
        true
    }

    /// What a node says of a device, which is made if nobody has made it; false at the end.
    async fn node_device_reports(
        &mut self,
        asked: Asked,
        device: &str,
        report: Report,
        is_born: bool,
    ) -> bool {
        let (child, is_new) = match self.node_device(device, cost(&report)).await {
            Ok(Some(found)) => found,
            // It is disabled.
            Ok(None) => return self.outcome(asked, Outcome::Done),
            Err(outcome) => {
                // A name that no device can have is no better the next time: it is not asked for.
                if is_born
                    && outcome != Outcome::Invalid
                    && let Some(node) = &mut self.node
                {
                    node.forget(device);
                }
                return self.outcome(asked, outcome);
            }
        };
        self.write_all(asked, writes(&child, report));
        if is_born || is_new {
            self.send_commands(&child).await;
        }
        true
    }

    /// A device of the node that is there now, and whether it has just come; nobody if it is disabled.
    async fn node_device(
        &mut self,
        device: &str,
        cost: Cost,
    ) -> Result<Option<(Device, bool)>, Outcome> {
        // It would speak for itself by two ways.
        if self.device.guest.device.as_str() == device {
            return Err(Outcome::Invalid);
        }
        let admitted = self.device.child_admitted(device, cost);
        admitted.map_err(|refusal| match refusal.who {
            Who::GatewayDevice => Outcome::ChildLimited,
            Who::Tenant | Who::Device | Who::Gateway | Who::Rest => Outcome::GatewayLimited,
        })?;
        let kind = format!("{} device", self.kind);
        let children = self.children.as_mut().ok_or(Outcome::UnknownTopic)?;
        let new = match children.come(&[device], &kind).await {
            Ok(Came::All(new)) => new,
            Ok(Came::TooMany) => return Err(Outcome::GatewayLimited),
            Ok(Came::NoName) => return Err(Outcome::Invalid),
            Err(_) => return Err(Outcome::Failed),
        };
        Ok(children.get(device).map(|child| (child.device.clone(), !new.is_empty())))
    }

    fn node_device_is_gone(&mut self, asked: Asked, device: &str) -> bool {
        let now_ms = self.now_ms();
        let children = self.children.as_mut();
        let gone = children.and_then(|children| {
            let gone = children.get(device)?.device.clone();
            children.leave(device);
            Some(gone)
        });
        match gone {
            Some(gone) => {
                self.write(asked, offline(&gone, now_ms));
                true
            }
            None => self.outcome(asked, Outcome::Done),
        }
    }

    /// The connection is over.
    pub(crate) fn end_node(&mut self) {
        let is_there = self.node.as_ref().is_some_and(|node| node.is_born(None));
        if is_there && self.taken_over {
            // Which of them the other connection bears is not known here. The time is behind all that was said on this one, and before
            // what is said on that one: when this one hears of the other that may have said something already.
            let children = self.children.as_mut().map(Children::leave_all).unwrap_or_default();
            self.are_gone(children, self.said_ms.saturating_add(1));
        } else if is_there {
            self.all_are_gone();
        }
    }

    fn all_are_gone(&mut self) {
        let mut gone = vec![self.device.clone()];
        gone.extend(self.children.as_mut().map(Children::leave_all).unwrap_or_default());
        self.are_gone(gone, self.now_ms());
    }

    fn are_gone(&self, gone: Vec<Device>, at_ms: i64) {
        self.device.door.tasks.spawn(async move {
            let written =
                stream::iter(gone).for_each_concurrent(GONE_AT_ONCE, |device| async move {
                    // Presence says so in any case.
                    drop(offline(&device, at_ms).await);
                });
            written.await;
        });
    }

    // ---- what it is told

    /// Tells the node of its shared attributes, once it has a certificate.
    pub(crate) async fn tell_node(&mut self) {
        if !self.node.as_ref().is_some_and(|node| node.is_born(None)) {
            return;
        }
        // Asked for again after a while, if nobody can say now.
        let Ok(news) = self.device.news(Some(self.told)).await else { return };
        self.told = news.version;
        self.tell_changed(None, &news.changed.updated);
    }

    /// Tells the node of shared attributes, its own or a device's.
    pub(crate) fn tell_changed(&mut self, device: Option<&str>, updated: &Entries) {
        let now_ms = self.now_ms();
        let Some(node) = &mut self.node else { return };
        for command in node.changed(device, updated, now_ms) {
            self.say(&command.topic, command.payload);
        }
    }

    /// Sends calls that wait for the node, or for a device of it, once there is a certificate.
    pub(crate) async fn send_commands(&mut self, device: &Device) {
        let name = device.guest.device.as_str();
        let of_device = (self.device.guest.device.as_str() != name).then_some(name);
        if !self.node.as_ref().is_some_and(|node| node.is_born(of_device)) {
            return;
        }
        // Those that can't be told make room for others.
        while self.send_ready(device, of_device).await {}
    }

    /// Sends those that are ready; whether some could not be told, and have ended, so that others may be ready.
    async fn send_ready(&mut self, device: &Device, of_device: Option<&str>) -> bool {
        let Ok(ready) = self.outgoing.room(device).ready(device).await else {
            self.ask_again = true;
            return false;
        };
        let (now_ms, mut failed) = (self.now_ms(), Vec::new());
        for call in &ready {
            let said = outgoing::server_call(call);
            let Some(node) = &mut self.node else { return false };
            match node.call(of_device, &said, now_ms) {
                Ok(command) => {
                    // It answers nothing: that it has the command is the answer.
                    let answer = (!call.one_way).then(|| commands::done(&said.method));
                    let name = self.outgoing.sent_to_answer(device, call.number, answer);
                    self.deliver(&command.topic, command.payload, Some(name));
                }
                Err(why) => failed.push(outgoing::failed(device, call.number, why.answer())),
            }
        }
        let some_failed = !failed.is_empty();
        match try_join_all(failed).await {
            Ok(_) => some_failed,
            Err(_) => {
                self.ask_again = true;
                false
            }
        }
    }
}

fn cost(report: &Report) -> Cost {
    let data_points = u64::try_from(data_points(&report.telemetry)).unwrap_or(u64::MAX);
    if data_points == 0 { Cost::Message } else { Cost::Telemetry { data_points } }
}

fn writes(device: &Device, report: Report) -> Vec<Write> {
    let Report { telemetry, attributes } = report;
    let mut writes: Vec<Write> = Vec::new();
    if !telemetry.is_empty() {
        let body = telemetry_body(None, &telemetry);
        writes.push(Box::pin(device.telemetry(telemetry, body)));
    }
    if !attributes.is_empty() {
        let body = attributes_body(None, &attributes);
        writes.push(Box::pin(device.attributes_in(AttributeScope::Shared, attributes, body)));
    }
    writes
}

/// Writes that a device is gone. It is on its way when this returns.
fn offline(
    device: &Device,
    now_ms: i64,
) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
    let samples = vec![node::gone(now_ms)];
    let body = telemetry_body(None, &samples);
    device.telemetry(samples, body)
}
