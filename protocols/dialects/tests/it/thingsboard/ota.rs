//! Packages: attributes, telemetry, and the bytes of each part.

use moorline_dialects::thingsboard::{
    ota::{
        ChecksumAlgorithm, ChunkError, Package, PackageKind, Source, UpdateState, attribute_keys,
        chunk, chunk_size, is_assigned, reported_state,
    },
    values::{Value, object},
};

use super::support::{NOW_MS, entries, text};

fn package(kind: PackageKind, source: Source) -> Package {
    let text = str::to_owned;
    Package { kind, title: text("app"), version: text("1.2"), tag: text("app 1.2"), source }
}

fn stored() -> Source {
    let (algorithm, checksum) = (ChecksumAlgorithm::Sha256, "abcd".to_owned());
    Source::Stored { size: 1000, algorithm, checksum }
}

#[test]
fn an_assignment_is_said_by_attributes_and_telemetry() {
    let firmware = package(PackageKind::Firmware, stored());
    assert_eq!(
        object(&firmware.attributes()).to_string(),
        r#"{"fw_title":"app","fw_version":"1.2","fw_tag":"app 1.2","fw_size":1000,"fw_checksum_algorithm":"SHA256","fw_checksum":"abcd"}"#
    );
    assert_eq!(firmware.stale_attributes(), ["fw_url"]);
    assert_eq!(
        object(&firmware.target_telemetry(NOW_MS)).to_string(),
        format!(
            r#"{{"target_fw_title":"app","target_fw_version":"1.2","target_fw_tag":"app 1.2","target_fw_ts":{NOW_MS},"fw_state":"QUEUED"}}"#
        )
    );
    let software = package(PackageKind::Software, Source::Url("http://x/y".to_owned()));
    assert_eq!(
        object(&software.attributes()).to_string(),
        r#"{"sw_title":"app","sw_version":"1.2","sw_tag":"app 1.2","sw_url":"http://x/y"}"#
    );
    assert_eq!(software.stale_attributes(), ["sw_size", "sw_checksum_algorithm", "sw_checksum"]);
    for package in [firmware, software] {
        let keys = attribute_keys(package.kind);
        assert!(package.attributes().iter().all(|(key, _)| keys.contains(key)));
        assert!(package.stale_attributes().iter().all(|key| keys.contains(key)));
    }
}

#[test]
fn algorithms_and_states_have_names() {
    let names = ChecksumAlgorithm::ALL.map(ChecksumAlgorithm::name);
    let expected = ["MD5", "SHA256", "SHA384", "SHA512", "CRC32", "MURMUR3_32", "MURMUR3_128"];
    assert_eq!(names, expected);
    for algorithm in ChecksumAlgorithm::ALL {
        assert_eq!(ChecksumAlgorithm::by_name(algorithm.name()), Some(algorithm));
    }
    assert_eq!(ChecksumAlgorithm::by_name("SHA1"), None);
    assert_eq!(UpdateState::Updated.name(), "UPDATED");
    let reported = entries(&[("fw_state", text("DOWNLOADED")), ("sw_state", Value::Long(1))]);
    assert_eq!(reported_state(PackageKind::Firmware, &reported), Some("DOWNLOADED"));
    assert_eq!(reported_state(PackageKind::Software, &reported), None);
}

#[test]
fn the_size_of_a_part_is_said_once_or_always() {
    let malformed = Err(ChunkError::Malformed);
    #[rustfmt::skip]
    let table: [(&[u8], Option<u64>, Result<u64, ChunkError>); 10] = [
        (b"",            None,       Ok(0)),
        (b"",            Some(512),  Ok(512)),
        (b"1024",        Some(512),  Ok(1024)),
        (b"0",           None,       Ok(0)),
        (b"9999999999",  None,       Ok(9_999_999_999)),
        (b"99999999999", None,       malformed),
        (b"-1",          None,       malformed),
        (b"+1",          None,       malformed),
        (b"1k",          Some(512),  malformed),
        (b"\xff",        Some(512),  malformed),
    ];
    for (payload, earlier, expected) in table {
        assert_eq!(chunk_size(payload, earlier), expected, "{payload:?}");
    }
}

#[test]
fn a_part_is_cut_out_and_beyond_the_end_is_nothing() {
    const MAX: u64 = 65_536;
    #[rustfmt::skip]
    let table = [
        // total, size, part
        (1000, 0,        0,        Ok(0..1000)),
        (1000, 0,        1,        Ok(1000..1000)),
        (1000, 400,      0,        Ok(0..400)),
        (1000, 400,      2,        Ok(800..1000)),
        (1000, 400,      3,        Ok(1000..1000)),
        (1000, 500,      2,        Ok(1000..1000)),
        (1000, 5000,     0,        Ok(0..1000)),
        (0,    0,        0,        Ok(0..0)),
        (1000, u64::MAX, u64::MAX, Ok(1000..1000)),
        (MAX + 1, 0,     0,        Err(ChunkError::TooLarge)),
        (MAX + 1, MAX,   0,        Ok(0..MAX)),
        (MAX + 1, MAX,   1,        Ok(MAX..MAX + 1)),
        (2 * MAX, MAX + 1, 0,      Err(ChunkError::TooLarge)),
    ];
    for (total, size, part, expected) in table {
        assert_eq!(chunk(total, size, part, MAX), expected, "{total} {size} {part}");
    }
    assert_eq!(ChunkError::TooLarge.to_string(), "PAYLOAD_TOO_LARGE");
    assert_eq!(ChunkError::NotFound.to_string(), "NOT_FOUND");
}

#[test]
fn a_download_may_name_the_package() {
    let package = package(PackageKind::Firmware, stored());
    #[rustfmt::skip]
    let table = [
        (None, None, true), (Some("app"), Some("1.2"), true), (Some("app"), None, true),
        (Some("App"), Some("1.2"), false), (Some("app"), Some("1.3"), false), (None, Some(""), false),
    ];
    for (title, version, expected) in table {
        assert_eq!(is_assigned(&package, title, version), expected, "{title:?} {version:?}");
    }
}
