//! Places, in the forms in which devices write them: decimal pairs, degrees with minutes and seconds, NMEA GLL and GGA (§2.3).
//!
//! Invariant: **a place is on Earth**: 90 degrees north or south at most, 180 east or west. Checked by `tests/it/losant/gps.rs`.

use moorline_core::Text;

/// Bytes of a place as text: an NMEA sentence has at most 82.
const TEXT_BYTES_MAX: usize = 128;
const LATITUDE_MAX: f64 = 90.0;
const LONGITUDE_MAX: f64 = 180.0;
const PER_DEGREE: f64 = 60.0;

/// Reads a place and writes it as a decimal pair: latitude, comma, longitude.
#[must_use]
pub fn read(text: &str) -> Option<Text> {
    let text = text.trim();
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    if let Some(sentence) = text.strip_prefix('$') {
        return nmea(sentence).and_then(|place| written(place, None));
    }
    match decimal(text) {
        Some((place, said)) => written(place, Some(said)),
        None => degrees(text).and_then(|place| written(place, None)),
    }
}

/// As it was said, if it was said like that; what is computed has seven places, which is a centimetre.
fn written((latitude, longitude): (f64, f64), said: Option<(&str, &str)>) -> Option<Text> {
    // Nothing that is no number is more than another one.
    let finite = latitude.is_finite() && longitude.is_finite();
    if !finite || latitude.abs() > LATITUDE_MAX || longitude.abs() > LONGITUDE_MAX {
        return None;
    }
    let short = |number: f64| {
        let text = format!("{number:.7}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    Some(Text::from(match said {
        Some((latitude, longitude)) => format!("{latitude},{longitude}"),
        None => format!("{},{}", short(latitude), short(longitude)),
    }))
}

type Pair<'a> = ((f64, f64), (&'a str, &'a str));

fn decimal(text: &str) -> Option<Pair<'_>> {
    let (latitude, longitude) = text.split_once(',')?;
    let (latitude, longitude) = (latitude.trim(), longitude.trim());
    let number = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte));
        text.parse::<f64>().ok().filter(|_| plain)
    };
    Some(((number(latitude)?, number(longitude)?), (latitude, longitude)))
}

/// `40° 26′ 46″ N 79° 58′ 56″ W`, `40:26:46N,79:58:56W`, `N40 26.767 W79 58.933`, and the like: one to three numbers and a letter, twice.
fn degrees(text: &str) -> Option<(f64, f64)> {
    let upper = text.to_uppercase();
    let is_letter = |c: char| "NSEW".contains(c);
    let first = upper.find(is_letter)?;
    let in_front = upper[..first].trim().is_empty();
    let (latitude, longitude) = if in_front {
        // The letters stand in front: the second one begins the longitude.
        let second = first + 1 + upper[first + 1..].find(is_letter)?;
        upper.split_at(second)
    } else {
        upper.split_at(first + 1)
    };
    let latitude = half(latitude, 'N', 'S')?;
    Some((latitude, half(longitude, 'E', 'W')?))
}

fn half(text: &str, plus: char, minus: char) -> Option<f64> {
    let letters: Vec<char> = text.chars().filter(|c| c.is_alphabetic() && *c != 'D').collect();
    let [letter] = letters[..] else { return None };
    let sign = if letter == plus { 1.0 } else { -1.0 };
    if letter != plus && letter != minus {
        return None;
    }
    let numbers = text.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    let numbers = numbers.filter(|part| !part.is_empty()).map(|part| part.parse::<f64>().ok());
    let numbers = numbers.collect::<Option<Vec<_>>>()?;
    let (degrees, minutes, seconds) = match numbers[..] {
        [degrees] => (degrees, 0.0, 0.0),
        [degrees, minutes] => (degrees, minutes, 0.0),
        [degrees, minutes, seconds] => (degrees, minutes, seconds),
        _ => return None,
    };
    let fits = minutes < PER_DEGREE && seconds < PER_DEGREE;
    fits.then_some(sign * (degrees + minutes / PER_DEGREE + seconds / PER_DEGREE / PER_DEGREE))
}

/// `GPGLL,4916.45,N,12311.12,W,225444,A,*1D`, `GPGGA,123519,4807.038,N,01131.000,E,1,…`, of any talker. The checksum is not looked at:
/// devices leave it out or get it wrong, and nothing here is known of the vendor's.
fn nmea(sentence: &str) -> Option<(f64, f64)> {
    let body = sentence.split('*').next().unwrap_or_default();
    let fields: Vec<&str> = body.split(',').map(str::trim).collect();
    let kind = fields.first()?;
    let kind = kind.get(kind.len().checked_sub(3)?..)?;
    let (at, is_valid) = match kind {
        "GLL" => (1, fields.get(6).is_none_or(|status| *status != "V")),
        "GGA" => (2, fields.get(6).is_none_or(|fix| *fix != "0")),
        _ => return None,
    };
    let place = fields.get(at..at + 4).filter(|_| is_valid)?;
    let latitude = angle(place[0], place[1], "N", "S")?;
    Some((latitude, angle(place[2], place[3], "E", "W")?))
}

/// `dddmm.mmm`, and which way.
fn angle(digits: &str, way: &str, plus: &str, minus: &str) -> Option<f64> {
    // What a parser takes for numbers and no sentence has: signs, exponents, `nan`.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !plain || digits.matches('.').count() > 1 {
        return None;
    }
    let whole = digits.find('.').unwrap_or(digits.len());
    let (degrees, minutes) = digits.split_at_checked(whole.checked_sub(2)?)?;
    let degrees: f64 = if degrees.is_empty() { 0.0 } else { degrees.parse().ok()? };
    let minutes: f64 = minutes.parse().ok().filter(|minutes| *minutes < PER_DEGREE)?;
    let angle = degrees + minutes / PER_DEGREE;
    match way {
        way if way == plus => Some(angle),
        way if way == minus => Some(-angle),
        _ => None,
    }
}
