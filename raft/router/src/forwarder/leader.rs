//! Where to send: what is believed about a shard's leader, and how soon to try again.
//!
//! The node's own replica usually knows, and says so the moment an election ends. Otherwise whoever was asked in vain
//! gives a hint; and when neither helps for long, every node is tried in turn.

use std::time::{Duration, Instant};

use moorline_core::NodeId;
use moorline_group::Role;

use super::Failure;

/// The first pause after a failure: an election takes 11 ms at best.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_millis(20);
/// Hints followed at once, one after the other. Beyond it nodes point at each other.
const HINTS_MAX: u32 = 3;
/// Failures in a row after which whoever is said to lead is not believed any more (about 300 ms).
const DOUBT_AFTER: u32 = 16;

#[derive(Debug)]
pub(super) struct Search {
    own: NodeId,
    /// The latest that was heard.
    role: Role,
    /// Where this attempt sends.
    target: Option<NodeId>,
    /// Whether the target has answered.
    confirmed: bool,
    /// Failures since the last success.
    failures: u32,
    /// Hints followed since the last success or pause.
    hints: u32,
    /// The next node to try when nobody knows.
    turn: usize,
    retry_at: Option<Instant>,
}

impl Search {
    pub(super) fn new(own: NodeId) -> Self {
        let role = Role::default();
        Self {
            own,
            role,
            target: None,
            confirmed: false,
            failures: 0,
            hints: 0,
            turn: 0,
            retry_at: None,
        }
    }

    /// Where to send now; `None` before [`retry_at`](Self::retry_at).
    pub(super) fn target(
        &mut self,
        now: Instant,
        nodes: &dyn Fn() -> Vec<NodeId>,
    ) -> Option<NodeId> {
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        if self.target.is_none() {
            self.target = self.choose(nodes);
        }
        if self.target.is_none() {
            self.pause(now);
        }
        self.target
    }

    fn choose(&mut self, nodes: &dyn Fn() -> Vec<NodeId>) -> Option<NodeId> {
        let doubted = self.failures >= DOUBT_AFTER && !self.failures.is_multiple_of(2);
        if let Some(leader) = self.role.leader
            && !doubted
        {
            return Some(leader);
        }
        if self.failures < DOUBT_AFTER {
            return None;
        }
        let mut nodes = nodes();
        nodes.sort_unstable();
        self.turn += 1;
        nodes.get(self.turn % nodes.len().max(1)).copied()
    }

    fn pause(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let doubled = BACKOFF_FIRST * 2_u32.pow(self.failures.min(4) - 1);
        self.retry_at = Some(now + doubled.min(BACKOFF_MAX));
        self.hints = 0;
    }

    /// The target did not take what was sent.
    pub(super) fn failed(&mut self, failure: Failure, now: Instant) {
        self.confirmed = false;
        let was = self.target;
        match failure {
            Failure::Busy => return self.pause(now),
            Failure::NotLeader { leader } => {
                self.target = leader.filter(|leader| Some(*leader) != was);
                if self.target.is_some() && self.hints < HINTS_MAX {
                    self.hints += 1;
                    self.retry_at = None;
                    return;
                }
            }
            Failure::NotTaken | Failure::Unknown => self.target = None,
        }
        self.pause(now);
    }

    /// The target answered: it leads.
    pub(super) fn confirm(&mut self) {
        self.confirmed = true;
        self.failures = 0;
        self.hints = 0;
        self.retry_at = None;
    }

    /// What is sent next has to find out again whether the target leads.
    pub(super) fn unconfirm(&mut self) {
        self.confirmed = false;
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Hears who leads. Whether what is under way has to be sent again, to somebody else.
    pub(super) fn heard(&mut self, role: Role) -> bool {
        if role.term < self.role.term {
            return false;
        }
        self.role = role;
        let Some(leader) = role.leader else { return false };
        if leader == self.own && !role.leading {
            // Elected, and not ready: it will say so.
            return false;
        }
        self.retry_at = None;
        self.hints = 0;
        let elsewhere = self.target.is_some_and(|target| target != leader);
        self.target = Some(leader);
        if elsewhere {
            self.confirmed = false;
        }
        elsewhere
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Who leads, for those who ask. Whoever answered last, unless the own replica knows of somebody else since: then that
    /// one, also if it is this node and not ready yet.
    pub(super) fn leader(&self) -> Role {
        match self.target {
            Some(target) if self.confirmed && self.role.leader.is_none_or(|of| of == target) => {
                let leading = target == self.own;
                Role { leader: Some(target), term: self.role.term, leading }
            }
            Some(_) | None => self.role,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: NodeId = NodeId(1);

    fn nodes() -> Vec<NodeId> {
        vec![NodeId(3), OWN, NodeId(2)]
    }

    fn role(leader: u64, term: u64) -> Role {
        let leader = Some(NodeId(leader)).filter(|leader| leader.0 != 0);
        Role { leader, term, leading: leader == Some(OWN) }
    }

    /// Fails until something is sent; the time it took.
    fn wait(search: &mut Search, now: &mut Instant) -> NodeId {
        for _ in 0..100 {
            match search.target(*now, &nodes) {
                Some(target) => return target,
                None => *now = search.retry_at().expect("it says when"),
            }
        }
        panic!("nothing is tried");
    }

    #[test]
    fn who_is_said_to_lead_is_sent_to() {
        let (mut search, now) = (Search::new(OWN), Instant::now());
        assert_eq!(search.target(now, &nodes), None, "an election is on");
        assert!(!search.heard(role(2, 1)));
        assert_eq!(search.target(now, &nodes), Some(NodeId(2)));
        search.confirm();
        assert!(search.heard(role(3, 2)), "what is under way goes to the new leader");
        assert_eq!(search.target(now, &nodes), Some(NodeId(3)));
        assert!(!search.heard(role(2, 1)), "old news");
        assert!(!search.heard(role(0, 3)), "an election has begun: the answer may still come");
        assert_eq!(search.target(now, &nodes), Some(NodeId(3)));
    }

    #[test]
    fn this_node_leads_when_it_says_that_it_is_ready() {
        let (mut search, now) = (Search::new(OWN), Instant::now());
        search.heard(Role { leading: false, ..role(1, 1) });
        search.heard(role(1, 1));
        assert_eq!(search.target(now, &nodes), Some(OWN));
    }

    #[test]
    fn an_elected_node_names_itself_and_not_the_one_before() {
        let (mut search, now) = (Search::new(OWN), Instant::now());
        search.heard(role(2, 1));
        search.target(now, &nodes).unwrap();
        search.confirm();
        search.heard(role(0, 2));
        assert_eq!(search.leader().leader, Some(NodeId(2)), "nobody else is known");
        search.heard(Role { leading: false, ..role(1, 2) });
        assert_eq!(search.leader().leader, Some(OWN), "the one before may hang");
        search.heard(role(1, 2));
        assert_eq!(search.leader(), role(1, 2));
    }

    #[test]
    fn a_hint_is_followed_at_once_but_not_in_circles() {
        let (mut search, now) = (Search::new(OWN), Instant::now());
        search.heard(role(2, 1));
        for turn in 0..HINTS_MAX {
            let hint = NodeId(if turn % 2 == 0 { 3 } else { 2 });
            search.target(now, &nodes).unwrap();
            search.failed(Failure::NotLeader { leader: Some(hint) }, now);
            assert_eq!(search.target(now, &nodes), Some(hint));
        }
        search.failed(Failure::NotLeader { leader: Some(NodeId(2)) }, now);
        assert_eq!(search.target(now, &nodes), None, "a pause");
    }

    #[test]
    fn a_busy_leader_is_asked_again_after_a_pause() {
        let (mut search, now) = (Search::new(OWN), Instant::now());
        search.heard(role(2, 1));
        search.target(now, &nodes).unwrap();
        search.failed(Failure::Busy, now);
        assert_eq!(search.target(now, &nodes), None);
        assert_eq!(search.target(now + BACKOFF_FIRST, &nodes), Some(NodeId(2)));
    }

    #[test]
    fn when_nobody_knows_every_node_is_tried() {
        let (mut search, mut now) = (Search::new(OWN), Instant::now());
        let mut tried = std::collections::BTreeSet::new();
        for _ in 0..DOUBT_AFTER + 6 {
            tried.insert(wait(&mut search, &mut now));
            search.failed(Failure::NotTaken, now);
        }
        assert_eq!(tried.len(), 3, "{tried:?}");

        // Also when the own replica insists on somebody who is not there.
        let mut search = Search::new(OWN);
        search.heard(role(2, 1));
        tried.clear();
        for _ in 0..DOUBT_AFTER + 10 {
            tried.insert(wait(&mut search, &mut now));
            search.failed(Failure::NotTaken, now);
        }
        assert_eq!(tried.len(), 3, "{tried:?}");
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let (mut search, mut now) = (Search::new(OWN), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..5 {
            assert_eq!(search.target(now, &nodes), None);
            let at = search.retry_at().unwrap();
            pauses.push((at - now).as_millis());
            now = at;
        }
        assert_eq!(pauses, [5, 10, 20, 20, 20]);
    }
}
