//! What can be asked of a shard's registry, mailboxes and streams, and what comes back, with their bytes: a question travels to the
//! shard's leader, which reads its rows ([`crate::Machine::query`]).
//!
//! Nothing here is stored: nodes of one version ask each other. The version byte in front tells them apart.

mod audit;
mod calls;
mod documents;
mod events;
mod marks;
mod presence;
mod session;
mod values;

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{AttributeScope, Offset, TenantId, Text};
use moorline_storage::{StorageError, View};

use crate::{
    Malformed,
    audit::AuditPage,
    codec::{Reader, put_list, put_option, put_session, put_text},
    command::SessionId,
    documents::{DocumentsFound, DocumentsQuery},
    machine::Machine,
    mail::{Mail, MailInfo, MailNote, Noted},
    presence::{PRESENCE_PER_QUESTION_MAX, PresenceRecord},
    registry::{DeviceRecord, LookupHash, Owner},
    rows::Row,
    shard::{
        AggregateQuery, CallsFound, CallsQuery, ConsumersPage, DeviceCursor, DevicesPage,
        DevicesQuery, EventsPage, HistoryQuery, MailPage,
    },
    values::{AggregatePage, Attributes, HistoryPage, Latest, Marks},
};

pub use self::{
    events::{EVENTS_PAGE_BYTES_MAX, EVENTS_PER_PAGE_MAX},
    session::SessionStanding,
};

const VERSION: u8 = 2;
/// Devices of one page.
const DEVICES_MAX: u16 = 256;
/// About the most bytes of one page of devices.
const DEVICES_BYTES_MAX: usize = 256 * 1024;
/// The kind of that question and its answer.
const SUBSCRIPTIONS: u8 = 80;
/// The kind of an answer that the device's row is another.
const CHANGED: u8 = 81;
/// Mails of one page.
const MAILS_MAX: u16 = 100;

/// A question to the leader of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// A device of this shard.
    Device {
        /// Whose.
        tenant: TenantId,
        /// Which.
        device: Text,
    },
    /// Which device has a credential.
    Lookup {
        /// What was shown, hashed.
        hash: LookupHash,
    },
    /// A page of a tenant's devices in this shard.
    Devices {
        /// Whose.
        tenant: TenantId,
        /// Where the page before ended.
        after: Option<DeviceCursor>,
        /// At most so many; 256 in any case.
        items_max: u16,
    },
    /// The mail at the front of a mailbox.
    Front {
        /// Whose device.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// Only if this is the version of the device's row: then whoever was let in by that row still may.
        if_version: Option<u64>,
    },
    /// One mail.
    Mail {
        /// Whose device.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// The mail.
        id: u128,
    },
    /// A page of a mailbox.
    Mails {
        /// Whose device.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// Which part of it.
        part: MailPart,
        /// Only places above this one.
        after: u64,
        /// At most so many; 100 in any case.
        items_max: u16,
    },
    /// A page of a tenant's stream in this shard.
    Events {
        /// Whose.
        tenant: TenantId,
        /// Only those behind this offset.
        after: Offset,
        /// Only those of this device.
        device: Option<Text>,
        /// Look at so many at most; [`EVENTS_PER_PAGE_MAX`] in any case.
        items_max: u16,
        /// Look at about so many bytes at most; [`EVENTS_PAGE_BYTES_MAX`] in any case.
        bytes_max: u32,
        /// How long who answers may wait for something that is newer than `after`; not the machine's business.
        wait_ms: u32,
    },
    /// A tenant's consumer groups in this shard.
    Consumers {
        /// Whose.
        tenant: TenantId,
    },
    /// What a session is subscribed to.
    Subscriptions {
        /// Which.
        session: SessionId,
    },
    /// How a client's session stands.
    Session {
        /// Whose.
        tenant: TenantId,
        /// Which client's.
        client: Text,
    },
    /// What is known of the presence of devices of this shard.
    Presence {
        /// Whose.
        tenant: TenantId,
        /// Which: the first [`crate::presence::PRESENCE_PER_QUESTION_MAX`] count.
        devices: Vec<Text>,
    },
    /// A page of the audit of this shard, or of the meta group.
    Audit {
        /// Whose; `None`: of all.
        tenant: Option<TenantId>,
        /// Only those behind this number.
        after: u64,
        /// At most so many.
        items_max: u16,
    },
    /// Attributes of one scope of a device.
    Attributes {
        /// Whose.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// Of which scope.
        scope: AttributeScope,
        /// Only these; none: all. The first [`crate::values::KEYS_PER_QUESTION_MAX`] count, here and below.
        keys: Vec<Text>,
        /// Only what was set or deleted by a later version.
        since: Option<u64>,
    },
    /// Latest values of a device.
    Latest {
        /// Whose.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// Only these; none: all.
        keys: Vec<Text>,
    },
    /// What a device's values are by now.
    Marks {
        /// Whose.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// What who asks knows.
        known: Option<Marks>,
        /// How long who answers may wait for something else than that; not the machine's business.
        wait_ms: u32,
    },
    /// A piece of a device's history.
    History(HistoryQuery),
    /// A piece of a device's history, taken together.
    Aggregate(AggregateQuery),
    /// Calls of a device.
    Calls(CallsQuery),
    /// Documents of a space.
    Documents(DocumentsQuery),
}

/// A part of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailPart {
    /// What waits.
    Queued = 0,
    /// What was requeued too often.
    Dead = 1,
    /// What ended a while ago.
    Done = 2,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// To [`Query::Device`].
    Device(Option<DeviceRecord>),
    /// To [`Query::Lookup`].
    Lookup(Option<Owner>),
    /// To [`Query::Devices`].
    Devices(DevicesPage),
    /// To [`Query::Front`]: the mail, and how many wait, it included.
    Front(Option<(Mail, u32)>),
    /// To [`Query::Front`]: the device's row has another version than was asked for, or is gone.
    Changed,
    /// To [`Query::Mail`]: what is known of it, and its payload as long as it has one.
    Mail(Option<(MailInfo, Option<Bytes>)>),
    /// To [`Query::Mails`].
    Mails(MailPage),
    /// To [`Query::Events`].
    Events(EventsPage),
    /// To [`Query::Consumers`].
    Consumers(ConsumersPage),
    /// To [`Query::Subscriptions`]: the filters, those of shares whole. At most [`crate::SUBSCRIPTIONS_PER_SESSION_MAX`].
    Subscriptions(Vec<Text>),
    /// To [`Query::Session`].
    Session(Option<SessionStanding>),
    /// To [`Query::Presence`]: one for each, in order; `None` of those that were never heard from.
    Presence(Vec<Option<PresenceRecord>>),
    /// To [`Query::Audit`].
    Audit(AuditPage),
    /// To [`Query::Attributes`]; `None` if there is no such device, here and below.
    Attributes(Option<Attributes>),
    /// To [`Query::Latest`].
    Latest(Option<Latest>),
    /// To [`Query::Marks`].
    Marks(Option<Marks>),
    /// To [`Query::History`].
    History(Option<HistoryPage>),
    /// To [`Query::Aggregate`].
    Aggregate(Option<AggregatePage>),
    /// To [`Query::Calls`].
    Calls(CallsFound),
    /// To [`Query::Documents`].
    Documents(DocumentsFound),
}

impl Machine {
    /// Answers a question from the rows as they are.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn query(&self, rows: &(impl View + ?Sized), query: &Query) -> Result<Found, StorageError> {
        let mailboxes = self.mailboxes();
        Ok(match query {
            Query::Device { tenant, device } => Found::Device(self.device(rows, *tenant, device)?),
            Query::Lookup { hash } => Found::Lookup(self.lookup(rows, *hash)?),
            Query::Devices { tenant, after, items_max } => {
                let query = DevicesQuery {
                    tenant: *tenant,
                    after: after.as_ref(),
                    items_max: usize::from((*items_max).min(DEVICES_MAX)),
                    bytes_max: DEVICES_BYTES_MAX,
                };
                Found::Devices(self.devices(rows, &query)?)
            }
            Query::Front { tenant, device, if_version } => {
                if let Some(version) = if_version {
                    let record = self.device(rows, *tenant, device)?;
                    if record.is_none_or(|record| record.version != *version) {
                        return Ok(Found::Changed);
                    }
                }
                Found::Front(mailboxes.front(rows, *tenant, device)?)
            }
            Query::Mail { tenant, device, id } => {
                let info = mailboxes.mail(rows, *tenant, device, *id)?;
                let payload = mailboxes.payload(rows, *tenant, device, *id)?;
                Found::Mail(info.map(|info| (info, payload.map(|mail| mail.payload))))
            }
            Query::Mails { tenant, device, part, after, items_max } => {
                let most = usize::from((*items_max).min(MAILS_MAX));
                Found::Mails(match part {
                    MailPart::Queued => mailboxes.queued(rows, *tenant, device, *after, most)?,
                    MailPart::Dead => mailboxes.dead(rows, *tenant, device, *after, most)?,
                    MailPart::Done => mailboxes.done(rows, *tenant, device, *after, most)?,
                })
            }
            Query::Events { tenant, after, device, items_max, bytes_max, wait_ms: _ } => {
                let query =
                    events::bounded(*tenant, *after, device.as_ref(), (*items_max, *bytes_max));
                Found::Events(self.streams().events(rows, &query)?)
            }
            Query::Consumers { tenant } => Found::Consumers(self.streams().consumers(*tenant)),
            Query::Subscriptions { session } => {
                let subscriptions = self.subscriptions(rows, *session)?.into_iter();
                Found::Subscriptions(subscriptions.map(|one| one.filter).collect())
            }
            Query::Session { tenant, client } => {
                let session = self.session_of(rows, *tenant, client)?;
                Found::Session(session.map(SessionStanding::from))
            }
            Query::Presence { tenant, devices } => {
                let devices = devices.iter().take(PRESENCE_PER_QUESTION_MAX);
                let read = |device| self.presence(rows, *tenant, device);
                Found::Presence(devices.map(read).collect::<Result<_, _>>()?)
            }
            Query::Audit { tenant, after, items_max } => {
                Found::Audit(self.audit(rows, *tenant, *after, usize::from(*items_max))?)
            }
            Query::Attributes { tenant, device, scope, keys, since } => {
                let device = (*tenant, device);
                Found::Attributes(self.attributes(rows, device, *scope, keys, *since)?)
            }
            Query::Latest { tenant, device, keys } => {
                Found::Latest(self.latest(rows, *tenant, device, keys)?)
            }
            Query::Marks { tenant, device, .. } => Found::Marks(self.marks(rows, *tenant, device)?),
            Query::History(query) => Found::History(self.history(rows, query)?),
            Query::Aggregate(query) => Found::Aggregate(self.aggregate(rows, query)?),
            Query::Calls(query) => Found::Calls(self.calls(rows, query)?),
            Query::Documents(query) => Found::Documents(self.documents(rows, query)?),
        })
    }
}

fn begin(kind: u8) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u8(kind);
    out
}

fn open(bytes: Bytes, what: &'static str) -> Result<(u8, Reader), Malformed> {
    let mut reader = Reader::new(bytes, what);
    if reader.u8()? != VERSION {
        return Err(reader.malformed());
    }
    Ok((reader.u8()?, reader))
}

fn put_bytes(out: &mut BytesMut, bytes: &Bytes) {
    out.put_u32(u32::try_from(bytes.len()).expect("rows are small"));
    out.put_slice(bytes);
}

fn read_bytes(reader: &mut Reader) -> Result<Bytes, Malformed> {
    let len = reader.u32()? as usize;
    reader.slice(len)
}

fn put_row(out: &mut BytesMut, row: &impl Row) {
    put_bytes(out, &row.to_bytes());
}

fn read_row<R: Row>(reader: &mut Reader) -> Result<R, Malformed> {
    let bytes = read_bytes(reader)?;
    R::from_bytes(&bytes).map_err(|_| reader.malformed())
}

impl Query {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let named = |kind, tenant: &TenantId, device: &Text| {
            let mut out = begin(kind);
            out.put_u32(tenant.0);
            put_text(&mut out, device);
            out
        };
        let out = match self {
            Self::Device { tenant, device } => named(1, tenant, device),
            Self::Lookup { hash } => {
                let mut out = begin(2);
                out.put_slice(&hash.0);
                out
            }
            Self::Devices { tenant, after, items_max } => {
                let mut out = begin(3);
                out.put_u32(tenant.0);
                out.put_u16(*items_max);
                put_option(&mut out, after.as_ref(), put_cursor);
                out
            }
            Self::Front { tenant, device, if_version } => {
                let mut out = named(4, tenant, device);
                put_option(&mut out, *if_version, BufMut::put_u64);
                out
            }
            Self::Mail { tenant, device, id } => {
                let mut out = named(5, tenant, device);
                out.put_u128(*id);
                out
            }
            Self::Mails { tenant, device, part, after, items_max } => {
                let mut out = named(6, tenant, device);
                out.put_u8(*part as u8);
                out.put_u64(*after);
                out.put_u16(*items_max);
                out
            }
            Self::Events { .. } | Self::Consumers { .. } => events::put_query(self),
            Self::Subscriptions { session } => {
                let mut out = begin(SUBSCRIPTIONS);
                put_session(&mut out, *session);
                out
            }
            Self::Attributes { .. }
            | Self::Latest { .. }
            | Self::History(_)
            | Self::Aggregate(_) => values::put_query(self),
            Self::Marks { .. } => marks::put_query(self),
            Self::Calls(query) => calls::put_query(query),
            Self::Documents(query) => documents::put_query(query),
            Self::Session { tenant, client } => session::put_query(*tenant, client),
            Self::Presence { tenant, devices } => presence::put_query(*tenant, devices),
            Self::Audit { tenant, after, items_max } => {
                audit::put_query(*tenant, *after, *items_max)
            }
        };
        out.freeze()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for anything else.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let (kind, mut whole) = open(bytes, "question")?;
        let reader = &mut whole;
        let query = match kind {
            1 => Self::Device { tenant: reader.tenant()?, device: reader.text()? },
            2 => Self::Lookup { hash: read_hash(reader)? },
            3 => Self::Devices {
                tenant: reader.tenant()?,
                items_max: reader.u16()?,
                after: reader.option(read_cursor)?,
            },
            4 => Self::Front {
                tenant: reader.tenant()?,
                device: reader.text()?,
                if_version: reader.option(Reader::u64)?,
            },
            5 => {
                Self::Mail { tenant: reader.tenant()?, device: reader.text()?, id: reader.u128()? }
            }
            6 => Self::Mails {
                tenant: reader.tenant()?,
                device: reader.text()?,
                part: match reader.u8()? {
                    0 => MailPart::Queued,
                    1 => MailPart::Dead,
                    2 => MailPart::Done,
                    _ => return Err(reader.malformed()),
                },
                after: reader.u64()?,
                items_max: reader.u16()?,
            },
            7 | 8 => events::read_query(kind, reader)?,
            SUBSCRIPTIONS => Self::Subscriptions { session: reader.session()? },
            session::KIND => session::read_query(reader)?,
            presence::KIND => presence::read_query(reader)?,
            audit::KIND => audit::read_query(reader)?,
            marks::KIND => marks::read_query(reader)?,
            kind @ values::ATTRIBUTES..=values::AGGREGATE => values::read_query(kind, reader)?,
            kind @ calls::WAITING..=calls::ALL => Self::Calls(calls::read_query(kind, reader)?),
            kind @ documents::ONE..=documents::PAGE => {
                Self::Documents(documents::read_query(kind, reader)?)
            }
            _ => return Err(reader.malformed()),
        };
        whole.end()?;
        Ok(query)
    }
}

fn read_hash(reader: &mut Reader) -> Result<LookupHash, Malformed> {
    let bytes = reader.slice(32)?;
    Ok(LookupHash(bytes[..].try_into().expect("as many as were asked for")))
}

fn put_cursor(out: &mut BytesMut, cursor: &DeviceCursor) {
    out.put_u16(cursor.bucket);
    put_text(out, &cursor.device);
}

fn read_cursor(reader: &mut Reader) -> Result<DeviceCursor, Malformed> {
    Ok(DeviceCursor { bucket: reader.u16()?, device: reader.text()? })
}

fn put_mail(out: &mut BytesMut, mail: &Mail) {
    out.put_u128(mail.id);
    put_text(out, &mail.name);
    out.put_u8(mail.content_type);
    put_bytes(out, &mail.payload);
    out.put_u64(mail.created.0);
    put_option(out, mail.expires_at.as_ref(), |out, at| out.put_u64(at.0));
    out.put_u16(mail.requeues);
}

fn read_mail(reader: &mut Reader) -> Result<Mail, Malformed> {
    Ok(Mail {
        id: reader.u128()?,
        name: reader.text()?,
        content_type: reader.u8()?,
        payload: read_bytes(reader)?,
        created: reader.millis()?,
        expires_at: reader.option(Reader::millis)?,
        requeues: reader.u16()?,
    })
}

fn put_info(out: &mut BytesMut, info: &MailInfo) {
    out.put_u128(info.id);
    out.put_u8(info.state as u8);
    out.put_u64(info.place);
    put_text(out, &info.name);
    out.put_u8(info.content_type);
    out.put_u32(info.payload_bytes);
    out.put_u64(info.created.0);
    put_option(out, info.expires_at.as_ref(), |out, at| out.put_u64(at.0));
    out.put_u16(info.requeues);
    out.put_u16(info.requeues_max);
    out.put_u32(u32::try_from(info.notes.len()).expect("a few"));
    for MailNote { at, what, by, detail } in &info.notes {
        out.put_u64(at.0);
        out.put_u8(*what as u8);
        out.put_u8(*by);
        put_text(out, detail);
    }
    out.put_u32(info.notes_dropped);
}

fn noted(reader: &mut Reader) -> Result<Noted, Malformed> {
    let number = reader.u8()?;
    Noted::from_number(number).ok_or_else(|| reader.malformed())
}

fn read_info(reader: &mut Reader) -> Result<MailInfo, Malformed> {
    Ok(MailInfo {
        id: reader.u128()?,
        state: noted(reader)?,
        place: reader.u64()?,
        name: reader.text()?,
        content_type: reader.u8()?,
        payload_bytes: reader.u32()?,
        created: reader.millis()?,
        expires_at: reader.option(Reader::millis)?,
        requeues: reader.u16()?,
        requeues_max: reader.u16()?,
        notes: reader.list(14, |reader| {
            Ok(MailNote {
                at: reader.millis()?,
                what: noted(reader)?,
                by: reader.u8()?,
                detail: reader.text()?,
            })
        })?,
        notes_dropped: reader.u32()?,
    })
}

impl Found {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out;
        match self {
            Self::Device(device) => {
                out = begin(1);
                put_option(&mut out, device.as_ref(), put_row);
            }
            Self::Lookup(owner) => {
                out = begin(2);
                put_option(&mut out, owner.as_ref(), put_row);
            }
            Self::Devices(page) => {
                out = begin(3);
                out.put_u32(u32::try_from(page.devices.len()).expect("a page"));
                for (name, record) in &page.devices {
                    put_text(&mut out, name);
                    put_row(&mut out, record);
                }
                put_option(&mut out, page.next.as_ref(), put_cursor);
            }
            Self::Front(front) => {
                out = begin(4);
                put_option(&mut out, front.as_ref(), |out, (mail, size)| {
                    put_mail(out, mail);
                    out.put_u32(*size);
                });
            }
            Self::Changed => out = begin(CHANGED),
            Self::Mail(found) => {
                out = begin(5);
                put_option(&mut out, found.as_ref(), |out, (info, payload)| {
                    put_info(out, info);
                    put_option(out, payload.as_ref(), put_bytes);
                });
            }
            Self::Mails(page) => {
                out = begin(6);
                out.put_u32(u32::try_from(page.mails.len()).expect("a page"));
                page.mails.iter().for_each(|info| put_info(&mut out, info));
                out.put_u8(u8::from(page.more));
            }
            Self::Events(page) => out = events::put_page(page),
            Self::Consumers(page) => out = events::put_consumers(page),
            Self::Subscriptions(filters) => {
                out = begin(SUBSCRIPTIONS);
                put_list(&mut out, filters, put_text);
            }
            Self::Session(found) => out = session::put_found(*found),
            Self::Presence(found) => out = presence::put_found(found),
            Self::Audit(page) => out = audit::put_page(page),
            Self::Attributes(found) => out = values::put_attributes(found.as_ref()),
            Self::Marks(found) => out = marks::put_found(*found),
            Self::Latest(found) => out = values::put_latest(found.as_ref()),
            Self::History(found) => out = values::put_history(found.as_ref()),
            Self::Aggregate(found) => out = values::put_aggregate(found.as_ref()),
            Self::Calls(found) => out = calls::put_found(found),
            Self::Documents(found) => out = documents::put_found(found),
        }
        out.freeze()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for anything else.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let (kind, mut whole) = open(bytes, "answer to a question")?;
        let reader = &mut whole;
        let found = match kind {
            1 => Self::Device(reader.option(read_row)?),
            2 => Self::Lookup(reader.option(read_row)?),
            3 => Self::Devices(DevicesPage {
                devices: reader.list(8, |reader| Ok((reader.text()?, read_row(reader)?)))?,
                next: reader.option(read_cursor)?,
            }),
            4 => Self::Front(reader.option(|reader| Ok((read_mail(reader)?, reader.u32()?)))?),
            5 => Self::Mail(
                reader.option(|reader| Ok((read_info(reader)?, reader.option(read_bytes)?)))?,
            ),
            6 => Self::Mails(MailPage { mails: reader.list(40, read_info)?, more: reader.bool()? }),
            7 => Self::Events(events::read_page(reader)?),
            8 => Self::Consumers(events::read_consumers(reader)?),
            SUBSCRIPTIONS => Self::Subscriptions(reader.list(4, Reader::text)?),
            CHANGED => Self::Changed,
            session::KIND => Self::Session(session::read_found(reader)?),
            presence::KIND => Self::Presence(presence::read_found(reader)?),
            audit::KIND => Self::Audit(audit::read_page(reader)?),
            marks::KIND => Self::Marks(marks::read_found(reader)?),
            values::ATTRIBUTES => Self::Attributes(values::read_attributes(reader)?),
            values::LATEST => Self::Latest(values::read_latest(reader)?),
            values::HISTORY => Self::History(values::read_history(reader)?),
            values::AGGREGATE => Self::Aggregate(values::read_aggregate(reader)?),
            calls::ONE | calls::ALL => Self::Calls(calls::read_found(kind, reader)?),
            documents::ONE | documents::PAGE => {
                Self::Documents(documents::read_found(kind, reader)?)
            }
            _ => return Err(reader.malformed()),
        };
        whole.end()?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::UnixMillis;

    use super::*;

    fn mail() -> Mail {
        Mail {
            id: 7,
            name: "open-gate".into(),
            content_type: 1,
            payload: Bytes::from_static(b"{}"),
            created: UnixMillis(5),
            expires_at: Some(UnixMillis(9)),
            requeues: 2,
        }
    }

    fn info() -> MailInfo {
        let note =
            MailNote { at: UnixMillis(5), what: Noted::Queued, by: 3, detail: Text::from("why") };
        MailInfo {
            id: 7,
            state: Noted::Dead,
            place: 4,
            name: "open-gate".into(),
            content_type: 1,
            payload_bytes: 2,
            created: UnixMillis(5),
            expires_at: None,
            requeues: 2,
            requeues_max: 3,
            notes: vec![note],
            notes_dropped: 1,
        }
    }

    #[test]
    fn questions_come_through() {
        let (tenant, device) = (TenantId(3), Text::from("pump"));
        let after = Some(DeviceCursor { bucket: 9, device: device.clone() });
        for query in [
            Query::Device { tenant, device: device.clone() },
            Query::Lookup { hash: LookupHash([7; 32]) },
            Query::Devices { tenant, after, items_max: 10 },
            Query::Devices { tenant, after: None, items_max: 10 },
            Query::Front { tenant, device: device.clone(), if_version: None },
            Query::Front { tenant, device: device.clone(), if_version: Some(7) },
            Query::Mail { tenant, device: device.clone(), id: 1 << 100 },
            Query::Mails { tenant, device, part: MailPart::Dead, after: 4, items_max: 10 },
        ] {
            let bytes = query.encode();
            assert_eq!(Query::decode(bytes.clone()).unwrap(), query);
            for cut in 0..bytes.len() {
                assert!(Query::decode(bytes.slice(..cut)).is_err(), "{query:?} {cut}");
            }
        }
    }

    #[test]
    fn answers_come_through() {
        let owner = Owner { tenant: TenantId(3), device: "pump".into(), born: 8 };
        let record = DeviceRecord {
            born: 8,
            version: 9,
            enabled: true,
            created: UnixMillis(1),
            updated: UnixMillis(2),
            credentials: Vec::new(),
            settings: Bytes::from_static(b"{}"),
        };
        let devices = vec![(Text::from("pump"), record.clone())];
        let next = Some(DeviceCursor { bucket: 9, device: "pump".into() });
        for found in [
            Found::Device(Some(record)),
            Found::Device(None),
            Found::Lookup(Some(owner)),
            Found::Devices(DevicesPage { devices, next }),
            Found::Front(Some((mail(), 3))),
            Found::Front(None),
            Found::Changed,
            Found::Mail(Some((info(), Some(Bytes::from_static(b"{}"))))),
            Found::Mail(Some((info(), None))),
            Found::Mails(MailPage { mails: vec![info(), info()], more: true }),
        ] {
            let bytes = found.encode();
            assert_eq!(Found::decode(bytes.clone()).unwrap(), found);
            for cut in 0..bytes.len() {
                assert!(Found::decode(bytes.slice(..cut)).is_err(), "{found:?} {cut}");
            }
        }
    }
}
