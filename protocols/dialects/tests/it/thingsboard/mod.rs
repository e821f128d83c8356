//! ThingsBoard by tables: every topic, URL and payload of its specification, and what is refused.

mod aggregation;
mod attributes;
mod calls;
mod claim;
mod coap;
mod connect;
mod credentials;
mod decimal;
mod filters;
mod gateway;
mod http;
mod json;
mod limits;
mod mqtt;
mod ota;
mod payloads;
mod profile;
mod proto;
mod provision;
mod rest;
mod schema;
mod support;
mod telemetry;
mod topics;
mod values;
mod websocket;
