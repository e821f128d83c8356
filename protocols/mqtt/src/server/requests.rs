//! SUBSCRIBE and UNSUBSCRIBE (3.8 to 3.11): what is ill-formed is refused here, the rest is asked of the service.

use std::num::NonZeroU32;

use moorline_core::{
    QoS, SubscriptionOptions,
    port::{Filter, Refusal, Token},
    topic,
};

use crate::{
    Now,
    codec::{
        Packet, PacketId, Reason, SubAck, Subscribe, SubscribeFilter, UnsubAck, Unsubscribe,
        Version,
    },
};

use super::{
    CloseReason, Config, Connection, Event, Limit,
    close::{Ending, platform_reason, refusal_text},
    inbound::over_limit,
};

/// Requests that the service has not answered.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// At most `Config::requests_max`, so a walk is fine.
    pending: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    token: Token,
    id: PacketId,
    /// One for each filter; `None` waits for the service.
    reasons: Vec<Option<Reason>>,
}

impl Requests {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    fn take(&mut self, token: Token) -> Option<Request> {
        let at = self.pending.iter().position(|request| request.token == token)?;
        Some(self.pending.remove(at))
    }
}

impl Request {
    /// Puts the service's answers where they were waited for.
    ///
    /// # Panics
    ///
    /// If there are not as many as were asked for: the answer would be another filter's.
    fn fill(self, answers: Vec<Reason>) -> Vec<Reason> {
        let mut answers = answers.into_iter();
        let reasons = self
            .reasons
            .into_iter()
            .map(|reason| reason.or_else(|| answers.next()).expect("an answer for each filter"))
            .collect();
        assert!(answers.next().is_none(), "more answers than filters");
        reasons
    }

    fn asked(&self) -> usize {
        self.reasons.iter().filter(|reason| reason.is_none()).count()
    }
}

/// What becomes of one filter before the service sees it.
enum Verdict {
    Ask,
    Refuse(Reason),
    End(Ending),
}

impl Connection {
    pub(super) fn on_subscribe(&mut self, now: Now, subscribe: Subscribe) {
        let (config, v5) = (self.config.clone(), self.peer.version.is_v5());
        let offered = &config.capabilities;
        if subscribe.subscription_id.is_some() && !offered.subscription_ids {
            let why = "subscription identifiers are not supported by this server";
            let reason = Reason::SubscriptionIdentifiersNotSupported;
            if config.stays_with_subscription_id {
                let reasons = vec![reason; subscribe.filters.len()];
                return self.send_suback(now, subscribe.id, reasons);
            }
            return self.fail(now, &Ending::of(CloseReason::NotSupported, reason, why));
        }
        let subscription_id = subscribe.subscription_id.and_then(NonZeroU32::new);
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        let mut filters = Vec::new();
        for filter in subscribe.filters {
            let over = over_limit(filter.filter.as_bytes(), &config);
            over.into_iter().for_each(|limit| self.reached(limit));
            match judge(&filter, v5, &config) {
                Verdict::End(ending) => return self.fail(now, &ending),
                Verdict::Refuse(reason) => reasons.push(Some(reason)),
                Verdict::Ask => {
                    reasons.push(None);
                    let options = SubscriptionOptions {
                        qos: filter.qos.min(offered.qos_max),
                        no_local: filter.no_local,
                        retain_as_published: filter.retain_as_published,
                        retain_handling: filter.retain_handling,
                        id: subscription_id,
                    };
                    filters.push(Filter { filter: filter.filter, options });
                }
            }
        }
        if filters.is_empty() {
            let reasons = reasons.into_iter().flatten().collect();
            return self.send_suback(now, subscribe.id, reasons);
        }
        let token = self.take_token();
        self.requests.pending.push(Request { token, id: subscribe.id, reasons });
        let user = subscribe.user;
        self.events.push_back(Event::Subscribe { token, filters, user });
    }

    pub(super) fn on_subscribed(
        &mut self,
        now: Now,
        token: Token,
        granted: Result<Vec<Result<QoS, Refusal>>, Refusal>,
    ) {
        let Some(request) = self.requests.take(token) else { return };
        let id = request.id;
        let is_quota = |granted: &Result<QoS, Refusal>| *granted == Err(Refusal::Quota);
        let granted = granted.unwrap_or_else(|refusal| vec![Err(refusal); request.asked()]);
        if granted.iter().any(is_quota) {
            self.reached(Limit::Subscriptions);
        }
        let answers = granted.into_iter().map(suback_of).collect();
        self.send_suback(now, id, request.fill(answers));
    }

    fn send_suback(&mut self, now: Now, id: PacketId, reasons: Vec<Reason>) {
        for reason in &reasons {
            if reason.is_error() {
                self.counters.filters_refused += 1;
            } else {
                self.counters.filters_granted += 1;
            }
        }
        if self.peer.version == Version::V31 && reasons.iter().any(|reason| reason.is_error()) {
            // A SUBACK of 3.1 can only grant. What was granted beside it stays so: the client subscribes again.
            let (closed, why) = (CloseReason::SubscribeRefused, "a filter was refused");
            return self.fail(now, &Ending::of(closed, Reason::UnspecifiedError, why));
        }
        self.send(now, &Packet::SubAck(SubAck { id, properties: None, reasons }));
    }

    pub(super) fn on_unsubscribe(&mut self, now: Now, unsubscribe: Unsubscribe) {
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        let mut filters = Vec::new();
        for filter in unsubscribe.filters {
            if topic::is_filter(filter.as_bytes())
                && over_limit(filter.as_bytes(), &self.config).is_none()
            {
                reasons.push(None);
                filters.push(filter);
            } else {
                reasons.push(Some(Reason::TopicFilterInvalid));
            }
        }
        if filters.is_empty() {
            let reasons = reasons.into_iter().flatten().collect();
            return self.send_unsuback(now, unsubscribe.id, reasons);
        }
        let token = self.take_token();
        self.requests.pending.push(Request { token, id: unsubscribe.id, reasons });
        self.events.push_back(Event::Unsubscribe { token, filters });
    }

    pub(super) fn on_unsubscribed(
        &mut self,
        now: Now,
        token: Token,
        existed: Result<Vec<bool>, Refusal>,
    ) {
        let Some(request) = self.requests.take(token) else { return };
        let answers = match existed {
            Ok(existed) => existed.into_iter().map(unsuback_of).collect(),
            Err(refusal) if self.peer.version.is_v5() => {
                let reason = match refusal {
                    Refusal::NotAuthorised => Reason::NotAuthorized,
                    Refusal::Busy
                    | Refusal::Unavailable
                    | Refusal::Quota
                    | Refusal::DiskFull
                    | Refusal::TooLarge
                    | Refusal::Topic
                    | Refusal::Payload => Reason::ImplementationSpecificError,
                    Refusal::Platform(reason) => platform_reason(reason),
                };
                vec![reason; request.asked()]
            }
            Err(refusal) => {
                // An UNSUBACK of 3.1.1 can only say yes.
                let (closed, reason) = (CloseReason::UnsubscribeRefused, Reason::UnspecifiedError);
                return self.fail(now, &Ending::of(closed, reason, refusal_text(refusal)));
            }
        };
        let id = request.id;
        self.send_unsuback(now, id, request.fill(answers));
    }

    fn send_unsuback(&mut self, now: Now, id: PacketId, reasons: Vec<Reason>) {
        self.send(now, &Packet::UnsubAck(UnsubAck { id, properties: None, reasons }));
    }
}

fn judge(filter: &SubscribeFilter, v5: bool, config: &Config) -> Verdict {
    let bytes = filter.filter.as_bytes();
    let offered = &config.capabilities;
    if bytes.starts_with(b"$share/")
        && let Some(verdict) = judge_shared(bytes, filter.no_local, v5, offered.shared)
    {
        return verdict;
    }
    if !topic::is_filter(bytes) || over_limit(bytes, config).is_some() {
        return Verdict::Refuse(Reason::TopicFilterInvalid);
    }
    if filter.no_local && !offered.no_local {
        // To grant it and then echo would break a promise that the client relies on.
        return Verdict::Refuse(Reason::ImplementationSpecificError);
    }
    Verdict::Ask
}

/// What is wrong with a shared subscription (4.8.2).
fn judge_shared(filter: &[u8], no_local: bool, v5: bool, offered: bool) -> Option<Verdict> {
    let is_well_formed = topic::share(filter).is_some_and(|(group, rest)| {
        !group.is_empty()
            && !group.iter().any(|byte| matches!(byte, b'+' | b'#'))
            && topic::is_filter(rest)
    });
    match (is_well_formed && !no_local, v5) {
        (true, _) if offered => None,
        (true, true) => {
            let why = "shared subscriptions are not supported by this server";
            let reason = Reason::SharedSubscriptionsNotSupported;
            Some(Verdict::End(Ending::of(CloseReason::NotSupported, reason, why)))
        }
        (false, true) => Some(Verdict::End(Ending::protocol(
            "an ill-formed shared subscription, or with No Local",
        ))),
        (_, false) => Some(Verdict::Refuse(Reason::TopicFilterInvalid)),
    }
}

fn suback_of(granted: Result<QoS, Refusal>) -> Reason {
    match granted {
        Ok(QoS::AtMostOnce) => Reason::Success,
        Ok(QoS::AtLeastOnce) => Reason::GrantedQoS1,
        Ok(QoS::ExactlyOnce) => Reason::GrantedQoS2,
        Err(Refusal::Busy | Refusal::Quota | Refusal::DiskFull) => Reason::QuotaExceeded,
        Err(Refusal::NotAuthorised) => Reason::NotAuthorized,
        Err(Refusal::TooLarge | Refusal::Topic | Refusal::Payload) => Reason::TopicFilterInvalid,
        Err(Refusal::Unavailable) => Reason::ImplementationSpecificError,
        Err(Refusal::Platform(reason)) => platform_reason(reason),
    }
}

fn unsuback_of(existed: bool) -> Reason {
    if existed { Reason::Success } else { Reason::NoSubscriptionExisted }
}
