//! Checksums of packages, against what the vendor's SDK for Python comes to.

use moorline_dialects::thingsboard::{
    checksum::Checksum,
    ota::ChecksumAlgorithm::{self, Crc32, Md5, Murmur3x32, Murmur3x128, Sha256, Sha384, Sha512},
};

fn digits(algorithm: ChecksumAlgorithm, parts: &[&[u8]]) -> String {
    let mut checksum = Checksum::new(algorithm);
    parts.iter().for_each(|part| checksum.add(part));
    checksum.digits()
}

#[test]
fn each_is_what_devices_come_to() {
    let counted: Vec<u8> = (0..100).collect();
    #[rustfmt::skip]
    let table: [(&[u8], [(ChecksumAlgorithm, &str); 7]); 2] = [
        (b"firmware", [
            (Crc32, "c4d7ecd5"), (Murmur3x32, "2b8ddd06"), (Murmur3x128, "4974ec77e3c8a8ec05acb4ebfdaa2e48"),
            (Md5, "74b5b5e9570efc5c0553bb327cd41940"), (Sha256, "c3bf47ea1f4a4a60"),
            (Sha384, "bbf7209c1a756b27"), (Sha512, "cb62559d659cd5d6"),
        ]),
        (&counted, [
            (Crc32, "f532c958"), (Murmur3x32, "433865fc"), (Murmur3x128, "ca5140c199996fb0990734c8936dbd0f"),
            (Md5, "7acedd1a84a4cfcb6e7a16003242945e"), (Sha256, "bce0aff19cf5aa6a"),
            (Sha384, "3d20e33ba4d52a8c"), (Sha512, "af216a7122d29d6a"),
        ]),
    ];
    for (bytes, sums) in table {
        for (algorithm, begins) in sums {
            let whole = digits(algorithm, &[bytes]);
            assert!(whole.starts_with(begins), "{algorithm:?}: {whole}");
            // It does not matter how it is cut.
            for at in [0, 1, 5, bytes.len()] {
                let (one, two) = bytes.split_at(at);
                assert_eq!(digits(algorithm, &[one, two]), whole, "{algorithm:?} at {at}");
            }
        }
    }
}

#[test]
fn each_has_a_name() {
    for algorithm in ChecksumAlgorithm::ALL {
        assert_eq!(ChecksumAlgorithm::by_name(algorithm.name()), Some(algorithm));
        assert_eq!(serde_json::json!(algorithm), algorithm.name());
    }
}
