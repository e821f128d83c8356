//! Ids that lead to what they name.

use moorline_core::TenantId;
use moorline_dialects::thingsboard::rest::ids::{
    DevicePlace, NOBODY, device, device_of_part, of_device, of_named, of_part, of_tenant,
};
use proptest::prelude::*;
use uuid::{Uuid, Variant, Version};

const TENANT: TenantId = TenantId(7);

#[test]
fn they_are_what_they_were() {
    // Integrators keep them: these are for ever.
    let place = DevicePlace { bucket: 0xABC, born: 0x0123_4567_89AB_CDEF };
    #[rustfmt::skip]
    let table = [
        (of_device(place),              "abc01234-5678-89ab-b37b-c00000000000"),
        (of_part(place, u64::MAX),      "abc01234-5678-89ab-b37b-ffffffffffff"),
        (of_part(place, 0),             "abc01234-5678-89ab-b37b-c00000000001"),
        (of_tenant(TENANT),             "00000000-0000-8000-8000-00000000000f"),
        (NOBODY,                        "13814000-1dd2-11b2-8080-808080808080"),
    ];
    for (id, text) in table {
        assert_eq!(id.to_string(), text);
    }
    assert_eq!(of_named(TENANT, "default"), of_named(TENANT, "default"));
    assert_ne!(of_named(TENANT, "default"), of_named(TENANT, "pump"));
    assert_ne!(of_named(TENANT, "default"), of_named(TenantId(8), "default"));
}

#[test]
fn what_is_no_id_of_a_device_leads_nowhere() {
    let place = DevicePlace { bucket: 1, born: 1 };
    let others = [
        NOBODY,
        Uuid::nil(),
        Uuid::max(),
        of_tenant(TENANT),
        of_named(TENANT, "default"),
        "784f394c-42b6-11ee-983c-b7beff2784f9".parse().unwrap(),
    ];
    for id in others {
        assert_eq!((device(id), device_of_part(id)), (None, None), "{id}");
    }
    assert_eq!(device_of_part(of_device(place)), None);
    assert_eq!(device(of_part(place, 5)), None);
}

proptest! {
    #[test]
    fn they_lead_where_they_came_from(bucket in 0_u16..4096, born in 1_u64.., number: u64) {
        let place = DevicePlace { bucket, born };
        let (whole, part) = (of_device(place), of_part(place, number));
        prop_assert_eq!(device(whole), Some(place));
        prop_assert_eq!(device_of_part(part), Some(place));
        for id in [whole, part] {
            prop_assert_eq!(id.get_version(), Some(Version::Custom));
            prop_assert_eq!(id.get_variant(), Variant::RFC4122);
        }
    }
}
