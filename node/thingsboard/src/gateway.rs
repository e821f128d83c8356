//! What a gateway says for its devices, on its own connection.
//!
//! A publish is acknowledged when what it says of all its devices is written: they are of many shards.

use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join_all};
use moorline_core::{AttributeScope, Text};
use moorline_dialects::thingsboard::{
    claim::Claim,
    gateway::{
        self, AttributesRequest, DEVICE_DELETED_METHOD, DEVICE_TYPE_DEFAULT,
        DISCONNECT_RATE_LIMITED, DeviceTelemetry, Request,
    },
    json::Json,
    mqtt::{Outcome, Version},
    topics::{Form, GATEWAY_ATTRIBUTES, GATEWAY_ATTRIBUTES_RESPONSE, GATEWAY_DISCONNECT},
    values::Entries,
};
use moorline_machine::{
    ValueRefused,
    calls::{Deadline, NewCall},
};
use moorline_service::registry::RegistryError;

use crate::{
    children::{Came, ChildHeard, Looked},
    convert::keys,
    device::{Device, attributes_body, telemetry_body},
    limits::{Refusal, Who},
    outgoing,
    session::{Asked, Session},
};

/// How often the news of a deleted device are sent again that the gateway does not acknowledge: as of the vendor's calls.
const DELETED_RESENDS_MAX: u32 = 5;
/// How long they wait for a gateway that is away: as long as the vendor's.
const DELETED_WAIT_MS: u64 = 24 * 3_600 * 1_000;

impl Session {
    /// Does what a gateway asks; false at the end.
    pub(crate) async fn gateway(&mut self, asked: Asked, request: Request) -> bool {
        let Some(children) = &mut self.children else {
            return self.outcome(asked, Outcome::NotGateway);
        };
        if let Request::Disconnect { device } = &request {
            children.leave(device);
            return self.outcome(asked, Outcome::Done);
        }
        let Ok(limited) = self.limited(&request) else {
            return self.outcome(asked, Outcome::GatewayLimited);
        };
        let asked = asked.in_part(!limited.is_empty());
        let Some(request) = request.without(&limited) else {
            return self.outcome(asked, Outcome::Done);
        };
        let Some(children) = &mut self.children else {
            return self.outcome(asked, Outcome::NotGateway);
        };
        let kind = if let Request::Connect { device_type, .. } = &request {
            device_type.as_str()
        } else {
            DEVICE_TYPE_DEFAULT
        };
        let new = match children.come(&request.devices(), kind).await {
            Ok(Came::All(new)) => new,
            Ok(Came::TooMany) => return self.outcome(asked, Outcome::GatewayLimited),
            Ok(Came::NoName) => return self.outcome(asked, Outcome::Invalid),
            Err(_) => return self.outcome(asked, Outcome::Failed),
        };
        for child in new {
            self.send_calls(&child).await;
        }
        match request {
            Request::Telemetry(all) => self.children_telemetry(asked, all),
            Request::Attributes(all) => self.children_attributes(asked, all),
            Request::AttributesRequest(request) => {
                return self.child_attributes(asked, &request).await;
            }
            Request::CallReply { device, id, data } => {
                let child = self.children.as_ref().and_then(|children| children.get(&device));
                // It is disabled: nobody asks it anything.
                let Some(child) = child else { return self.outcome(asked, Outcome::Done) };
                self.write(asked, outgoing::answered(&child.device, id, data));
            }
            Request::Claim(all) => self.children_claims(asked, all),
            Request::Connect { .. } | Request::Disconnect { .. } => {
                return self.outcome(asked, Outcome::Done);
            }
        }
        true
    }

    /// Of which devices this says more than they may: they are cut off, and the gateway hears so, if it can. An error if the gateway itself,
    /// or its tenant, says too much.
    fn limited(&mut self, request: &Request) -> Result<Vec<String>, Refusal> {
        let mut limited = Vec::new();
        for (device, cost) in request.costs() {
            let Err(refusal) = self.device.child_admitted(device, cost) else { continue };
            match refusal.who {
                Who::GatewayDevice => {
                    self.cut_off(device, refusal.why.first);
                    limited.push(device.to_owned());
                }
                Who::Tenant | Who::Device | Who::Gateway | Who::Rest => {
                    return Err(refusal);
                }
            }
        }
        Ok(limited)
    }

    fn cut_off(&mut self, device: &str, first: bool) {
        let was_there = self.children.as_mut().is_some_and(|children| children.leave(device));
        if self.version == Version::V5 && (first || was_there) {
            let told = gateway::disconnected(device, DISCONNECT_RATE_LIMITED);
            self.say(GATEWAY_DISCONNECT, Bytes::from(told.to_string()));
        }
    }

    fn children_telemetry(&self, asked: Asked, all: Vec<DeviceTelemetry>) {
        let writes = all.into_iter().filter_map(|DeviceTelemetry { device, samples, .. }| {
            let child = self.children.as_ref()?.get(&device)?;
            let body = telemetry_body(None, &samples);
            Some(Box::pin(child.device.telemetry(samples, body)) as BoxFuture<'static, _>)
        });
        self.write_all(asked, writes.collect());
    }

    fn children_attributes(&self, asked: Asked, all: Vec<(String, Entries)>) {
        let writes = all.into_iter().filter_map(|(device, reported)| {
            let child = self.children.as_ref()?.get(&device)?;
            let body = attributes_body(None, &reported);
            Some(Box::pin(child.device.attributes(reported, body)) as BoxFuture<'static, _>)
        });
        self.write_all(asked, writes.collect());
    }

    fn children_claims(&self, asked: Asked, all: Vec<(String, Claim)>) {
        let writes = all.into_iter().filter_map(|(device, claim)| {
            let child = self.children.as_ref()?.get(&device)?;
            Some(Box::pin(child.device.claim(&claim)) as BoxFuture<'static, _>)
        });
        self.write_all(asked, writes.collect());
    }

    pub(crate) fn write_all(
        &self,
        asked: Asked,
        writes: Vec<BoxFuture<'static, Result<(), RegistryError>>>,
    ) {
        self.write(asked, async move {
            let all = try_join_all(writes).await.map(drop);
            all.map_err(|error| {
                // A child was deleted a moment ago: the gateway is to say it again, and makes it anew.
                let is_gone = error == RegistryError::Values(ValueRefused::DeviceGone);
                if is_gone { RegistryError::Unavailable } else { error }
            })
        });
    }

    async fn child_attributes(&mut self, asked: Asked, request: &AttributesRequest) -> bool {
        if !self.written().await {
            return false;
        }
        let child = self.children.as_ref().and_then(|children| children.get(&request.device));
        let scope = AttributeScope::from(request.scope);
        let found = match child {
            Some(child) => child.device.of_scope(scope, Some(keys(&request.keys))).await,
            // It is disabled.
            None => Ok(Entries::new()),
        };
        let Ok(found) = found else { return self.outcome(asked, Outcome::Failed) };
        let payload = self.payloads.down(Form::V1).write_gateway_found(request, &found);
        self.say(GATEWAY_ATTRIBUTES_RESPONSE, payload);
        self.outcome(asked, Outcome::Done)
    }

    /// Something was heard of a child: its gateway is told.
    pub(crate) async fn hear_of_child(&mut self, heard: ChildHeard) {
        let Some(children) = &mut self.children else { return };
        let (calls, ended) = heard.calls();
        let (child, news) = match children.look(heard).await {
            Looked::There(child, news) => (*child, news),
            Looked::Deleted(name) => return self.hear_of_deleted(&name),
            Looked::Gone => return,
        };
        if calls || ended && outgoing::goes_in_turn(&child) {
            self.send_calls(&child).await;
        }
        if let Some(news) = news {
            let name = &child.guest.device;
            if self.node.is_some() {
                return self.tell_changed(Some(name.as_str()), &news.changed.updated);
            }
            let down = self.payloads.down(Form::V1);
            let payload = down.write_gateway_changed(name.as_str(), &news.changed);
            self.say(GATEWAY_ATTRIBUTES, payload);
        }
    }
}

impl Session {
    /// A device was deleted: a gateway is told, a node has no word for it.
    fn hear_of_deleted(&mut self, name: &Text) {
        match &mut self.node {
            Some(node) => node.forget(name.as_str()),
            None => self.tell_deleted(name),
        }
    }

    /// Lets the gateway know that a device of its was deleted: by a call that is kept, so that it hears it also if it is just going.
    fn tell_deleted(&self, name: &Text) {
        let Device { door, guest } = self.device();
        let call = NewCall {
            id: rand::random(),
            method: Text::from(DEVICE_DELETED_METHOD),
            params: Bytes::from(Json::from(name.as_str()).to_string()),
            one_way: true,
            info: Bytes::new(),
            resends_max: DELETED_RESENDS_MAX,
            deadline: Deadline::After(DELETED_WAIT_MS),
            keep_ms: 0,
        };
        let made = door.registry.make_call(guest.tenant, &guest.device, Some(guest.born), call);
        self.device().spawn(async move { made.await.map(drop) });
    }
}
