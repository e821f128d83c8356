//! What a run was made of, in numbers: for judging whether many runs say anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
};

use serde::{Deserialize, Serialize};

use crate::{devices::Key, witness::Event};

/// Numbers of one run, or the sums of many.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Faults, by kind.
    pub(crate) faults: BTreeMap<String, u64>,
    /// Leaderships that began.
    pub(crate) elections: u64,
    /// Snapshots that a replica began to install, and finished.
    pub(crate) installs_begun: u64,
    pub(crate) snapshots_installed: u64,
    /// Processes that ended while a snapshot was being installed.
    pub(crate) crashes_during_install: u64,
    /// Replicas deleted after their group had gone elsewhere.
    pub(crate) replicas_deleted: u64,
    /// Steps of memberships.
    pub(crate) membership_steps: u64,
    /// Connections of devices that took a session over from one that lived.
    pub(crate) takeovers: u64,
    /// Sessions resumed, of all devices.
    pub(crate) sessions_resumed: u64,
    /// Messages that devices published, and had acknowledged.
    pub(crate) published: u64,
    pub(crate) acknowledged: u64,
    /// Deliveries, and those of a message that its subscriber had got before.
    pub(crate) deliveries: u64,
    pub(crate) redeliveries: u64,
    /// Linearizable reads.
    pub(crate) reads: u64,
    #[serde(skip)]
    got: BTreeSet<(u64, Key)>,
    #[serde(skip)]
    installing: BTreeSet<u64>,
}

impl Tally {
    /// Counts an event.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are counted nowhere")]
    pub(crate) fn see(&mut self, event: &Event) {
        match event {
            Event::Role { role, .. } => self.elections += u64::from(role.leading),
            Event::Installing { node } => {
                self.installs_begun += 1;
                self.installing.insert(*node);
            }
            Event::Installed { node } => {
                self.snapshots_installed += 1;
                self.installing.remove(node);
            }
            Event::Started { node, .. } => {
                self.crashes_during_install += u64::from(self.installing.remove(node));
            }
            Event::Deleted { .. } => self.replicas_deleted += 1,
            Event::Step { taken, .. } => self.membership_steps += u64::from(*taken),
            Event::Attached { over, .. } => self.takeovers += u64::from(*over),
            Event::Resumed { .. } => self.sessions_resumed += 1,
            Event::Published { again, .. } => self.published += u64::from(!again),
            Event::Answered { yes, .. } => self.acknowledged += u64::from(*yes),
            Event::Got { subscriber, key, .. } => {
                self.deliveries += 1;
                self.redeliveries += u64::from(!self.got.insert((*subscriber, *key)));
            }
            Event::ReadEnded { .. } => self.reads += 1,
            _ => {}
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        for (kind, times) in other.faults {
            *self.faults.entry(kind).or_default() += times;
        }
        self.elections += other.elections;
        self.installs_begun += other.installs_begun;
        self.snapshots_installed += other.snapshots_installed;
        self.crashes_during_install += other.crashes_during_install;
        self.replicas_deleted += other.replicas_deleted;
        self.membership_steps += other.membership_steps;
        self.takeovers += other.takeovers;
        self.sessions_resumed += other.sessions_resumed;
        self.published += other.published;
        self.acknowledged += other.acknowledged;
        self.deliveries += other.deliveries;
        self.redeliveries += other.redeliveries;
        self.reads += other.reads;
    }
}
