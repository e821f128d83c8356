//! Answers in bytes: `kind u8 | body`, one after the other.

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::ShardId;

use super::{
    Malformed, Reader, calls, documents, events, mail, put_holder, put_list, put_option,
    put_session, put_target, put_text, registry, values,
};
use crate::{
    answer::{Answer, Refused, RouteChange},
    command::ProducerId,
};

/// The answers to one run, or to the rest of it: one per command, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAnswers {
    /// Who proposed.
    pub producer: ProducerId,
    /// The sequence number of the first answered command; the others follow by one.
    pub first_seq: u64,
    /// One per command.
    pub answers: Vec<Answer>,
    /// The log index of the entry that was applied; 0 if it is not known. Of a run that came again it is that of the repeat, so what
    /// was asked for is in the log there or before.
    pub index: u64,
}

/// Frozen: producer rows hold these numbers.
mod kind {
    pub(super) const DONE: u8 = 1;
    pub(super) const OPENED: u8 = 2;
    pub(super) const RELEASED: u8 = 3;
    pub(super) const SUBSCRIBED: u8 = 4;
    pub(super) const UNSUBSCRIBED: u8 = 5;
    pub(super) const PUBLISHED: u8 = 6;
    pub(super) const AT: u8 = 7;
    pub(super) const REFUSED: u8 = 8;
    pub(super) const OUT_OF_ORDER: u8 = 9;
    pub(super) const PARTLY: u8 = 10;
    pub(super) const RECEIVED: u8 = 11;
    pub(super) const COMPLETED: u8 = 12;
    pub(super) const JOINED: u8 = 17;
}

/// Frozen: producer rows hold these numbers.
mod refused {
    pub(super) const NOT_YOURS: u8 = 1;
    pub(super) const TOO_MANY_SUBSCRIPTIONS: u8 = 2;
    pub(super) const WRONG_STATE: u8 = 3;
    pub(super) const NODE_ID_TAKEN: u8 = 4;
    pub(super) const WRONG_GROUP: u8 = 5;
    pub(super) const TOO_MANY_SESSIONS: u8 = 6;
    pub(super) const TOO_MANY_ROUTES: u8 = 7;
    pub(super) const MALFORMED: u8 = 8;
    pub(super) const QUEUE_FULL: u8 = 9;
    pub(super) const NODE_REMOVED: u8 = 10;
    pub(super) const NO_TOKEN: u8 = 11;
    pub(super) const TOO_MANY_MEMBERS: u8 = 15;
    pub(super) const RETAINED_FULL: u8 = 13;
    pub(super) const TOO_LATE: u8 = 14;
    pub(super) const TOO_FAR_AHEAD: u8 = 16;
    pub(super) const LEFT: u8 = 17;
    pub(super) const EXISTS: u8 = 40;
    pub(super) const VERSION_MISMATCH: u8 = 41;
    pub(super) const NOT_FOUND: u8 = 42;
    pub(super) const TOO_MANY: u8 = 43;
    pub(super) const TOO_LARGE: u8 = 44;
}

/// The least bytes of a route change: lets a count be checked before anything is allocated for it.
const ROUTE_CHANGE_BYTES_MIN: usize = 20;

impl Answer {
    /// Appends the answer to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Done => out.put_u8(kind::DONE),
            Self::Opened { session, epoch, present, head, tail, previous, released } => {
                out.put_u8(kind::OPENED);
                put_session(out, *session);
                out.put_u64(epoch.0);
                out.put_u8(u8::from(*present));
                out.put_u64(head.0);
                out.put_u64(tail.0);
                put_option(out, *previous, put_holder);
                put_list(out, released, put_change);
            }
            Self::Released(routes) | Self::Partly(routes) => {
                let whole = matches!(self, Self::Released(_));
                out.put_u8(if whole { kind::RELEASED } else { kind::PARTLY });
                put_list(out, routes, put_change);
            }
            Self::Subscribed { granted, new, at, routes } => {
                out.put_u8(kind::SUBSCRIBED);
                put_list(out, granted, |out, qos| out.put_u8(*qos as u8));
                put_list(out, new, |out, new| out.put_u8(u8::from(*new)));
                out.put_u64(*at);
                put_list(out, routes, put_change);
            }
            Self::Unsubscribed { existed, released } => {
                out.put_u8(kind::UNSUBSCRIBED);
                put_list(out, existed, |out, existed| out.put_u8(u8::from(*existed)));
                put_list(out, released, put_change);
            }
            Self::Joined { share, route } => {
                out.put_u8(kind::JOINED);
                put_session(out, *share);
                put_change(out, route);
            }
            Self::Received { number, floor } => {
                out.put_u8(kind::RECEIVED);
                out.put_u64(*number);
                out.put_u64(*floor);
            }
            Self::Completed { known } => {
                out.put_u8(kind::COMPLETED);
                put_list(out, known, |out, known| out.put_u8(u8::from(*known)));
            }
            Self::Published { sessions } => {
                out.put_u8(kind::PUBLISHED);
                out.put_u32(*sessions);
            }
            Self::Mail(answer) => mail::put_answer(out, *answer),
            Self::Events(answer) => events::put_answer(out, *answer),
            Self::Values(answer) => values::put_answer(out, *answer),
            Self::Calls(answer) => calls::put_answer(out, *answer),
            Self::Documents(answer) => documents::put_answer(out, *answer),
            Self::Tenant { .. } | Self::Device { .. } | Self::Taken(_) => {
                registry::encode_answer(self, out);
            }
            Self::At(index) => {
                out.put_u8(kind::AT);
                out.put_u64(*index);
            }
            Self::Refused(why) => {
                out.put_u8(kind::REFUSED);
                put_refused(out, *why);
            }
            Self::OutOfOrder { expected } => {
                out.put_u8(kind::OUT_OF_ORDER);
                out.put_u64(*expected);
            }
        }
    }

    /// Takes one answer off the front of `bytes`.
    ///
    /// # Errors
    ///
    /// When the bytes are not what [`Answer::encode`] of this version writes; `bytes` is unusable then.
    pub fn decode(bytes: &mut Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(std::mem::take(bytes), "answer");
        let answer = Self::read(&mut reader)?;
        *bytes = reader.into_rest();
        Ok(answer)
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            kind::DONE => Self::Done,
            kind::OPENED => Self::Opened {
                session: reader.session()?,
                epoch: reader.epoch()?,
                present: reader.bool()?,
                head: reader.offset()?,
                tail: reader.offset()?,
                previous: reader.option(Reader::holder)?,
                released: read_changes(reader)?,
            },
            kind::RELEASED => Self::Released(read_changes(reader)?),
            kind::PARTLY => Self::Partly(read_changes(reader)?),
            kind::SUBSCRIBED => Self::Subscribed {
                granted: reader.list(1, Reader::qos)?,
                new: reader.list(1, Reader::bool)?,
                at: reader.u64()?,
                routes: read_changes(reader)?,
            },
            kind::UNSUBSCRIBED => Self::Unsubscribed {
                existed: reader.list(1, Reader::bool)?,
                released: read_changes(reader)?,
            },
            kind::JOINED => Self::Joined { share: reader.session()?, route: read_change(reader)? },
            kind::RECEIVED => Self::Received { number: reader.u64()?, floor: reader.u64()? },
            kind::COMPLETED => Self::Completed { known: reader.list(1, Reader::bool)? },
            kind::PUBLISHED => Self::Published { sessions: reader.u32()? },
            kind @ mail::FIRST_KIND..=mail::LAST_KIND => {
                Self::Mail(mail::read_answer(kind, reader)?)
            }
            kind @ events::FIRST_KIND..=events::LAST_KIND => {
                Self::Events(events::read_answer(kind, reader)?)
            }
            kind @ values::FIRST_KIND..=values::LAST_KIND => {
                Self::Values(values::read_answer(kind, reader)?)
            }
            kind @ calls::FIRST_KIND..=calls::LAST_KIND => {
                Self::Calls(calls::read_answer(kind, reader)?)
            }
            kind @ documents::FIRST_KIND..=documents::LAST_KIND => {
                Self::Documents(documents::read_answer(kind, reader)?)
            }
            kind::AT => Self::At(reader.u64()?),
            kind::REFUSED => Self::Refused(read_refused(reader)?),
            kind::OUT_OF_ORDER => Self::OutOfOrder { expected: reader.u64()? },
            other => return registry::read_answer(other, reader),
        })
    }
}

impl RunAnswers {
    /// Appends `producer u64 | first_seq u64 | count u16 | answers | index u64` to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.producer.0);
        out.put_u64(self.first_seq);
        out.put_u16(u16::try_from(self.answers.len()).expect("a run has at most 65,535 commands"));
        for answer in &self.answers {
            answer.encode(out);
        }
        out.put_u64(self.index);
    }

    /// Takes the answers to one run off the front of `bytes`. Programs of before the index write none.
    ///
    /// # Errors
    ///
    /// When the bytes are not what [`RunAnswers::encode`] of this version writes; `bytes` is unusable then.
    pub fn decode(bytes: &mut Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(std::mem::take(bytes), "answers");
        let producer = ProducerId(reader.u64()?);
        let first_seq = reader.u64()?;
        let count = usize::from(reader.u16()?);
        reader.need(count)?;
        let mut answers = Vec::with_capacity(count);
        for _ in 0..count {
            answers.push(Answer::read(&mut reader)?);
        }
        let index = if reader.need(8).is_ok() { reader.u64()? } else { 0 };
        *bytes = reader.into_rest();
        Ok(Self { producer, first_seq, answers, index })
    }
}

fn put_change(out: &mut BytesMut, change: &RouteChange) {
    out.put_u32(change.tenant.0);
    put_text(out, &change.filter);
    put_target(out, change.target);
    out.put_u64(change.version);
    out.put_u8(u8::from(change.present));
}

fn read_changes(reader: &mut Reader) -> Result<Vec<RouteChange>, Malformed> {
    reader.list(ROUTE_CHANGE_BYTES_MIN, read_change)
}

fn read_change(reader: &mut Reader) -> Result<RouteChange, Malformed> {
    Ok(RouteChange {
        tenant: reader.tenant()?,
        filter: reader.text()?,
        target: reader.target()?,
        version: reader.u64()?,
        present: reader.bool()?,
    })
}

fn put_refused(out: &mut BytesMut, why: Refused) {
    let code = match why {
        Refused::NotYours => refused::NOT_YOURS,
        Refused::TooManySubscriptions => refused::TOO_MANY_SUBSCRIPTIONS,
        Refused::TooManySessions => refused::TOO_MANY_SESSIONS,
        Refused::TooManyRoutes => refused::TOO_MANY_ROUTES,
        Refused::TooManyMembers => refused::TOO_MANY_MEMBERS,
        Refused::QueueFull => refused::QUEUE_FULL,
        Refused::Malformed => refused::MALFORMED,
        Refused::WrongState => refused::WRONG_STATE,
        Refused::NodeIdTaken => refused::NODE_ID_TAKEN,
        Refused::NodeRemoved => refused::NODE_REMOVED,
        Refused::NoToken => refused::NO_TOKEN,
        Refused::RetainedFull => refused::RETAINED_FULL,
        Refused::TooLate => refused::TOO_LATE,
        Refused::TooFarAhead => refused::TOO_FAR_AHEAD,
        Refused::Left => refused::LEFT,
        Refused::Exists => refused::EXISTS,
        Refused::VersionMismatch { .. } => refused::VERSION_MISMATCH,
        Refused::NotFound => refused::NOT_FOUND,
        Refused::TooMany => refused::TOO_MANY,
        Refused::TooLarge => refused::TOO_LARGE,
        Refused::WrongGroup { .. } => refused::WRONG_GROUP,
        Refused::Mail(why) => return mail::put_refused(out, why),
        Refused::Events(why) => return events::put_refused(out, why),
        Refused::Values(why) => return values::put_refused(out, why),
        Refused::Calls(why) => return calls::put_refused(out, why),
        Refused::Documents(why) => return documents::put_refused(out, why),
    };
    out.put_u8(code);
    if let Refused::WrongGroup { group } = why {
        out.put_u16(group.0);
    }
    if let Refused::VersionMismatch { version } = why {
        out.put_u64(version);
    }
}

fn read_refused(reader: &mut Reader) -> Result<Refused, Malformed> {
    Ok(match reader.u8()? {
        refused::NOT_YOURS => Refused::NotYours,
        refused::TOO_MANY_SUBSCRIPTIONS => Refused::TooManySubscriptions,
        refused::TOO_MANY_SESSIONS => Refused::TooManySessions,
        refused::TOO_MANY_ROUTES => Refused::TooManyRoutes,
        refused::TOO_MANY_MEMBERS => Refused::TooManyMembers,
        refused::QUEUE_FULL => Refused::QueueFull,
        refused::MALFORMED => Refused::Malformed,
        refused::WRONG_STATE => Refused::WrongState,
        refused::NODE_ID_TAKEN => Refused::NodeIdTaken,
        refused::NODE_REMOVED => Refused::NodeRemoved,
        refused::NO_TOKEN => Refused::NoToken,
        refused::RETAINED_FULL => Refused::RetainedFull,
        refused::TOO_LATE => Refused::TooLate,
        refused::TOO_FAR_AHEAD => Refused::TooFarAhead,
        refused::LEFT => Refused::Left,
        code @ mail::FIRST_KIND..=mail::LAST_KIND => {
            Refused::Mail(mail::read_refused(code, reader)?)
        }
        code @ events::FIRST_KIND..=events::LAST_KIND => {
            Refused::Events(events::read_refused(code, reader)?)
        }
        code @ values::FIRST_KIND..=values::LAST_KIND => {
            Refused::Values(values::read_refused(code)?)
        }
        code @ calls::FIRST_KIND..=calls::LAST_KIND => Refused::Calls(calls::read_refused(code)?),
        code @ documents::FIRST_KIND..=documents::LAST_KIND => {
            Refused::Documents(documents::read_refused(code, reader)?)
        }
        refused::EXISTS => Refused::Exists,
        refused::VERSION_MISMATCH => Refused::VersionMismatch { version: reader.u64()? },
        refused::NOT_FOUND => Refused::NotFound,
        refused::TOO_MANY => Refused::TooMany,
        refused::TOO_LARGE => Refused::TooLarge,
        refused::WRONG_GROUP => Refused::WrongGroup { group: ShardId(reader.u16()?) },
        _ => return Err(Malformed { what: "refusal" }),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use moorline_core::{ConnId, Epoch, Incarnation, NodeId, Offset, QoS, TenantId};

    use super::*;
    use crate::command::{Holder, RouteTarget, SessionId};

    pub(in crate::codec) fn check(answer: &Answer, expected: &str) {
        let mut out = BytesMut::new();
        answer.encode(&mut out);
        let bytes = out.freeze();
        assert_eq!(crate::codec::hex(&bytes), expected.replace(' ', ""), "{answer:?}");
        for len in 0..bytes.len() {
            assert!(Answer::decode(&mut bytes.slice(..len)).is_err(), "{answer:?} at {len}");
        }
        let mut rest = bytes;
        assert_eq!(&Answer::decode(&mut rest).unwrap(), answer);
        assert!(rest.is_empty());
    }

    #[test]
    fn answers_keep_their_bytes() {
        // Frozen: producer rows hold these.
        let session = SessionId { bucket: 1, number: 2 };
        let holder = Holder { node: NodeId(4), incarnation: Incarnation(5), conn: ConnId(6) };
        let change = || {
            vec![RouteChange {
                tenant: TenantId(7),
                filter: "#".into(),
                target: RouteTarget::Shard(ShardId(1)),
                version: 9,
                present: true,
            }]
        };
        let route = "00000001 00000007 00000001 23 01 0001 0000000000000009 01";
        let opened = |previous, released| Answer::Opened {
            session,
            epoch: Epoch(3),
            present: true,
            head: Offset(4),
            tail: Offset(5),
            previous,
            released,
        };
        let head = "02 0001 0000000000000002 0000000000000003 01 0000000000000004 0000000000000005";
        #[rustfmt::skip]
        let table = [
            (Answer::Done, "01".into()),
            (opened(None, vec![]), format!("{head} 00 00000000")),
            (opened(Some(holder), change()),
                format!("{head} 01 0000000000000004 0000000000000005 0000000000000006 {route}")),
            (Answer::Released(change()), format!("03 {route}")),
            (Answer::Subscribed { granted: vec![QoS::AtMostOnce, QoS::ExactlyOnce], new: vec![true, false], at: 9, routes: change() },
                format!("04 00000002 00 02 00000002 01 00 0000000000000009 {route}")),
            (Answer::Unsubscribed { existed: vec![true], released: vec![] }, "05 00000001 01 00000000".into()),
            (Answer::Published { sessions: 3 }, "06 00000003".into()),
            (Answer::At(8), "07 0000000000000008".into()),
            (Answer::Refused(Refused::NotYours), "08 01".into()),
            (Answer::Refused(Refused::TooManySubscriptions), "08 02".into()),
            (Answer::Refused(Refused::WrongState), "08 03".into()),
            (Answer::Refused(Refused::NodeIdTaken), "08 04".into()),
            (Answer::Refused(Refused::WrongGroup { group: ShardId(2) }), "08 05 0002".into()),
            (Answer::Refused(Refused::TooManySessions), "08 06".into()),
            (Answer::Refused(Refused::TooManyRoutes), "08 07".into()),
            (Answer::Refused(Refused::QueueFull), "08 09".into()),
            (Answer::Refused(Refused::TooManyMembers), "08 0f".into()),
            (Answer::Joined { share: session, route: change().remove(0) },
                "11 0001 0000000000000002 00000007 00000001 23 01 0001 0000000000000009 01".into()),
            (Answer::Refused(Refused::NodeRemoved), "08 0a".into()),
            (Answer::Refused(Refused::NoToken), "08 0b".into()),
            (Answer::Refused(Refused::RetainedFull), "08 0d".into()),
            (Answer::Refused(Refused::TooLate), "08 0e".into()),
            (Answer::Refused(Refused::TooFarAhead), "08 10".into()),
            (Answer::Refused(Refused::Left), "08 11".into()),
            (Answer::Refused(Refused::Malformed), "08 08".into()),
            (Answer::OutOfOrder { expected: 9 }, "09 0000000000000009".into()),
            (Answer::Partly(change()), format!("0a {route}")),
            (Answer::Received { number: 3, floor: 2 }, "0b 0000000000000003 0000000000000002".into()),
            (Answer::Completed { known: vec![true, false] }, "0c 00000002 01 00".into()),
        ];
        for (answer, expected) in table {
            check(&answer, &expected);
        }
    }
}
