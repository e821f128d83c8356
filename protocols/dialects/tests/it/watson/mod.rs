//! Watson IoT by tables: every row of the platform's topics and URLs, and what is refused.

mod close;
mod connect;
mod http;
mod identity;
mod kept;
mod machine;
mod mail;
mod managed;
mod presence;
mod rest;
mod subscribe;
mod tasks;
mod topics;
mod violation;

use moorline_dialects::watson::identity::{ClientId, DeviceName};

pub(crate) fn client(id: &str) -> ClientId {
    ClientId::parse(id.as_bytes()).unwrap()
}

pub(crate) fn device(kind: &str, id: &str) -> DeviceName {
    DeviceName::new(kind.as_bytes(), id.as_bytes()).unwrap()
}
