//! Reports of presence in bytes, and the bodies of the events that the machine itself appends.

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{Incarnation, NodeId, UnixMillis};

use super::{Malformed, Reader, put_list, put_option, put_text};
use crate::{
    events::Retention,
    mail::MailNews,
    presence::{PresenceNews, PresenceReport, ReportPresence},
};

/// Frozen: logs hold this number.
pub(super) const REPORT: u8 = 74;
/// The version of the bodies of events.
const NEWS_VERSION: u8 = 1;
/// The least bytes of a report: lets a count be checked before anything is allocated for it.
const REPORT_BYTES_MIN: usize = 32;

const OPEN: u8 = 1;
const CAME: u8 = 2;

/// Writes a command, its kind included.
pub(super) fn put_command(out: &mut BytesMut, command: &ReportPresence) {
    let ReportPresence { node, incarnation, reports } = command;
    out.put_u8(REPORT);
    out.put_u64(node.0);
    out.put_u64(incarnation.0);
    put_list(out, reports, |out, report| {
        let PresenceReport {
            tenant,
            device,
            born,
            open,
            came,
            heard_ago_ms,
            by,
            credential,
            offline_after_s,
            events,
        } = report;
        out.put_u32(tenant.0);
        put_text(out, device);
        out.put_u64(*born);
        out.put_u8(if *open { OPEN } else { 0 } | if *came { CAME } else { 0 });
        put_option(out, *heard_ago_ms, BufMut::put_u32);
        out.put_u8(*by);
        out.put_u64(*credential);
        out.put_u32(*offline_after_s);
        put_option(out, *events, put_retention);
    });
}

/// Reads what follows [`REPORT`].
pub(super) fn read_command(reader: &mut Reader) -> Result<ReportPresence, Malformed> {
    Ok(ReportPresence {
        node: NodeId(reader.u64()?),
        incarnation: Incarnation(reader.u64()?),
        reports: reader.list(REPORT_BYTES_MIN, |reader| {
            let (tenant, device, born) = (reader.tenant()?, reader.text()?, reader.u64()?);
            let flags = reader.u8()?;
            if flags & !(OPEN | CAME) != 0 {
                return Err(reader.malformed());
            }
            Ok(PresenceReport {
                tenant,
                device,
                born,
                open: flags & OPEN != 0,
                came: flags & CAME != 0,
                heard_ago_ms: reader.option(Reader::u32)?,
                by: reader.u8()?,
                credential: reader.u64()?,
                offline_after_s: reader.u32()?,
                events: reader.option(read_retention)?,
            })
        })?,
    })
}

pub(crate) fn put_retention(out: &mut BytesMut, retention: Retention) {
    out.put_u32(retention.keep_s);
    out.put_u64(retention.bytes_max);
}

pub(crate) fn read_retention(reader: &mut Reader) -> Result<Retention, Malformed> {
    Ok(Retention { keep_s: reader.u32()?, bytes_max: reader.u64()? })
}

pub(crate) fn put_time(out: &mut BytesMut, at: UnixMillis) {
    out.put_u64(at.0);
}

pub(crate) fn encode_presence_news(news: &PresenceNews) -> Bytes {
    let PresenceNews { node, connected, disconnected, heard } = news;
    let mut out = BytesMut::with_capacity(40);
    out.put_u8(NEWS_VERSION);
    out.put_u64(node.0);
    put_option(&mut out, *connected, put_time);
    put_option(&mut out, *disconnected, put_time);
    out.put_u64(heard.0);
    out.freeze()
}

pub(crate) fn decode_presence_news(body: Bytes) -> Result<PresenceNews, Malformed> {
    let mut reader = news(body)?;
    let news = PresenceNews {
        node: NodeId(reader.u64()?),
        connected: reader.option(Reader::millis)?,
        disconnected: reader.option(Reader::millis)?,
        heard: reader.millis()?,
    };
    reader.end()?;
    Ok(news)
}

pub(crate) fn encode_mail_news(news: &MailNews) -> Bytes {
    let MailNews { id, name, requeues, detail } = news;
    let mut out = BytesMut::with_capacity(32 + name.len() + detail.len());
    out.put_u8(NEWS_VERSION);
    out.put_u128(*id);
    put_text(&mut out, name);
    out.put_u16(*requeues);
    put_text(&mut out, detail);
    out.freeze()
}

pub(crate) fn decode_mail_news(body: Bytes) -> Result<MailNews, Malformed> {
    let mut reader = news(body)?;
    let news = MailNews {
        id: reader.u128()?,
        name: reader.text()?,
        requeues: reader.u16()?,
        detail: reader.text()?,
    };
    reader.end()?;
    Ok(news)
}

fn news(body: Bytes) -> Result<Reader, Malformed> {
    let mut reader = Reader::new(body, "body of an event");
    if reader.u8()? == NEWS_VERSION { Ok(reader) } else { Err(reader.malformed()) }
}

/// A command with its frame but for the length in front: for the tests of all commands.
#[cfg(test)]
pub(super) fn every_command() -> Vec<(crate::Command, &'static str)> {
    use moorline_core::TenantId;

    let report = PresenceReport {
        tenant: TenantId(7),
        device: "d".into(),
        born: 9,
        open: true,
        came: true,
        heard_ago_ms: Some(5),
        by: 3,
        credential: 4,
        offline_after_s: 6,
        events: Some(Retention { keep_s: 1, bytes_max: 2 }),
    };
    let silent = PresenceReport {
        open: false,
        came: false,
        heard_ago_ms: None,
        events: None,
        ..report.clone()
    };
    let of = |report| {
        let (node, incarnation) = (NodeId(1), Incarnation(2));
        crate::Command::Presence(ReportPresence { node, incarnation, reports: vec![report] })
    };
    #[rustfmt::skip]
    let all = [
        (of(report),
            "4a 0000000000000001 0000000000000002 00000001 00000007 00000001 64 0000000000000009 03 \
             01 00000005 03 0000000000000004 00000006 01 00000001 0000000000000002"),
        (of(silent),
            "4a 0000000000000001 0000000000000002 00000001 00000007 00000001 64 0000000000000009 00 \
             00 03 0000000000000004 00000006 00"),
    ];
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::hex;

    #[test]
    fn bodies_of_events_keep_their_bytes() {
        // Frozen: streams hold these.
        let news = PresenceNews {
            node: NodeId(1),
            connected: Some(UnixMillis(2)),
            disconnected: None,
            heard: UnixMillis(3),
        };
        let body = news.encode();
        let expected = "01 0000000000000001 01 0000000000000002 00 0000000000000003";
        assert_eq!(hex(&body), expected.replace(' ', ""));
        assert_eq!(PresenceNews::decode(body.clone()).unwrap(), news);
        let mail = MailNews { id: 1, name: "n".into(), requeues: 2, detail: "w".into() };
        let mail_body = mail.encode();
        let expected = "01 00000000000000000000000000000001 00000001 6e 0002 00000001 77";
        assert_eq!(hex(&mail_body), expected.replace(' ', ""));
        assert_eq!(MailNews::decode(mail_body.clone()).unwrap(), mail);
        for len in 0..body.len() {
            assert!(PresenceNews::decode(body.slice(..len)).is_err(), "{len}");
        }
        for len in 0..mail_body.len() {
            assert!(MailNews::decode(mail_body.slice(..len)).is_err(), "{len}");
        }
    }
}
