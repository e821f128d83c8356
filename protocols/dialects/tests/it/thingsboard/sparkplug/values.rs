//! Values of all types, up and down.

use moorline_dialects::thingsboard::{
    sparkplug::{
        datatypes::DataType,
        messages::{Metric, MetricValue, Payload},
    },
    values::{Rules, Value},
};
use prost::Message;

use crate::thingsboard::support::{RULES, json, text};

#[test]
fn types_have_their_numbers() {
    for (at, datatype) in DataType::ALL.iter().enumerate() {
        let number = u32::try_from(at + 1).unwrap();
        assert_eq!((*datatype as u32, DataType::of(number)), (number, Some(*datatype)));
    }
    assert_eq!((DataType::of(0), DataType::of(35)), (None, None));
}

#[test]
fn a_value_is_kept_as_its_type_says() {
    use DataType::{
        Boolean, BooleanArray, Bytes, DataSet, DateTime, Double, DoubleArray, File, Float,
        FloatArray, Int8, Int16, Int16Array, Int32, Int64, String, StringArray, Template, Text,
        UInt8, UInt16, UInt32, UInt32Array, UInt64, UInt64Array, Uuid,
    };
    use MetricValue::{Boolean as Truth, Bytes as Octets, Double as D, Float as F, Int, Long};
    let octets = |bytes: &[u8]| Octets(bytes.to_vec());
    let said = |said: &str| MetricValue::Text(said.to_owned());
    let kept = |said: &str| Value::Json(json(said));
    #[rustfmt::skip]
    let table = [
        (Int8,    Int(0xff),                    Some(Value::Long(-1))),
        (Int8,    Int(0xffff_ffff),             Some(Value::Long(-1))),
        (Int8,    Int(127),                     Some(Value::Long(127))),
        (Int16,   Int(0x8000),                  Some(Value::Long(-32_768))),
        (Int32,   Int(0xffff_fffe),             Some(Value::Long(-2))),
        (Int32,   Long(5),                      Some(Value::Long(5))),
        (Int64,   Long(u64::MAX),               Some(Value::Long(-1))),
        (UInt8,   Int(255),                     Some(Value::Long(255))),
        (UInt16,  Int(65_535),                  Some(Value::Long(65_535))),
        (UInt32,  Int(u32::MAX),                Some(Value::Long(4_294_967_295))),
        (UInt32,  Long(7),                      Some(Value::Long(7))),
        (UInt64,  Long(u64::MAX),               Some(text("18446744073709551615"))),
        (DateTime, Long(1_700_000_000_000),     Some(Value::Long(1_700_000_000_000))),
        (Float,   F(0.1),                       Some(Value::Double(0.1))),
        (Double,  D(-2.5),                      Some(Value::Double(-2.5))),
        (Float,   F(f32::NAN),                  None),
        (Double,  D(f64::INFINITY),             None),
        (Boolean, Truth(true),                  Some(Value::Bool(true))),
        (String,  said("12"),                   Some(text("12"))),
        (Text,    said(""),                     Some(text(""))),
        (Uuid,    said("a-b"),                  Some(text("a-b"))),
        (Bytes,   octets(&[1, 0xff]),           Some(kept("[1,-1]"))),
        (Bytes,   octets(&[]),                  Some(kept("[]"))),
        (Int16Array,   octets(&[1, 0, 0xff, 0xff]),       Some(kept("[1,-1]"))),
        (UInt32Array,  octets(&[1, 0, 0, 0]),             Some(kept("[1]"))),
        (UInt64Array,  octets(&[0xff; 8]),                Some(kept("[18446744073709551615]"))),
        (FloatArray,   octets(&1.5_f32.to_le_bytes()),    Some(kept("[1.5]"))),
        (DoubleArray,  octets(&f64::NAN.to_le_bytes()),   Some(kept("[null]"))),
        (BooleanArray, octets(&[9, 0, 0, 0, 0b1010_0000, 0x80]), Some(kept("[true,false,true,false,false,false,false,false,true]"))),
        (StringArray,  octets(b"a\0\0b\0"),               Some(kept(r#"["a","","b"]"#))),
        (StringArray,  octets(b""),                       Some(kept("[]"))),
        (File,     octets(b"x"),                None),
        (DataSet,  MetricValue::DataSet(vec![1]), None),
        (Template, MetricValue::Template(vec![1]), None),
    ];
    for (datatype, value, expected) in table {
        assert_eq!(datatype.read(&value, &RULES), Ok(expected), "{datatype:?} {value:?}");
    }
    #[rustfmt::skip]
    let refused = [
        (Int32,   said("1")),
        (Int32,   F(1.0)),
        (Double,  Int(1)),
        (Boolean, Int(1)),
        (String,  Int(1)),
        (Bytes,   said("x")),
        (Int16Array,   octets(&[1])),
        (BooleanArray, octets(&[1, 0, 0])),
        (BooleanArray, octets(&[9, 0, 0, 0, 1])),
        (BooleanArray, octets(&[0xff, 0xff, 0xff, 0xff])),
        (StringArray,  octets(b"a")),
        (StringArray,  octets(b"\xff\0")),
    ];
    for (datatype, value) in refused {
        assert!(datatype.read(&value, &RULES).is_err(), "{datatype:?} {value:?}");
    }
    let short = Rules { text_bytes_max: Some(1), ..RULES };
    assert!(String.read(&said("ab"), &short).is_err());
}

#[test]
fn a_value_is_told_as_its_type_takes_it() {
    use DataType::{
        Boolean, Bytes, DataSet, DateTime, Double, Float, Int8, Int8Array, Int32, Int64, String,
        Text, UInt8, UInt16, UInt32, UInt64,
    };
    use MetricValue::{Boolean as Truth, Bytes as Octets, Double as D, Float as F, Int, Long};
    #[rustfmt::skip]
    let table = [
        (Int8,    Value::Long(-1),     Some(Int(u32::MAX))),
        (Int8,    Value::Long(128),    None),
        (Int32,   Value::Double(2.9),  Some(Int(2))),
        (Int32,   text("-3"),          Some(Int(0xffff_fffd))),
        (Int32,   text("x"),           None),
        (Int32,   Value::Bool(true),   Some(Int(1))),
        (UInt8,   Value::Long(-1),     None),
        (UInt16,  Value::Long(9),      Some(Int(9))),
        (UInt32,  Value::Long(9),      Some(Long(9))),
        (UInt32,  Value::Long(1 << 32), None),
        (Int64,   Value::Long(-1),     Some(Long(u64::MAX))),
        (UInt64,  text("18446744073709551615"), Some(Long(u64::MAX))),
        (DateTime, Value::Long(5),     Some(Long(5))),
        (Float,   Value::Double(0.5),  Some(F(0.5))),
        (Float,   Value::Double(1e300), None),
        (Double,  Value::Long(2),      Some(D(2.0))),
        (Double,  text("2.5"),         Some(D(2.5))),
        (Double,  Value::Json(json("[]")), None),
        (Boolean, Value::Bool(false),  Some(Truth(false))),
        (Boolean, Value::Long(1),      Some(Truth(true))),
        (Boolean, Value::Long(2),      None),
        (Boolean, text("true"),        Some(Truth(true))),
        (Boolean, text("yes"),         None),
        (String,  Value::Long(2),      Some(MetricValue::Text("2".to_owned()))),
        (Text,    text("a"),           Some(MetricValue::Text("a".to_owned()))),
        (Bytes,   Value::Json(json("[1,-1,255]")), Some(Octets(vec![1, 255, 255]))),
        (Bytes,   Value::Json(json("[256]")), None),
        (Bytes,   Value::Json(json(r#"["a"]"#)), None),
        (Bytes,   text("a"),           None),
        (DataSet, Value::Long(1),      None),
        (Int8Array, Value::Json(json("[1]")), None),
    ];
    for (datatype, value, expected) in table {
        assert_eq!(datatype.write(&value), expected, "{datatype:?} {value:?}");
    }
}

#[test]
fn bytes_are_as_the_schema_says() {
    // Written by hand: timestamp 1, a metric with name, alias, timestamp, datatype, is_null and a value, seq.
    #[rustfmt::skip]
    let bytes = [
        0x08, 5,
        0x12, 15, 0x0a, 1, b'a', 0x10, 9, 0x18, 6, 0x20, 11, 0x38, 0, 0x70, 1, 0x2a, 0,
        0x18, 3,
    ];
    let metric = Metric {
        name: Some("a".to_owned()),
        alias: Some(9),
        timestamp: Some(6),
        datatype: Some(11),
        is_null: Some(false),
        value: Some(MetricValue::Boolean(true)),
    };
    let expected = Payload { timestamp: Some(5), metrics: vec![metric], seq: Some(3) };
    assert_eq!(Payload::decode(&bytes[..]), Ok(expected));
    // What nests is not looked into: however deep it is.
    let mut nested = Vec::new();
    for _ in 0..200 {
        let inner = Metric { value: Some(MetricValue::Template(nested)), ..Metric::default() };
        nested = Payload { metrics: vec![inner], ..Payload::default() }.encode_to_vec();
    }
    assert!(Payload::decode(&nested[..]).is_ok());
    assert!(Payload::decode(&[0x12, 0xff][..]).is_err());
}
