//! An export of an application: devices move, keys are named.

use moorline_dialects::{
    export::READERS,
    losant::device::{About, Class},
};
use serde_json::json;

use super::{DEVICE, OTHER, id};

#[test]
fn devices_move_with_what_is_known_of_them_and_keys_are_named() {
    let (_, read) = READERS.iter().find(|(name, _)| *name == "losant").unwrap();
    let page = json!({
        "count": 2, "applicationId": "a", "items": [
            {
                "id": DEVICE, "deviceId": DEVICE, "name": "gw", "deviceClass": "gateway", "description": null,
                "attributes": [{ "name": "t", "dataType": "number", "description": "x" }],
                "tags": [{ "key": "site", "value": "north" }], "connectionInfo": { "connected": 1 },
            },
            { "deviceId": OTHER, "name": "leaf", "deviceClass": "peripheral", "gatewayId": DEVICE },
            { "deviceId": DEVICE, "name": "" },
            { "name": "nobody" },
        ],
    });
    let keys = json!([{ "id": OTHER, "key": "1f0a", "status": "active" }]);
    let export = read(&[page, keys]);
    let names: Vec<_> = export.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, [DEVICE, OTHER]);
    let abouts: Vec<_> =
        export.devices.iter().map(|device| About::read(&device.metadata)).collect();
    assert_eq!((abouts[0].class, abouts[0].attributes.len()), (Class::Gateway, 1));
    assert_eq!((abouts[1].class, abouts[1].gateway.clone()), (Class::Peripheral, Some(id(DEVICE))));
    assert_eq!([export.devices[0].gateway, export.devices[1].gateway], [true, false]);
    let left: Vec<_> = export.left.iter().map(|left| left.what.as_str()).collect();
    assert_eq!(left, [DEVICE, "value 1, item 4", "1f0a"]);
}
