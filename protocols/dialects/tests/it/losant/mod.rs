//! Losant's dialect by tables.

use moorline_dialects::losant::id::Id;

mod access;
mod command;
mod connect;
mod data;
mod device;
mod export;
mod gps;
mod limits;
mod list;
mod mail;
mod meant;
mod presence;
mod rest;
mod state;
mod topics;
mod when;

/// 2026-01-02T03:04:05.678Z
const NOW: i64 = 1_767_323_045_678;
const DEVICE: &str = "5f0c9a1b2c3d4e5f60718293";
const OTHER: &str = "00000000000000000000beef";

fn id(text: &str) -> Id {
    Id::parse(text.as_bytes()).unwrap()
}
