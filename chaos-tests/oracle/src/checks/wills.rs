//! Wills: who ends without a goodbye is heard of, once, and not before its delay is over; who says goodbye, or is back within the
//! delay, is not (docs/guarantees.md).
//!
//! Each attempt to connect is a life with a will of its own. Whether it must be seen follows from how the life ended and which
//! attempt of the same client came next. What a node may never have heard (a goodbye just before it was killed) may go either
//! way, and so may the will of an attempt whose CONNACK never came.

use std::collections::{BTreeMap, BTreeSet};

use super::copies::{Copy, without_reason};
use super::disturbed::{Disturbed, NOTICE_NS};
use super::{Rules, WILL_ONCE, WILLS, named};
use crate::history::{Event, Phase};
use crate::loads::{Ending, Load, Will, WillAct};
use crate::verdict::Check;

/// Clocks of a client and of the log differ by a round, and a delay begins when its node has noticed: less than this before its end
/// a will is not too early, and a return not surely in time.
const MARGIN_NS: u64 = 700_000_000;
/// A node that was struck so long before or after may not have heard, or not have passed on, what its client said.
const AROUND_NS: u64 = 5_000_000_000;

/// A node that was paused or cut off may take a CONNECT in long after its client gave it up, and it counts as a takeover then.
const STALE_NS: u64 = 30_000_000_000;

/// One attempt to connect, and what became of it.
#[derive(Debug, Clone)]
struct Life {
    number: u64,
    node: Option<u32>,
    clean: bool,
    delay_ns: u64,
    asked: (u64, u64),
    /// When the CONNACK came, in nanoseconds.
    began_ns: Option<u64>,
    /// How the attempt came out, and when.
    answered: Option<(u64, Phase)>,
    ended: Option<(u64, Ending)>,
}

/// What becomes of a will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Must,
    May,
    Never(&'static str),
}

/// Who watches for wills.
#[derive(Debug, Default)]
struct Watcher {
    since: Option<u64>,
    seen: BTreeMap<u64, Vec<Copy>>,
    closed_ns: BTreeMap<u64, u64>,
}

/// The history of wills, sorted out.
#[derive(Debug, Default)]
struct Wills {
    clients: BTreeMap<String, Vec<Life>>,
    watchers: BTreeMap<String, Watcher>,
    /// Watchers that came back and found no session.
    forgotten: Vec<(u64, String)>,
}

impl Wills {
    fn take(&mut self, event: &Event, will: &Will) {
        let number = will.life;
        match will.act {
            WillAct::Connect { clean, delay_ms } => {
                let lives = self.clients.entry(event.p.clone()).or_default();
                if event.ph == Phase::Invoke {
                    let (asked, delay_ns) = ((event.i, event.ns), delay_ms * 1_000_000);
                    let (node, began_ns, answered, ended) = (event.node, None, None, None);
                    lives.push(Life {
                        number,
                        node,
                        clean,
                        delay_ns,
                        asked,
                        began_ns,
                        answered,
                        ended,
                    });
                } else if let Some(life) = lives.iter_mut().rfind(|life| life.number == number) {
                    life.answered = Some((event.ns, event.ph));
                    life.began_ns = (event.ph == Phase::Ok).then_some(event.ns);
                }
            }
            WillAct::End { how } => {
                let lives = self.clients.entry(event.p.clone()).or_default();
                if let Some(life) = lives.iter_mut().rfind(|life| life.number == number) {
                    life.ended = Some((event.ns, how));
                }
            }
            WillAct::Open { present, .. } => {
                let watcher = self.watchers.entry(event.p.clone()).or_default();
                if watcher.since.is_some() && !present {
                    self.forgotten.push((event.i, event.p.clone()));
                }
            }
            WillAct::Granted => {
                let watcher = self.watchers.entry(event.p.clone()).or_default();
                watcher.since.get_or_insert(event.i);
            }
            WillAct::Seen { conn, dup } => {
                let watcher = self.watchers.entry(event.p.clone()).or_default();
                let copy = Copy { at: event.i, ns: event.ns, conn, dup, acked_ns: None };
                watcher.seen.entry(number).or_default().push(copy);
            }
            WillAct::Ack { conn } => {
                let watcher = self.watchers.entry(event.p.clone()).or_default();
                let copies = watcher.seen.entry(number).or_default().iter_mut().rev();
                for copy in copies.filter(|copy| copy.conn == conn).take(1) {
                    copy.acked_ns = Some(event.ns);
                }
            }
            WillAct::Close { conn } => {
                let watcher = self.watchers.entry(event.p.clone()).or_default();
                watcher.closed_ns.entry(conn).or_insert(event.ns);
            }
        }
    }
}

/// Looks for wills that were not published, that should not have been, and that were twice.
pub fn check(events: &[Event], rules: &Rules) -> Vec<Check> {
    let mut wills = Wills::default();
    for event in events {
        if let Some(Load::Will(will)) = Load::of(event) {
            wills.take(event, will);
        }
    }
    if wills.clients.is_empty() && wills.watchers.is_empty() {
        return Vec::new();
    }
    let disturbed = Disturbed::of(events);
    vec![fates(&wills, &disturbed), once(&wills, &disturbed, rules)]
}

impl Life {
    /// Whether nobody knows if it began.
    fn is_unknown(&self) -> bool {
        self.answered.is_none_or(|(_, ph)| ph == Phase::Info)
    }

    /// Whether it may have been taken in as late as then, though its client had given it up before.
    fn is_stale(&self, ns: u64) -> bool {
        self.is_unknown() && self.answered.is_none_or(|(at, _)| at.saturating_add(STALE_NS) > ns)
    }
}

/// What becomes of the will of the life at this place among all of its client.
fn fate(lives: &[Life], at: usize, disturbed: &Disturbed) -> Fate {
    let (before, life, later) = (&lives[..at], &lives[at], &lives[at + 1..]);
    if life.answered.is_some_and(|(_, ph)| ph == Phase::Fail) {
        return Fate::Never("it never connected");
    }
    let (Some(_), Some((ended_ns, how))) = (life.began_ns, life.ended) else { return Fate::May };
    let near = (ended_ns.saturating_sub(AROUND_NS), ended_ns + AROUND_NS);
    let calm = !disturbed.node(life.node, near.0, near.1);
    if let Ending::Goodbye { heard } = how {
        // While a shard elects, a CONNECT elsewhere may reach it before the goodbye does (docs/guarantees.md).
        let calm = calm && !disturbed.within(near.0, near.1);
        return if heard && calm { Fate::Never("it said goodbye") } else { Fate::May };
    }
    if life.delay_ns == 0 {
        return Fate::Must;
    }
    let next = later.iter().position(|life| life.began_ns.is_some());
    let between = later[..next.unwrap_or(later.len())].iter().filter(|one| one.is_unknown());
    let stale = before.iter().filter(|one| one.is_stale(ended_ns));
    // An attempt of which nothing was heard may have ended the session, or have saved it.
    let unknown: Vec<&Life> = between.chain(stale).collect();
    let (ends, saves) = (unknown.iter().any(|one| one.clean), unknown.iter().any(|one| !one.clean));
    match next.map(|at| &later[at]) {
        None if saves => Fate::May,
        None => Fate::Must,
        Some(next) if next.clean => {
            if saves {
                Fate::May
            } else {
                Fate::Must
            }
        }
        Some(next) => {
            let back = next.began_ns.is_some_and(|ns| ns + MARGIN_NS < ended_ns + life.delay_ns);
            let own = matches!(how, Ending::Reset | Ending::TakenOver);
            // Only of an end by the client's own hand it is known that the delay had not begun before.
            let sure = own && calm && back && !ends;
            if sure { Fate::Never("it was back within its delay") } else { Fate::May }
        }
    }
}

/// Why a will that was seen then was seen too early; none if it was not.
fn early(lives: &[Life], at: usize, ns: u64, disturbed: &Disturbed) -> Option<&'static str> {
    let (before, life, later) = (&lives[..at], &lives[at], &lives[at + 1..]);
    if ns < life.asked.1 {
        return Some("before its client had connected");
    }
    let calm = !disturbed.node(life.node, ns.saturating_sub(AROUND_NS), ns + NOTICE_NS);
    let (Some(_), Some((ended_ns, how)), true) = (life.began_ns, life.ended, calm) else {
        return None;
    };
    let next_ns = later.first().map_or(u64::MAX, |next| next.asked.1);
    if how != Ending::Lost && ns < ended_ns.min(next_ns) {
        return Some("while its client was connected");
    }
    let ended = before.iter().any(|one| one.clean && one.is_stale(ended_ns));
    let waits = how == Ending::Reset && ns < next_ns && !ended;
    (waits && ns + MARGIN_NS < ended_ns + life.delay_ns).then_some("before its delay was over")
}

fn fates(wills: &Wills, disturbed: &Disturbed) -> Check {
    let mut check = named(WILLS);
    let (mut must, mut never, mut may) = (0_u64, 0_u64, 0_u64);
    let mut known = BTreeSet::new();
    for (client, lives) in &wills.clients {
        for (at, life) in lives.iter().enumerate() {
            let number = life.number;
            known.insert(number);
            let fate = fate(lives, at, disturbed);
            match fate {
                Fate::Must => must += 1,
                Fate::May => may += 1,
                Fate::Never(_) => never += 1,
            }
            for (name, watcher) in &wills.watchers {
                let first = watcher.seen.get(&number).and_then(|copies| copies.first());
                let watched = watcher.since.is_some_and(|since| since < life.asked.0);
                match (fate, first) {
                    (Fate::Must, None) if watched => check.violated(|| {
                        let how = life.ended.map(|(_, how)| how);
                        format!(
                            "{name}: the will of life {number} of {client} never came ({how:?})"
                        )
                    }),
                    (Fate::Never(why), Some(copy)) => check.violated(|| {
                        format!(
                            "{name}: event {}: the will of life {number} of {client}: {why}",
                            copy.at
                        )
                    }),
                    (_, Some(copy)) => {
                        if let Some(when) = early(lives, at, copy.ns, disturbed) {
                            check.violated(|| {
                                format!("{name}: event {}: the will of life {number} of {client} {when}", copy.at)
                            });
                        }
                    }
                    (Fate::Must | Fate::May | Fate::Never(_), None) => {}
                }
            }
        }
    }
    for (name, watcher) in &wills.watchers {
        for number in watcher.seen.keys().filter(|number| !known.contains(number)) {
            check.violated(|| format!("{name}: a will that nobody has left: {number}"));
        }
    }
    for (at, name) in &wills.forgotten {
        check.violated(|| format!("event {at}: the session of {name} is gone"));
    }
    check.detail = format!("{must} must be seen, {never} must not, {may} may");
    check
}

fn once(wills: &Wills, disturbed: &Disturbed, rules: &Rules) -> Check {
    let mut check = named(WILL_ONCE);
    let (mut first, mut more) = (0_u64, 0_u64);
    for (name, watcher) in &wills.watchers {
        for (number, copies) in &watcher.seen {
            first += 1;
            for many in 2..=copies.len() {
                more += 1;
                let closed = |conn| watcher.closed_ns.get(&conn).copied();
                let copies = &copies[..many];
                if let Some(why) = without_reason(copies, closed, disturbed, rules) {
                    let at = copies[many - 1].at;
                    check.violated(|| {
                        format!(
                            "{name}: event {at}: copy {many} of the will of life {number}: {why}"
                        )
                    });
                }
            }
        }
    }
    check.detail = format!("{first} seen, {more} more copies");
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Fault;
    use crate::planted::Story;
    use Ending::{Goodbye, Lost, Reset, TakenOver};

    /// Watcher `w` on connection 9, and so much quiet that no fault is near.
    fn story() -> Story {
        let mut story = Story::new();
        story.will(Phase::Ok, "w", 0, WillAct::Open { conn: 9, present: false });
        story.will(Phase::Ok, "w", 0, WillAct::Granted).wait(20_000);
        story
    }

    fn connect(story: &mut Story, life: u64, clean: bool, delay_ms: u64, outcome: Phase) {
        let connect = WillAct::Connect { clean, delay_ms };
        story.will(Phase::Invoke, "c", life, connect).will(outcome, "c", life, connect);
    }

    fn end(story: &mut Story, life: u64, how: Ending) {
        story.will(Phase::Ok, "c", life, WillAct::End { how });
    }

    fn see(story: &mut Story, life: u64, dup: bool) {
        story.will(Phase::Ok, "w", life, WillAct::Seen { conn: 9, dup });
        story.will(Phase::Ok, "w", life, WillAct::Ack { conn: 9 });
    }

    /// A life with this delay that ends so; after a wait another attempt, if any; whether its will is then seen.
    fn found(delay_ms: u64, how: Ending, next: Option<(u64, bool, Phase)>, seen: bool) -> u64 {
        let mut story = story();
        connect(&mut story, 1, true, delay_ms, Phase::Ok);
        story.wait(1_000);
        end(&mut story, 1, how);
        if let Some((wait_ms, clean, outcome)) = next {
            story.wait(wait_ms);
            connect(&mut story, 2, clean, 0, outcome);
        }
        story.wait(30_000);
        if seen {
            see(&mut story, 1, false);
        }
        story.found(WILLS)
    }

    #[test]
    fn a_will_is_published_if_it_has_to_be_and_not_if_it_must_not() {
        let (back, late) = (Some((100, false, Phase::Ok)), Some((9_000, false, Phase::Ok)));
        let (anew, lost) = (Some((100, true, Phase::Ok)), Some((100, false, Phase::Info)));
        let goodbye = Goodbye { heard: true };
        #[rustfmt::skip]
        let table = [
            (0,     Reset,                    None, true,  0),
            (0,     Reset,                    None, false, 1),
            (0,     Lost,                     back, false, 1),
            (0,     goodbye,                  None, false, 0),
            (0,     goodbye,                  None, true,  1),
            (0,     Goodbye { heard: false }, None, true,  0),
            (4_000, Reset,                    None, false, 1),
            (4_000, Reset,                    None, true,  0),
            (4_000, Reset,                    back, false, 0),
            (4_000, Reset,                    back, true,  1),
            (4_000, Lost,                     back, true,  0), // the node may have noticed long before
            (4_000, Reset,                    late, true,  0),
            (4_000, Reset,                    late, false, 0),
            (4_000, Reset,                    anew, false, 1),
            (4_000, Reset,                    anew, true,  0),
            (4_000, Reset,                    lost, false, 0),
            (4_000, Reset,                    lost, true,  0),
            (4_000, TakenOver,                back, true,  1),
            (0,     TakenOver,                back, false, 1),
        ];
        for (at, (delay_ms, how, next, seen, violations)) in table.into_iter().enumerate() {
            assert_eq!(found(delay_ms, how, next, seen), violations, "line {at}");
        }
    }

    #[test]
    fn a_will_that_comes_too_early_or_from_nobody_is_found() {
        let mut story = story();
        connect(&mut story, 1, true, 4_000, Phase::Ok);
        end(&mut story, 1, Reset);
        story.wait(1_000);
        see(&mut story, 1, false);
        assert_eq!(story.found(WILLS), 1);
        connect(&mut story, 2, true, 0, Phase::Ok);
        see(&mut story, 2, false);
        story.wait(10_000);
        end(&mut story, 2, Reset);
        assert_eq!(story.found(WILLS), 2);
        see(&mut story, 77, false);
        assert_eq!(story.found(WILLS), 3);
        story.will(Phase::Ok, "w", 0, WillAct::Open { conn: 10, present: false });
        assert_eq!(story.found(WILLS), 4);
    }

    #[test]
    fn a_goodbye_to_a_node_that_is_killed_may_not_have_been_passed_on() {
        let mut story = story();
        connect(&mut story, 1, true, 0, Phase::Ok);
        end(&mut story, 1, Goodbye { heard: true });
        story.fault(Fault::Kill, 1);
        see(&mut story, 1, false);
        assert_eq!(story.found(WILLS), 0);
    }

    #[test]
    fn a_goodbye_while_another_node_is_away_may_come_too_late() {
        let mut story = story();
        connect(&mut story, 1, true, 0, Phase::Ok);
        story.fault(Fault::Cut, 9);
        end(&mut story, 1, Goodbye { heard: true });
        see(&mut story, 1, false);
        assert_eq!(story.found(WILLS), 0);
    }

    #[test]
    fn an_attempt_that_nobody_answered_promises_nothing() {
        for seen in [false, true] {
            let mut story = story();
            connect(&mut story, 1, true, 0, Phase::Info);
            if seen {
                see(&mut story, 1, false);
            }
            assert_eq!(story.found(WILLS), 0);
        }
    }

    #[test]
    fn an_attempt_that_was_given_up_may_still_take_the_session_over() {
        for (outcome, wait_ms, violations) in
            [(Phase::Info, 1_000, 0), (Phase::Info, 60_000, 1), (Phase::Fail, 1_000, 1)]
        {
            let mut story = story();
            connect(&mut story, 1, false, 4_000, outcome);
            story.wait(wait_ms);
            connect(&mut story, 2, false, 4_000, Phase::Ok);
            end(&mut story, 2, Lost);
            story.wait(30_000);
            assert_eq!(story.found(WILLS), violations, "{outcome:?} {wait_ms}");
        }
    }

    #[test]
    fn a_will_of_a_client_that_never_connected_is_found() {
        let mut story = story();
        connect(&mut story, 1, false, 0, Phase::Fail);
        assert_eq!(story.found(WILLS), 0);
        see(&mut story, 1, false);
        assert_eq!(story.found(WILLS), 1);
    }

    #[test]
    fn a_second_copy_needs_a_reason() {
        let mut story = story();
        connect(&mut story, 1, true, 0, Phase::Ok);
        end(&mut story, 1, Reset);
        see(&mut story, 1, false);
        see(&mut story, 1, true);
        assert_eq!((story.found(WILLS), story.found(WILL_ONCE)), (0, 1));
        story.wait(20_000);
        connect(&mut story, 2, true, 0, Phase::Ok);
        end(&mut story, 2, Reset);
        see(&mut story, 2, false);
        story.will(Phase::Ok, "w", 0, WillAct::Close { conn: 9 });
        see(&mut story, 2, true);
        assert_eq!(story.found(WILL_ONCE), 1);
        see(&mut story, 2, false);
        assert_eq!(story.found(WILL_ONCE), 2);
    }
}
