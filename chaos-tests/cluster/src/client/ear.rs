//! A connection whose client listens: packets with a deadline, and patience with a node that says nothing.
//!
//! What workloads with events of their own have in common. Nothing is recorded here.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moorline_oracle::history::Leave;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until};

use super::{Ended, KEEP_ALIVE_S, Link, PING_EVERY, Peer, RETRY_MS, SILENCE_MAX, Shared};
use crate::mqtt::packet::RECEIVE_MAX_DEFAULT;
use crate::mqtt::{Connect, Connection, ConnectionError, Extras, Packet, Version};

/// The packet id of SUBSCRIBE.
pub(super) const SUBSCRIBE: u16 = 1;
/// How long a SUBACK may take.
const SUBACK_MAX: Duration = Duration::from_secs(6);

/// A client of 5.0 whose session ends with its connection.
pub(super) fn passing(client: String) -> Connect {
    Connect {
        version: Version::V5,
        client,
        clean: true,
        keep_alive_s: KEEP_ALIVE_S,
        expiry_s: 0,
        receive_max: RECEIVE_MAX_DEFAULT,
        extras: Extras::default(),
    }
}

/// The same with a session that outlives its connections, by so many seconds.
pub(super) fn durable(client: String, expiry_s: u32) -> Connect {
    Connect { clean: false, expiry_s, ..passing(client) }
}

/// A connection that is listened to.
#[derive(Debug)]
pub(super) struct Ear {
    pub(super) link: Link,
    heard: Instant,
    ping: Interval,
    /// What came while something else was waited for.
    early: Vec<Packet>,
}

impl Ear {
    /// Listens to a connection.
    pub(super) fn new(link: Link) -> Self {
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { link, heard: Instant::now(), ping, early: Vec::new() }
    }

    /// The next packet but a PINGRESP; none if `until` comes first, or the end of the run. Not cancel-safe.
    pub(super) async fn next(
        &mut self,
        shared: &Shared,
        until: Instant,
    ) -> Result<Option<Packet>, Ended> {
        if !self.early.is_empty() {
            return Ok(Some(self.early.remove(0)));
        }
        self.read(shared, until).await
    }

    async fn read(&mut self, shared: &Shared, until: Instant) -> Result<Option<Packet>, Ended> {
        loop {
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(None),
                packet = self.link.connection.reader.next() => {
                    self.heard = Instant::now();
                    let packet = packet?;
                    if let Packet::Disconnect { reason } = packet {
                        let err = Some(format!("DISCONNECT {reason:#04x}"));
                        return Err(Ended { why: Leave::Lost, err });
                    }
                    if packet != Packet::PingResp {
                        return Ok(Some(packet));
                    }
                }
                _ = self.ping.tick() => {
                    if self.heard.elapsed() > SILENCE_MAX {
                        let err = Some("silence".to_owned());
                        return Err(Ended { why: Leave::TimedOut, err });
                    }
                    self.send(&[Packet::PingReq]).await?;
                }
                () = sleep_until(until) => return Ok(None),
            }
        }
    }

    /// Writes packets.
    pub(super) async fn send(&mut self, packets: &[Packet]) -> Result<(), Ended> {
        Ok(self.link.connection.writer.send(packets).await?)
    }

    /// Subscribes, and waits for the SUBACK; what comes before it is kept. An error if not everything was granted.
    pub(super) async fn subscribe(
        &mut self,
        shared: &Shared,
        filters: Vec<String>,
    ) -> Result<(), Ended> {
        self.send(&[Packet::Subscribe { packet: SUBSCRIBE, filters }]).await?;
        let deadline = Instant::now() + SUBACK_MAX;
        loop {
            match self.read(shared, deadline).await? {
                Some(Packet::SubAck { packet: SUBSCRIBE, codes }) => {
                    if codes.iter().all(|code| *code <= 2) {
                        return Ok(());
                    }
                    let err = Some(format!("SUBACK {codes:x?}"));
                    return Err(Ended { why: Leave::Lost, err });
                }
                Some(packet) => self.early.push(packet),
                None => {
                    let err = Some("no SUBACK".to_owned());
                    return Err(Ended { why: Leave::TimedOut, err });
                }
            }
        }
    }

    /// Ends the connection as a client does that dies.
    pub(super) fn reset(self) {
        // A socket that cannot be reset is closed, which is no goodbye either.
        let _unclean = self.link.connection.writer.reset();
    }
}

impl Shared {
    /// Connects to a node without a note in the history.
    pub(super) async fn reach(
        &self,
        connect: &Connect,
        peer: &Peer,
    ) -> Result<Link, ConnectionError> {
        let conn = self.connection_number();
        let connection = Connection::open(peer.mqtt, connect.clone()).await?;
        Ok(Link { conn, node: peer.id, connection })
    }

    /// Connects to some node, trying until it works or the run is over.
    pub(super) async fn reach_any(
        &self,
        connect: &Connect,
        random: &mut StdRng,
        left: &mut Option<u32>,
    ) -> Option<Link> {
        while !self.stop.is_cancelled() {
            let peer = self.pick(random, *left);
            *left = Some(peer.id);
            if let Ok(link) = self.reach(connect, peer).await {
                return Some(link);
            }
            sleep(Duration::from_millis(random.random_range(RETRY_MS.0..=RETRY_MS.1))).await;
        }
        None
    }

    /// Waits; less if the run ends. Whether it goes on.
    pub(super) async fn rest(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = sleep(pause) => true,
        }
    }
}

/// What somebody has to see before a run has drained: numbers of messages, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    owed: BTreeSet<(u32, u64)>,
    seen: BTreeSet<(u32, u64)>,
}

impl Owed {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `who` waits for it, unless it came already.
    pub(super) fn owe(&self, who: u32, number: u64) {
        let mut books = self.books();
        if !books.seen.contains(&(who, number)) {
            books.owed.insert((who, number));
        }
    }

    /// It came.
    pub(super) fn seen(&self, who: u32, number: u64) {
        let mut books = self.books();
        books.seen.insert((who, number));
        books.owed.remove(&(who, number));
    }

    /// How many are waited for.
    pub(super) fn many(&self) -> usize {
        self.books().owed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_early_is_not_waited_for() {
        let owed = Owed::default();
        owed.seen(0, 7);
        owed.owe(0, 7);
        owed.owe(1, 7);
        assert_eq!(owed.many(), 1);
        owed.seen(1, 7);
        assert_eq!(owed.many(), 0);
    }
}
