//! MQTT filters: what a subscription asks for. Only exact known filters are granted, since nothing else is ever sent.
//!
//! Responses (attributes, calls, packages, all that goes to gateways) are sent whether they were subscribed to or not;
//! [`Wanted::Attributes`] and [`Wanted::Calls`] are what a session must ask for.

use moorline_core::QoS;

use super::topics::{self, Form, OwnTopics, SessionKind};

/// What a subscription asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// To hear of changes of shared attributes, in this form; on the profile's own filter if there is no form.
    Attributes(Option<Form>),
    /// To be sent calls, in this form; those that wait are sent now.
    Calls(Form),
    /// Something that is sent anyway.
    Responses,
}

/// What a filter asks for; `None` is refused ([`super::mqtt::subscribe_refused`]) and the connection stays.
///
/// A device that is no gateway may subscribe to a gateway's filters and hears nothing there: SDKs end the connection and
/// come again if one is refused.
#[must_use]
pub fn subscribe(filter: &[u8], session: SessionKind, own: OwnTopics<'_>) -> Option<Wanted> {
    let filter = std::str::from_utf8(filter).ok()?;
    match (session, filter == topics::PROVISION_RESPONSE) {
        (SessionKind::Provisioning, asked) => return asked.then_some(Wanted::Responses),
        (SessionKind::Device | SessionKind::Gateway, true) => return None,
        (SessionKind::Device | SessionKind::Gateway, false) => {}
    }
    Some(match filter {
        "v1/devices/me/attributes" => Wanted::Attributes(Some(Form::V1)),
        "v2/a" => Wanted::Attributes(Some(Form::V2)),
        "v2/a/j" => Wanted::Attributes(Some(Form::V2Json)),
        "v2/a/p" => Wanted::Attributes(Some(Form::V2Protobuf)),
        "v1/devices/me/rpc/request/+" => Wanted::Calls(Form::V1),
        "v2/r/req/+" => Wanted::Calls(Form::V2),
        "v2/r/req/j/+" => Wanted::Calls(Form::V2Json),
        "v2/r/req/p/+" => Wanted::Calls(Form::V2Protobuf),
        "v1/devices/me/attributes/response/+"
        | "v1/devices/me/rpc/response/+"
        | "v2/a/res/+"
        | "v2/a/res/j/+"
        | "v2/a/res/p/+"
        | "v2/r/res/+"
        | "v2/r/res/j/+"
        | "v2/r/res/p/+"
        | "v2/fw/response/+/chunk/+"
        | "v2/fw/error"
        | "v2/sw/response/+/chunk/+"
        | "v2/sw/error"
        | topics::GATEWAY_ATTRIBUTES
        | topics::GATEWAY_ATTRIBUTES_RESPONSE
        | topics::GATEWAY_RPC => Wanted::Responses,
        own_filter if !own_filter.is_empty() && own_filter == own.attributes_subscribe => {
            Wanted::Attributes(None)
        }
        _ => return None,
    })
}

/// The QoS a subscription is granted: 1 at most.
#[must_use]
pub fn granted(asked: QoS) -> QoS {
    match asked {
        QoS::AtMostOnce => QoS::AtMostOnce,
        QoS::AtLeastOnce | QoS::ExactlyOnce => QoS::AtLeastOnce,
    }
}

/// The QoS something is sent with: what its filter was granted, or 1 if nobody subscribed to it.
#[must_use]
pub fn downlink_qos(granted: Option<QoS>) -> QoS {
    granted.unwrap_or(QoS::AtLeastOnce)
}
