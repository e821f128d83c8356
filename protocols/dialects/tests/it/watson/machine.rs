//! One managed device on a bench: what is said to it and by it, as text.

use std::collections::BTreeSet;

use moorline_core::UnixMillis;
use moorline_dialects::watson::{
    identity::Who,
    management::{
        device::{Change, Device, Effect, Event, step},
        task::{Action, Outcome, Parameter, RequestId},
    },
    topics::{Message, publish},
};

use super::client;

/// What a task may take.
pub(crate) const TIMEOUT_MS: u64 = 60_000;

pub(crate) struct Bench {
    pub(crate) device: Device,
    pub(crate) now: UnixMillis,
}

pub(crate) fn id(number: u128) -> RequestId {
    RequestId::new(number << 4)
}

/// The id of an exchange of the request with this number.
pub(crate) fn exchange(number: u128, exchange: u8) -> String {
    let last = number << 4 | u128::from(exchange);
    format!("00000000-0000-0000-0000-{last:012x}")
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { device: Device::default(), now: UnixMillis(1_767_323_045_678) }
    }

    /// A device that supports everything.
    pub(crate) fn managed() -> Self {
        let mut bench = Self::new();
        let said = bench.say(
            "mgmt/manage",
            r#"{"d":{"supports":{"deviceActions":true,"firmwareActions":true,"bundle-1":true}},"reqId":"m"}"#,
        );
        assert_eq!(said, [r#"response {"rc":200,"message":"Done","reqId":"m"}"#]);
        bench
    }

    fn step(&mut self, event: Event<'_>) -> Vec<String> {
        let (device, effects) = step(std::mem::take(&mut self.device), self.now, event);
        self.device = device;
        effects.iter().filter_map(show).collect()
    }

    /// The device publishes to `iotdevice-1/{rest}`; a gateway would say the same for it.
    pub(crate) fn say(&mut self, rest: &str, payload: &str) -> Vec<String> {
        let own = publish(&client("d:abc123:t1:d1"), format!("iotdevice-1/{rest}").as_bytes());
        let through = format!("iotdevice-1/type/t1/id/d1/{rest}");
        let through = publish(&client("g:abc123:gw:g1"), through.as_bytes());
        assert_eq!(own, through);
        let Ok(Message::Management { device, address }) = own else { panic!("{rest}: {own:?}") };
        assert_eq!(client("d:abc123:t1:d1").who, Who::Device(device));
        let bundles = BTreeSet::from(["bundle-1".to_owned()]);
        let payload = payload.as_bytes();
        self.step(Event::Said { address: &address, payload, bundles: &bundles })
    }

    /// The device answers the exchange.
    pub(crate) fn answer(&mut self, exchange: &str, rc: u16, data: &str) -> Vec<String> {
        self.say("response", &format!(r#"{{"rc":{rc},"d":{data},"reqId":"{exchange}"}}"#))
    }

    pub(crate) fn notify(&mut self, firmware: &str) -> Vec<String> {
        let fields =
            format!(r#"{{"d":{{"fields":[{{"field":"mgmt.firmware","value":{firmware}}}]}}}}"#);
        self.say("notify", &fields)
    }

    pub(crate) fn ask(
        &mut self,
        number: u128,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Vec<String> {
        self.ask_again(number, action, parameters, false)
    }

    pub(crate) fn ask_again(
        &mut self,
        number: u128,
        action: &str,
        parameters: &[(&str, &str)],
        overrides: bool,
    ) -> Vec<String> {
        let action = Action::parse(action).unwrap();
        let parameters: Vec<Parameter> = parameters
            .iter()
            .map(|(name, value)| Parameter { name: (*name).to_owned(), value: (*value).into() })
            .collect();
        self.step(Event::Asked {
            id: id(number),
            action: &action,
            parameters: &parameters,
            timeout_ms: TIMEOUT_MS,
            overrides,
        })
    }

    pub(crate) fn call_off(&mut self, number: u128) -> Vec<String> {
        self.step(Event::Called { off: id(number) })
    }

    pub(crate) fn change(&mut self, change: Change) -> Vec<String> {
        self.step(Event::Changed(change))
    }

    pub(crate) fn pass(&mut self, ms: u64) -> Vec<String> {
        self.now = UnixMillis(self.now.0 + ms);
        self.step(Event::Tick)
    }
}

fn show(effect: &Effect) -> Option<String> {
    match effect {
        Effect::Send { address, payload } => {
            Some(format!("{address} {}", std::str::from_utf8(payload).unwrap()))
        }
        Effect::Moved { .. } => None,
        Effect::Ended { id, outcome } => {
            let last = &id.to_string()[30..35];
            let number = u128::from_str_radix(last, 16).unwrap();
            Some(match outcome {
                Outcome::Succeeded => format!("{number} succeeded"),
                Outcome::Failed { rc: Some(rc), message } => {
                    format!("{number} failed {rc}: {message}")
                }
                Outcome::Failed { rc: None, message } => format!("{number} failed: {message}"),
                Outcome::TimedOut => format!("{number} timed out"),
                Outcome::Cancelled => format!("{number} cancelled"),
            })
        }
    }
}
