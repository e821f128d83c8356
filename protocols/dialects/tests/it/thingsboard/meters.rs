//! Who has how much left of its limits.

use moorline_dialects::thingsboard::{
    calls::DeviceCall,
    gateway::{self, DeviceTelemetry},
    json::Json,
    limits::{Limit, Rate, RateLimits},
    meters::{Cost, Exceeded, Meters, TOLD_MS_MIN, What},
    ota::PackageKind,
    requests::{PackageRequest, Request},
    values::{Sample, Value},
};

use super::support::entries;

fn limits(messages: &str, telemetry_messages: &str, telemetry_data_points: &str) -> RateLimits {
    let read = |text| Limit::read(text).unwrap();
    RateLimits {
        messages: read(messages),
        telemetry_messages: read(telemetry_messages),
        telemetry_data_points: read(telemetry_data_points),
    }
}

fn telemetry(data_points: u64) -> Cost {
    Cost::Telemetry { data_points }
}

#[test]
fn each_message_counts_once_and_a_refused_one_takes_nothing() {
    let limits = limits("2:1,3:60", "2:1", "10:1");
    let no = |what, capacity, seconds| Some((what, Rate { capacity, seconds }));
    #[rustfmt::skip]
    let table = [
        (0,     telemetry(10), None),
        (0,     Cost::Message, None),
        (0,     Cost::Message, None),
        (0,     Cost::Message, no(What::Messages, 2, 1)),
        (0,     telemetry(1),  no(What::TelemetryDataPoints, 10, 1)),
        // The refused one has left the other limit as it was.
        (100,   telemetry(1),  None),
        (200,   telemetry(1),  no(What::TelemetryMessages, 2, 1)),
        (1_000, Cost::Message, None),
        (2_000, Cost::Message, no(What::Messages, 3, 60)),
        (9_000, telemetry(11), no(What::TelemetryDataPoints, 10, 1)),
    ];
    let mut meters = Meters::new(10);
    for (now_ms, cost, refused) in table {
        let taken = meters.take("d", &limits, cost, now_ms);
        let why = taken.err().map(|Exceeded { what, rate, .. }| (what, rate));
        assert_eq!(why, refused, "{cost:?} at {now_ms}");
    }
}

#[test]
fn a_refusal_is_told_of_once_in_a_window() {
    let mut meters = Meters::new(10);
    let mut firsts = |limits: &RateLimits, cost, at: &[u64]| {
        let told = at.iter().filter_map(|now_ms| meters.take("d", limits, cost, *now_ms).err());
        told.map(|exceeded| exceeded.first).collect::<Vec<_>>()
    };
    let short = limits("1:1", "", "");
    let table = [0, 0, 1, TOLD_MS_MIN - 1, TOLD_MS_MIN - 1, TOLD_MS_MIN - 1, TOLD_MS_MIN];
    assert_eq!(firsts(&short, Cost::Message, &table), [true, false, false, false, true]);
    let long = limits("", "", "5:3600");
    let hour = 3_600_000;
    let at = [0, 1, TOLD_MS_MIN, hour - 1, hour];
    assert_eq!(firsts(&long, telemetry(9), &at), [true, false, false, false, true]);
}

#[test]
fn senders_have_limits_of_their_own_and_few_are_remembered() {
    let mut meters = Meters::new(4);
    let one = limits("1:10", "", "");
    let mut take = |sender, limits: &RateLimits, now_ms| {
        let taken = meters.take(sender, limits, Cost::Message, now_ms).is_ok();
        (taken, meters.len())
    };
    assert_eq!(take(0, &RateLimits::default(), 0), (true, 0), "without limits nobody is known");
    for sender in 1..=4 {
        assert_eq!(take(sender, &one, 0), (true, sender));
    }
    assert_eq!(take(1, &one, 9_999), (false, 4));
    // All have something to make up for: they are forgotten all the same.
    assert_eq!(take(5, &one, 9_999), (true, 1));
    assert_eq!(take(1, &one, 9_999), (true, 2));
    assert_eq!(take(2, &one, 15_000), (true, 3));
    assert_eq!(take(3, &one, 15_000), (true, 4));
    // 5 and 1 have all again.
    assert_eq!(take(4, &one, 20_000), (true, 3));
    assert_eq!(take(2, &one, 20_000), (false, 3), "who owes is remembered");
    assert_eq!(take(2, &limits("2:10", "", ""), 20_000), (true, 3), "other limits begin anew");
}

#[test]
fn requests_have_their_costs() {
    let sample = |keys: &[&str]| {
        let values: Vec<_> = keys.iter().map(|key| (*key, Value::Bool(true))).collect();
        Sample { ts_ms: 1, values: entries(&values) }
    };
    let samples = || vec![sample(&["a", "b"]), sample(&["a"]), sample(&[])];
    let call = |method: &str| DeviceCall { method: method.to_owned(), params: Json::Null };
    let package = |chunk| {
        let (kind, title, version) = (PackageKind::Firmware, None, None);
        Request::Package(PackageRequest { kind, title, version, size: 1, chunk })
    };
    let gateway = gateway::Request::Disconnect { device: "d".to_owned() };
    #[rustfmt::skip]
    let table = [
        (Request::Telemetry(samples()),               Some(telemetry(3))),
        (Request::Telemetry(Vec::new()),              Some(telemetry(0))),
        (Request::Attributes(entries(&[])),           Some(Cost::Message)),
        (Request::Call(call("m")),                    Some(Cost::Message)),
        (Request::Call(call("getSessionLimits")),     None),
        (Request::PollCall { timeout_ms: 1 },         Some(Cost::Message)),
        (package(0),                                  Some(Cost::Message)),
        (package(1),                                  None),
        (Request::Gateway(gateway),                   None),
    ];
    for (request, cost) in table {
        assert_eq!(request.cost(), cost, "{request:?}");
    }
    let of = |device: &str| {
        let (samples, latencies) = (samples(), Vec::new());
        DeviceTelemetry { device: device.to_owned(), samples, latencies }
    };
    let said = gateway::Request::Telemetry(vec![of("A"), of("B")]);
    assert_eq!(said.costs(), [("A", telemetry(3)), ("B", telemetry(3))]);
    let gone = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(said.clone().without(&[]), Some(said.clone()));
    let left = said.clone().without(&gone(&["A"])).unwrap();
    assert_eq!(left, gateway::Request::Telemetry(vec![of("B")]));
    assert_eq!(said.without(&gone(&["A", "B"])), None);
    let reply = gateway::Request::CallReply { device: "A".to_owned(), id: 1, data: "1".to_owned() };
    assert_eq!(reply.costs(), [("A", Cost::Message)]);
    assert_eq!(reply.clone().without(&gone(&["B"])), Some(reply.clone()));
    assert_eq!(reply.without(&gone(&["A"])), None);
    let connect = gateway::Request::Connect { device: "A".to_owned(), device_type: "t".to_owned() };
    assert_eq!(connect.costs(), []);
}
