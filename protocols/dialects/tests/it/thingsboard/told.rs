//! What a subscription is told when values are read again.

use moorline_dialects::thingsboard::{
    rest::told::{News, Series, Told, between, pushes},
    values::Value,
};

use super::support::text;

/// `t=1@5`: the value 1 of the time 5.
fn values(said: &str) -> Vec<(String, i64, Value)> {
    let one = |said: &str| {
        let (key, rest) = said.split_once('=').unwrap();
        let (value, at) = rest.split_once('@').unwrap();
        (key.to_owned(), at.parse().unwrap(), Value::Long(value.parse().unwrap()))
    };
    said.split_whitespace().map(one).collect()
}

fn series(said: &str) -> Series {
    let mut series = Series::new();
    for (key, at, value) in values(said) {
        match series.iter_mut().find(|(known, _)| *known == key) {
            Some((_, samples)) => samples.push((at, value)),
            None => series.push((key, vec![(at, value)])),
        }
    }
    series
}

/// News as they are written: `t=1@5<3` behind a time of 3, `-t` gone.
fn shown(news: &[News]) -> String {
    let one = |one: &News| match one {
        News::Gone(key) => format!("-{key}"),
        News::Value { key, before_ms, ts_ms, value } => {
            let before = before_ms.map(|at| format!("<{at}")).unwrap_or_default();
            format!("{key}={}@{ts_ms}{before}", value.to_text())
        }
    };
    news.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_value_is_told_once() {
    let mut told = Told::default();
    #[rustfmt::skip]
    let table = [
        ("t=1@5 u=2@5", "t=1@5 u=2@5"),
        ("t=1@5 u=2@5", ""),
        ("t=1@6 u=2@5", "t=1@6<5"),
        ("t=2@6 u=2@5", "t=2@6<6"),
        ("t=9@2 u=2@5", "t=9@2<6"),
        ("u=2@5",       "-t"),
        ("u=2@5",       ""),
        ("t=9@2 v=1@1", "t=9@2 v=1@1 -u"),
        ("",            "-t -v"),
    ];
    for (now, expected) in table {
        assert_eq!(shown(&told.update(values(now))), expected, "{now}");
    }
}

#[test]
fn samples_of_between_are_looked_for_only_where_there_may_be_some() {
    let news = |before: &str, now: &str| {
        let mut told = Told::default();
        told.update(values(before));
        told.update(values(now))
    };
    #[rustfmt::skip]
    let table = [
        ("",            "t=1@5",             None),
        ("t=1@5",       "t=1@6",             None),
        ("t=1@5",       "t=1@3",             None),
        ("t=1@5",       "",                  None),
        ("t=1@5",       "t=1@7",             Some((vec!["t"], 6, 7))),
        ("t=1@5 u=1@3", "t=1@7 u=1@9 v=1@1", Some((vec!["t", "u"], 4, 9))),
        ("t=1@5 u=1@3", "t=1@6 u=1@9",       Some((vec!["u"], 4, 9))),
    ];
    for (before, now, expected) in table {
        let found = between(&news(before, now));
        let expected = expected.map(|(keys, from, to)| {
            (keys.into_iter().map(str::to_owned).collect::<Vec<_>>(), from, to)
        });
        assert_eq!(found, expected, "{before} / {now}");
    }
}

#[test]
fn pushes_have_the_newest_first_and_nothing_twice() {
    let mut told = Told::default();
    told.update(values("t=1@5 u=1@5"));
    let news = told.update(values("t=9@9 v=3@4"));
    let found = pushes(news, series("t=4@4 t=5@5 t=6@6 t=8@8 t=9@9 v=1@1"));
    let gone = vec![("u".to_owned(), vec![(0, text(""))])];
    assert_eq!(found, [series("t=9@9 t=8@8 t=6@6 v=3@4"), gone].concat());
}
