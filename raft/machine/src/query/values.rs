//! Questions about values: their bytes.

use bytes::{BufMut, BytesMut};
use moorline_core::{Text, Value};

use super::{Query, begin};
use crate::{
    codec::{
        Malformed, Reader, put_list, put_option, put_text, put_value, put_values, read_scope,
        read_value, read_values,
    },
    shard::{AggregateQuery, HistoryQuery},
    values::{AggregatePage, Attribute, Attributes, HistoryPage, Latest, Point, aggregate::Taken},
};

/// The kinds of questions and answers.
pub(super) const ATTRIBUTES: u8 = 90;
pub(super) const LATEST: u8 = 91;
pub(super) const HISTORY: u8 = 92;
pub(super) const AGGREGATE: u8 = 93;
/// The least bytes of things: let counts be checked before anything is allocated for them.
const TEXT_BYTES_MIN: usize = 4;
const TIMED_BYTES_MIN: usize = 13;
const POINT_BYTES_MIN: usize = 12;
const SERIES_BYTES_MIN: usize = 8;
const TAKEN_BYTES_MIN: usize = 51;

#[expect(clippy::wildcard_enum_match_arm, reason = "the match that calls this names every query")]
pub(super) fn put_query(query: &Query) -> BytesMut {
    match query {
        Query::Attributes { tenant, device, scope, keys, since } => {
            let mut out = begin(ATTRIBUTES);
            out.put_u32(tenant.0);
            put_text(&mut out, device);
            put_list(&mut out, keys, put_text);
            out.put_u8(*scope as u8);
            put_option(&mut out, *since, BufMut::put_u64);
            out
        }
        Query::Latest { tenant, device, keys } => {
            let mut out = begin(LATEST);
            out.put_u32(tenant.0);
            put_text(&mut out, device);
            put_list(&mut out, keys, put_text);
            out
        }
        Query::History(query) => {
            let mut out = begin(HISTORY);
            out.put_u32(query.tenant.0);
            put_text(&mut out, &query.device);
            put_list(&mut out, &query.keys, put_text);
            out.put_i64(query.from_ms);
            out.put_i64(query.to_ms);
            out.put_u8(u8::from(query.descending));
            out.put_u16(query.points_max);
            out
        }
        Query::Aggregate(query) => {
            let mut out = begin(AGGREGATE);
            out.put_u32(query.tenant.0);
            put_text(&mut out, &query.device);
            put_list(&mut out, &query.keys, put_text);
            out.put_i64(query.start_ms);
            out.put_i64(query.from_ms);
            out.put_i64(query.to_ms);
            out.put_u64(query.interval_ms);
            out
        }
        other => unreachable!("encode writes {other:?} itself"),
    }
}

/// Reads what follows the kinds from [`ATTRIBUTES`] to [`AGGREGATE`].
pub(super) fn read_query(kind: u8, reader: &mut Reader) -> Result<Query, Malformed> {
    let (tenant, device) = (reader.tenant()?, reader.text()?);
    let keys = reader.list(TEXT_BYTES_MIN, Reader::text)?;
    Ok(match kind {
        ATTRIBUTES => {
            let (scope, since) = (read_scope(reader)?, reader.option(Reader::u64)?);
            Query::Attributes { tenant, device, scope, keys, since }
        }
        LATEST => Query::Latest { tenant, device, keys },
        HISTORY => Query::History(HistoryQuery {
            tenant,
            device,
            keys,
            from_ms: reader.i64()?,
            to_ms: reader.i64()?,
            descending: reader.bool()?,
            points_max: reader.u16()?,
        }),
        _ => Query::Aggregate(AggregateQuery {
            tenant,
            device,
            keys,
            start_ms: reader.i64()?,
            from_ms: reader.i64()?,
            to_ms: reader.i64()?,
            interval_ms: reader.u64()?,
        }),
    })
}

pub(super) fn put_attributes(found: Option<&Attributes>) -> BytesMut {
    let mut out = begin(ATTRIBUTES);
    put_option(&mut out, found, |out, found| {
        let Attributes { born, version, forgotten, told, set, gone } = found;
        out.put_u64(*born);
        out.put_u64(*version);
        out.put_u64(*forgotten);
        put_option(out, *told, BufMut::put_u64);
        put_list(out, set, |out, Attribute { key, value, at }| {
            put_text(out, key);
            put_value(out, value);
            out.put_u64(at.0);
        });
        put_list(out, gone, put_text);
    });
    out
}

pub(super) fn read_attributes(reader: &mut Reader) -> Result<Option<Attributes>, Malformed> {
    reader.option(|reader| {
        Ok(Attributes {
            born: reader.u64()?,
            version: reader.u64()?,
            forgotten: reader.u64()?,
            told: reader.option(Reader::u64)?,
            set: reader.list(TIMED_BYTES_MIN, |reader| {
                let (key, value) = (reader.text()?, read_value(reader)?);
                Ok(Attribute { key, value, at: reader.millis()? })
            })?,
            gone: reader.list(TEXT_BYTES_MIN, Reader::text)?,
        })
    })
}

pub(super) fn put_latest(found: Option<&Latest>) -> BytesMut {
    let mut out = begin(LATEST);
    put_option(&mut out, found, |out, Latest { born, values }| {
        out.put_u64(*born);
        put_list(out, values, |out, (key, ts_ms, value)| {
            put_text(out, key);
            out.put_i64(*ts_ms);
            put_value(out, value);
        });
    });
    out
}

pub(super) fn read_latest(reader: &mut Reader) -> Result<Option<Latest>, Malformed> {
    reader.option(|reader| {
        Ok(Latest {
            born: reader.u64()?,
            values: reader.list(TIMED_BYTES_MIN, |reader| {
                Ok((reader.text()?, reader.i64()?, read_value(reader)?))
            })?,
        })
    })
}

pub(super) fn put_history(found: Option<&HistoryPage>) -> BytesMut {
    let mut out = begin(HISTORY);
    put_option(&mut out, found, |out, HistoryPage { points, next }| {
        put_list(out, points, |out, Point { ts_ms, values }| {
            out.put_i64(*ts_ms);
            put_values(out, values);
        });
        put_option(out, *next, BufMut::put_i64);
    });
    out
}

pub(super) fn read_history(reader: &mut Reader) -> Result<Option<HistoryPage>, Malformed> {
    reader.option(|reader| {
        Ok(HistoryPage {
            points: reader.list(POINT_BYTES_MIN, |reader| {
                Ok(Point { ts_ms: reader.i64()?, values: read_values(reader)? })
            })?,
            next: reader.option(Reader::i64)?,
        })
    })
}

pub(super) fn put_aggregate(found: Option<&AggregatePage>) -> BytesMut {
    let mut out = begin(AGGREGATE);
    put_option(&mut out, found, |out, AggregatePage { series, next }| {
        put_list(out, series, |out, (key, intervals)| {
            put_text(out, key);
            put_list(out, intervals, |out, (start_ms, taken)| {
                out.put_i64(*start_ms);
                put_taken(out, taken);
            });
        });
        put_option(out, *next, BufMut::put_i64);
    });
    out
}

pub(super) fn read_aggregate(reader: &mut Reader) -> Result<Option<AggregatePage>, Malformed> {
    reader.option(|reader| {
        Ok(AggregatePage {
            series: reader.list(SERIES_BYTES_MIN, |reader| {
                let key: Text = reader.text()?;
                let intervals =
                    reader.list(TAKEN_BYTES_MIN, |reader| Ok((reader.i64()?, read_taken(reader)?)));
                Ok((key, intervals?))
            })?,
            next: reader.option(Reader::i64)?,
        })
    })
}

fn put_taken(out: &mut BytesMut, taken: &Taken) {
    let Taken { count, numbers, doubles, longs_sum, doubles_sum, min, max } = taken;
    out.put_u64(*count);
    out.put_u64(*numbers);
    out.put_u64(*doubles);
    out.put_u128(longs_sum.cast_unsigned());
    put_option(out, doubles_sum.map(Value::Double).as_ref(), put_value);
    put_option(out, min.as_ref(), put_value);
    put_option(out, max.as_ref(), put_value);
}

fn read_taken(reader: &mut Reader) -> Result<Taken, Malformed> {
    Ok(Taken {
        count: reader.u64()?,
        numbers: reader.u64()?,
        doubles: reader.u64()?,
        longs_sum: reader.u128()?.cast_signed(),
        doubles_sum: reader.option(|reader| match read_value(reader)? {
            Value::Double(sum) => Ok(sum),
            Value::Bool(_) | Value::Long(_) | Value::Text(_) | Value::Json(_) => {
                Err(reader.malformed())
            }
        })?,
        min: reader.option(read_value)?,
        max: reader.option(read_value)?,
    })
}

#[cfg(test)]
mod tests {
    use moorline_core::{AttributeScope, Double, TenantId, UnixMillis};

    use super::*;
    use crate::query::Found;

    #[test]
    fn questions_about_values_come_through() {
        let (tenant, device) = (TenantId(3), || Text::from("pump"));
        let keys = || vec![Text::from("t"), Text::from("p")];
        let (scope, device_of) = (AttributeScope::Shared, device);
        let attributes = |keys, since| {
            let device = device_of();
            Query::Attributes { tenant, device, scope, keys, since }
        };
        let history = HistoryQuery {
            tenant,
            device: device(),
            keys: keys(),
            from_ms: -1,
            to_ms: 2,
            descending: true,
            points_max: 3,
        };
        let aggregate = AggregateQuery {
            tenant,
            device: device(),
            keys: Vec::new(),
            start_ms: -1,
            from_ms: 1,
            to_ms: 2,
            interval_ms: 4,
        };
        for query in [
            attributes(keys(), Some(7)),
            attributes(Vec::new(), None),
            Query::Latest { tenant, device: device(), keys: keys() },
            Query::History(history),
            Query::Aggregate(aggregate),
        ] {
            let bytes = query.encode();
            assert_eq!(Query::decode(bytes.clone()).unwrap(), query);
            for cut in 0..bytes.len() {
                assert!(Query::decode(bytes.slice(..cut)).is_err(), "{query:?} {cut}");
            }
        }
    }

    #[test]
    fn answers_about_values_come_through() {
        let (key, value) = (|| Text::from("t"), Value::Long(4));
        let set = vec![Attribute { key: key(), value: value.clone(), at: UnixMillis(5) }];
        let told = Some(4);
        let attributes =
            Attributes { born: 1, version: 2, forgotten: 3, told, set, gone: vec![key()] };
        let points = vec![Point { ts_ms: -1, values: vec![(key(), Value::Bool(true))] }];
        let taken = Taken {
            count: 3,
            numbers: 2,
            doubles: 1,
            longs_sum: -9,
            doubles_sum: Some(Double::nearest(1.5)),
            min: Some(value.clone()),
            max: None,
        };
        let series = vec![(key(), vec![(-1, taken), (5, Taken::default())])];
        for found in [
            Found::Attributes(None),
            Found::Attributes(Some(attributes)),
            Found::Latest(None),
            Found::Latest(Some(Latest { born: 1, values: vec![(key(), -7, value)] })),
            Found::History(None),
            Found::History(Some(HistoryPage { points, next: Some(-3) })),
            Found::History(Some(HistoryPage::default())),
            Found::Aggregate(None),
            Found::Aggregate(Some(AggregatePage { series, next: Some(8) })),
        ] {
            let bytes = found.encode();
            assert_eq!(Found::decode(bytes.clone()).unwrap(), found);
            for cut in 0..bytes.len() {
                assert!(Found::decode(bytes.slice(..cut)).is_err(), "{found:?} {cut}");
            }
        }
    }
}
