//! Credentials that come and go. From the answer to a revocation on, no node lets anybody in with it, and nobody into a device
//! that is disabled or deleted; nobody else is turned away. Who is connected is turned out at once, which is `OUT_NS` here; if
//! news of it were lost with a node, its own node asks by itself within `RECHECK_NS` (`node/service`, `registry/watch.rs`).

use std::collections::BTreeMap;

use super::disturbed::Disturbed;
use super::{CREDENTIALS, TURNED_OUT, named};
use crate::history::{Event, Phase};
use crate::loads::{Churn, ChurnAct, Load};
use crate::verdict::Check;

/// How long "at once" may take on a machine that is busy, in nanoseconds.
const OUT_NS: u64 = 5_000_000_000;
/// The same where a node was not itself: a connection that heard nothing asks after a minute, and each of its questions may have to
/// wait for a leader.
const RECHECK_NS: u64 = 70_000_000_000;
/// A fault so long before may have left a node without news.
const BEFORE_NS: u64 = 5_000_000_000;

/// When something was asked and when it was answered, by event; not yet: as if it never were.
#[derive(Debug, Clone, Copy)]
struct Span {
    asked: u64,
    asked_ns: u64,
    done: u64,
    done_ns: u64,
}

impl Span {
    fn begun(event: &Event) -> Self {
        Self { asked: event.i, asked_ns: event.ns, done: u64::MAX, done_ns: u64::MAX }
    }

    fn end(&mut self, event: &Event) {
        if event.ph == Phase::Ok && self.done == u64::MAX {
            (self.done, self.done_ns) = (event.i, event.ns);
        }
    }
}

/// A login.
#[derive(Debug, Clone)]
struct Login {
    credential: String,
    node: Option<u32>,
    asked: u64,
    answered: Option<(u64, u64, Phase)>,
    served_ns: Option<u64>,
    closed_ns: Option<u64>,
}

/// What is known of a device.
#[derive(Debug, Default)]
struct Device {
    issued: BTreeMap<String, u64>,
    revoked: BTreeMap<String, Span>,
    deleted: Option<Span>,
    /// From a disabling to the enabling after it, if there was one.
    disabled: Vec<(Span, Option<Span>)>,
    logins: BTreeMap<u64, Login>,
}

impl Device {
    fn take(&mut self, event: &Event, act: &ChurnAct) {
        let begins = event.ph == Phase::Invoke;
        match act {
            ChurnAct::Change { .. } => {}
            ChurnAct::Issued { credential } => {
                self.issued.insert(credential.clone(), event.i);
            }
            ChurnAct::Revoke { credential: Some(credential) } => {
                let span = self.revoked.entry(credential.clone());
                span.or_insert_with(|| Span::begun(event)).end(event);
            }
            ChurnAct::Revoke { credential: None } => {
                self.deleted.get_or_insert_with(|| Span::begun(event)).end(event);
            }
            ChurnAct::Disable => {
                if begins && self.disabled.last().is_none_or(|(_, enabled)| enabled.is_some()) {
                    self.disabled.push((Span::begun(event), None));
                }
                if let Some((disabled, _)) = self.disabled.last_mut() {
                    disabled.end(event);
                }
            }
            ChurnAct::Enable => {
                if let Some((_, enabled)) = self.disabled.last_mut() {
                    enabled.get_or_insert_with(|| Span::begun(event)).end(event);
                }
            }
            ChurnAct::Login { conn, credential } => {
                if begins {
                    let credential = credential.clone();
                    let (node, asked) = (event.node, event.i);
                    let (answered, served_ns, closed_ns) = (None, None, None);
                    let login = Login { credential, node, asked, answered, served_ns, closed_ns };
                    self.logins.insert(*conn, login);
                } else if let Some(login) = self.logins.get_mut(conn) {
                    login.answered = Some((event.i, event.ns, event.ph));
                }
            }
            ChurnAct::Served { conn } => {
                if let Some(login) = self.logins.get_mut(conn) {
                    login.served_ns = Some(event.ns);
                }
            }
            ChurnAct::Close { conn } => {
                if let Some(login) = self.logins.get_mut(conn) {
                    login.closed_ns.get_or_insert(event.ns);
                }
            }
        }
    }

    /// Since which event, if any, nobody may be let in who asks with this credential then.
    fn out(&self, credential: &str, asked: u64, answered: u64) -> Option<u64> {
        let ended = [self.revoked.get(credential), self.deleted.as_ref()];
        let mut ended = ended.into_iter().flatten().map(|span| span.done);
        if let Some(done) = ended.find(|done| *done < asked) {
            return Some(done);
        }
        let off = |(disabled, enabled): &&(Span, Option<Span>)| {
            disabled.done < asked && enabled.is_none_or(|enabled| answered < enabled.asked)
        };
        self.disabled.iter().find(off).map(|(disabled, _)| disabled.done)
    }

    /// Whether whoever shows this credential must be let in, from one event to another.
    fn counts(&self, credential: &str, asked: u64, answered: u64) -> bool {
        let ends = [self.revoked.get(credential), self.deleted.as_ref()];
        let wanted = ends.into_iter().flatten().any(|span| span.asked < answered);
        let off = |(disabled, enabled): &(Span, Option<Span>)| {
            disabled.asked < answered && enabled.is_none_or(|enabled| enabled.done > asked)
        };
        let issued = self.issued.get(credential).is_some_and(|at| *at < asked);
        issued && !wanted && !self.disabled.iter().any(off)
    }

    /// When a connection with this credential lost its right, in nanoseconds, and until when that held.
    fn lost(&self, credential: &str) -> impl Iterator<Item = (u64, u64)> {
        let ends = [self.revoked.get(credential), self.deleted.as_ref()];
        let for_good = ends.into_iter().flatten().map(|span| (span.done, span.done_ns, u64::MAX));
        let for_now = self.disabled.iter().map(|(disabled, enabled)| {
            let until = enabled.map_or(u64::MAX, |enabled| enabled.asked_ns);
            (disabled.done, disabled.done_ns, until)
        });
        let all: Vec<_> = for_good.chain(for_now).collect();
        all.into_iter().filter(|(done, ..)| *done != u64::MAX).map(|(_, ns, until)| (ns, until))
    }
}

/// Looks for logins that came out wrong, and for connections that outlived their right.
pub fn check(events: &[Event]) -> Vec<Check> {
    let mut devices: BTreeMap<&str, Device> = BTreeMap::new();
    for event in events {
        if let Some(Load::Churn(Churn { device, act })) = Load::of(event) {
            devices.entry(device).or_default().take(event, act);
        }
    }
    let Some(last) = events.last().filter(|_| !devices.is_empty()) else { return Vec::new() };
    vec![logins(&devices), turned_out(&devices, &Disturbed::of(events), last.ns)]
}

fn logins(devices: &BTreeMap<&str, Device>) -> Check {
    let mut check = named(CREDENTIALS);
    let (mut let_in, mut refused, mut revoked, mut disabled) = (0_u64, 0_u64, 0, 0);
    for (name, device) in devices {
        revoked += device.revoked.len();
        disabled += device.disabled.len();
        for login in device.logins.values() {
            let Some((answered, _, ph)) = login.answered else { continue };
            let (asked, credential) = (login.asked, &login.credential);
            let node = login.node.unwrap_or(0);
            if ph == Phase::Ok {
                let_in += 1;
                if let Some(since) = device.out(credential, asked, answered) {
                    check.violated(|| format!("{name}: event {asked}: node {node} let credential {credential} in, out since {since}"));
                }
            }
            if ph == Phase::Fail {
                refused += 1;
                if device.counts(credential, asked, answered) {
                    check.violated(|| format!("{name}: event {asked}: node {node} turned credential {credential} away, which nobody wanted"));
                }
            }
        }
    }
    check.detail = format!(
        "{let_in} let in, {refused} turned away; {revoked} revoked, {disabled} times disabled"
    );
    check
}

fn turned_out(devices: &BTreeMap<&str, Device>, disturbed: &Disturbed, last_ns: u64) -> Check {
    let mut check = named(TURNED_OUT);
    let (mut stood, mut slowest) = (0_u64, 0);
    for (name, device) in devices {
        for (conn, login) in &device.logins {
            let Some((_, began_ns, Phase::Ok)) = login.answered else { continue };
            for (lost_ns, until_ns) in device.lost(&login.credential) {
                let from_ns = lost_ns.max(began_ns);
                let near = (from_ns.saturating_sub(BEFORE_NS), from_ns.saturating_add(OUT_NS));
                let patience = if disturbed.within(near.0, near.1) { RECHECK_NS } else { OUT_NS };
                let end_ns = from_ns.saturating_add(patience);
                let closed_ns = login.closed_ns.unwrap_or(u64::MAX);
                // It was over before.
                if closed_ns <= from_ns {
                    continue;
                }
                if closed_ns <= end_ns.min(until_ns) {
                    stood += 1;
                    slowest = slowest.max(closed_ns - from_ns);
                    continue;
                }
                // It had its right back before it was to be turned out, or the run ended.
                if until_ns <= end_ns || last_ns <= end_ns {
                    continue;
                }
                let node = login.node.unwrap_or(0);
                let served = login.served_ns.is_some_and(|ns| ns > end_ns);
                let how = if served { "and was served" } else { "though nothing came to it" };
                check.violated(|| {
                    format!(
                        "{name}: connection {conn} with credential {} stood at node {node} {:.1} s after it had lost its right, {how}",
                        login.credential,
                        (closed_ns.min(last_ns) - from_ns) as f64 / 1e9
                    )
                });
            }
        }
    }
    check.detail = format!("{stood} turned out, the slowest after {} ms", slowest / 1_000_000);
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Fault, Stage};
    use crate::planted::Story;
    use ChurnAct::{Close, Disable, Enable, Issued, Served};

    fn credential() -> String {
        "1".to_owned()
    }

    fn login(story: &mut Story, conn: u64, outcome: Phase) {
        let act = ChurnAct::Login { conn, credential: credential() };
        story.churn(Phase::Invoke, 1, act.clone()).churn(outcome, 1, act);
    }

    fn whole(story: &mut Story, act: &ChurnAct) {
        story.churn(Phase::Invoke, 1, act.clone()).churn(Phase::Ok, 1, act.clone());
    }

    fn revoke() -> ChurnAct {
        ChurnAct::Revoke { credential: Some(credential()) }
    }

    fn story() -> Story {
        let mut story = Story::new();
        story.wait(20_000).churn(Phase::Ok, 1, Issued { credential: credential() });
        story
    }

    #[test]
    fn who_is_let_in_without_a_right_is_found_and_who_is_turned_away_with_one() {
        type Tell = fn(&mut Story);
        #[rustfmt::skip]
        let table: [(Tell, Phase, u64); 12] = [
            (|_| (),                                                             Phase::Ok,   0),
            (|_| (),                                                             Phase::Fail, 1),
            (|story| whole(story, &revoke()),                                    Phase::Fail, 0),
            (|story| whole(story, &revoke()),                                    Phase::Ok,   1),
            (|story| whole(story, &ChurnAct::Revoke { credential: None }),       Phase::Ok,   1),
            (|story| { story.churn(Phase::Invoke, 1, revoke()); },               Phase::Ok,   0),
            (|story| { story.churn(Phase::Invoke, 1, revoke()); },               Phase::Fail, 0),
            (|story| whole(story, &Disable),                                     Phase::Ok,   1),
            (|story| whole(story, &Disable),                                     Phase::Fail, 0),
            (|story| { whole(story, &Disable); whole(story, &Enable); },         Phase::Ok,   0),
            (|story| { whole(story, &Disable); whole(story, &Enable); },         Phase::Fail, 1),
            (|story| { whole(story, &Disable); story.churn(Phase::Invoke, 1, Enable); }, Phase::Ok, 0),
        ];
        for (at, (tell, outcome, violations)) in table.into_iter().enumerate() {
            let mut story = story();
            tell(&mut story);
            login(&mut story, 5, outcome);
            assert_eq!(story.found(CREDENTIALS), violations, "line {at}");
        }
    }

    #[test]
    fn a_connection_that_outlives_its_right_is_found() {
        // When it closes after the revocation, if it does; whether a node was killed meanwhile.
        #[rustfmt::skip]
        let table = [
            (Some(1_000),  false, 0),
            (Some(9_000),  false, 1),
            (None,         false, 1),
            (Some(9_000),  true,  0),
            (Some(90_000), true,  1),
        ];
        for (at, (closes, killed, violations)) in table.into_iter().enumerate() {
            let mut story = story();
            login(&mut story, 5, Phase::Ok);
            whole(&mut story, &revoke());
            if killed {
                story.fault(Fault::Kill, 2).fault(Fault::Ready, 2);
            }
            if let Some(ms) = closes {
                story.wait(ms).churn(Phase::Ok, 1, Served { conn: 5 });
                story.churn(Phase::Ok, 1, Close { conn: 5 });
            }
            story.wait(200_000).mark(Stage::Draining);
            assert_eq!(story.found(TURNED_OUT), violations, "line {at}");
        }
    }

    #[test]
    fn a_device_that_is_enabled_again_in_time_need_not_have_been_turned_out() {
        for (ms, violations) in [(1_000, 0), (20_000, 1)] {
            let mut story = story();
            login(&mut story, 5, Phase::Ok);
            whole(&mut story, &Disable);
            story.wait(ms);
            whole(&mut story, &Enable);
            story.wait(200_000).mark(Stage::Draining);
            assert_eq!(story.found(TURNED_OUT), violations, "{ms}");
        }
    }
}
