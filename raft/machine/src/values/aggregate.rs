//! Values of one key taken together, interval by interval.
//!
//! ```text
//!   page ──► Taken ─┐
//!   page ──► Taken ─┴ join ──► result: MIN, MAX, AVG, SUM or COUNT
//! ```
//!
//! # Invariants
//!
//! - **Pieces are as good as the whole**: what is taken together in pieces and joined in their order is what is taken together
//!   at once, but for the rounding of sums of doubles. Checked by the property test below.
//! - **Half-open.** An interval has its start and not its end.

use std::cmp::Ordering;

use moorline_core::{Double, Value};

/// What is made of the values of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregation {
    /// The least number; of texts if there is no number, and of truth values if there is no text either.
    Min,
    /// The greatest; likewise.
    Max,
    /// The mean of the numbers, a double.
    Avg,
    /// The sum of the numbers: a long as long as all are and it fits, a double otherwise.
    Sum,
    /// How many values there are, of whichever type.
    Count,
}

impl Aggregation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Min, Self::Max, Self::Avg, Self::Sum, Self::Count];

    /// Its name, for paths and eyes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::Sum => "sum",
            Self::Count => "count",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// The start of the interval a moment is in: intervals of `interval_ms` follow each other from `start_ms` on. 0: all that
/// comes behind it is one. Not for moments before `start_ms`.
#[must_use]
pub fn interval_start(start_ms: i64, interval_ms: u64, ts_ms: i64) -> i64 {
    let Some(passed) = ts_ms.checked_sub(start_ms).and_then(|passed| u64::try_from(passed).ok())
    else {
        // Further apart than an i64 goes: in 128 bits.
        let passed = i128::from(ts_ms) - i128::from(start_ms);
        let into = if interval_ms == 0 { passed } else { passed % i128::from(interval_ms) };
        return i64::try_from(i128::from(ts_ms) - into).unwrap_or(start_ms);
    };
    let into = if interval_ms == 0 { passed } else { passed % interval_ms };
    ts_ms - i64::try_from(into).expect("no more than passed, which came from an i64")
}

/// The values of an interval, or of a piece of one, as far as any aggregation has to know them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// How many.
    pub count: u64,
    /// How many of them are numbers.
    pub numbers: u64,
    /// How many of the numbers are doubles.
    pub doubles: u64,
    /// The sum of those that are longs.
    pub longs_sum: i128,
    /// The sum of those that are doubles; `None` if there are none.
    pub doubles_sum: Option<Double>,
    /// The least, of the sort that counts.
    pub min: Option<Value>,
    /// The greatest.
    pub max: Option<Value>,
}

impl Taken {
    /// One more value.
    pub fn add(&mut self, value: &Value) {
        self.count += 1;
        match value {
            Value::Long(long) => {
                self.numbers += 1;
                self.longs_sum += i128::from(*long);
            }
            Value::Double(double) => {
                self.numbers += 1;
                self.doubles += 1;
                self.add_doubles(*double);
            }
            Value::Bool(_) | Value::Text(_) | Value::Json(_) => {}
        }
        self.extremes(value, value);
    }

    /// What comes behind it.
    pub fn join(&mut self, next: &Self) {
        self.count += next.count;
        self.numbers += next.numbers;
        self.doubles += next.doubles;
        self.longs_sum = self.longs_sum.saturating_add(next.longs_sum);
        next.doubles_sum.into_iter().for_each(|sum| self.add_doubles(sum));
        if let (Some(min), Some(max)) = (&next.min, &next.max) {
            self.extremes(min, max);
        }
    }

    fn add_doubles(&mut self, more: Double) {
        let before = self.doubles_sum.map_or(0.0, Double::get);
        self.doubles_sum = Some(Double::nearest(before + more.get()));
    }

    fn extremes(&mut self, min: &Value, max: &Value) {
        let better = |known: &Option<Value>, new: &Value, wanted: Ordering| {
            let Some(rank) = rank(new) else { return false };
            known.as_ref().is_none_or(|known| match self::rank(known) {
                Some(of_known) if of_known == rank => compare(new, known) == wanted,
                of_known => of_known.is_none_or(|of_known| rank < of_known),
            })
        };
        if better(&self.min, min, Ordering::Less) {
            self.min = Some(min.clone());
        }
        if better(&self.max, max, Ordering::Greater) {
            self.max = Some(max.clone());
        }
    }

    /// What an aggregation makes of them; `None` if there is nothing it could be made of.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a mean and a sum of doubles are no more exact")]
    pub fn result(&self, aggregation: Aggregation) -> Option<Value> {
        let sum = || self.longs_sum as f64 + self.doubles_sum.map_or(0.0, Double::get);
        match aggregation {
            Aggregation::Min => self.min.clone(),
            Aggregation::Max => self.max.clone(),
            Aggregation::Count => Some(Value::Long(i64::try_from(self.count).unwrap_or(i64::MAX))),
            Aggregation::Avg | Aggregation::Sum if self.numbers == 0 => None,
            Aggregation::Avg => Some(Value::Double(Double::nearest(sum() / self.numbers as f64))),
            Aggregation::Sum => Some(match i64::try_from(self.longs_sum) {
                Ok(sum) if self.doubles == 0 => Value::Long(sum),
                _ => Value::Double(Double::nearest(sum())),
            }),
        }
    }
}

/// Which sort of values an extreme is of: the lowest there is. `None`: of none.
fn rank(value: &Value) -> Option<u8> {
    match value {
        Value::Long(_) | Value::Double(_) => Some(0),
        Value::Text(_) => Some(1),
        Value::Bool(_) => Some(2),
        Value::Json(_) => None,
    }
}

/// Of two of the same rank.
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Long(a), Value::Long(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => match (a.number(), b.number()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => Ordering::Equal,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn double(value: f64) -> Value {
        Value::Double(Double::nearest(value))
    }

    fn results(values: &[Value]) -> [Option<Value>; 5] {
        let mut taken = Taken::default();
        values.iter().for_each(|value| taken.add(value));
        Aggregation::ALL.map(|aggregation| taken.result(aggregation))
    }

    #[test]
    fn values_are_taken_together() {
        let (long, text) = (Value::Long, |text: &str| Value::Text(text.into()));
        let json = || Value::Json("{}".into());
        #[rustfmt::skip]
        let table = [
            (vec![], [None, None, None, None, Some(long(0))]),
            (vec![long(1), long(4)],
                [Some(long(1)), Some(long(4)), Some(double(2.5)), Some(long(5)), Some(long(2))]),
            (vec![long(1), double(0.5)],
                [Some(double(0.5)), Some(long(1)), Some(double(0.75)), Some(double(1.5)), Some(long(2))]),
            (vec![text("b"), long(9), text("a")],
                [Some(long(9)), Some(long(9)), Some(double(9.0)), Some(long(9)), Some(long(3))]),
            (vec![text("b"), Value::Bool(true), text("a"), json()],
                [Some(text("a")), Some(text("b")), None, None, Some(long(4))]),
            (vec![Value::Bool(true), Value::Bool(false)],
                [Some(Value::Bool(false)), Some(Value::Bool(true)), None, None, Some(long(2))]),
            (vec![json()], [None, None, None, None, Some(long(1))]),
            (vec![long(i64::MAX), long(1)],
                [Some(long(1)), Some(long(i64::MAX)), Some(double(4_611_686_018_427_387_904.0)),
                 Some(double(9_223_372_036_854_775_808.0)), Some(long(2))]),
            (vec![double(f64::MAX), double(f64::MAX)],
                [Some(double(f64::MAX)), Some(double(f64::MAX)), Some(double(f64::MAX / 2.0)),
                 Some(double(f64::MAX)), Some(long(2))]),
        ];
        for (values, expected) in table {
            assert_eq!(results(&values), expected, "{values:?}");
        }
    }

    #[test]
    fn intervals_follow_each_other_from_the_start_on() {
        #[rustfmt::skip]
        let table = [
            (100, 10, 100, 100), (100, 10, 109, 100), (100, 10, 110, 110), (-5, 10, 4, -5), (-5, 10, 5, 5),
            (100, 0, 5_000, 100), (i64::MIN, 0, i64::MAX, i64::MIN), (i64::MIN, u64::MAX, i64::MAX, i64::MAX),
            (i64::MIN, 1, i64::MAX, i64::MAX), (0, u64::MAX, i64::MAX, 0),
        ];
        for (start, interval, ts, expected) in table {
            assert_eq!(interval_start(start, interval, ts), expected, "{start} {interval} {ts}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Long),
            // Sums of these are exact, so that their order does not matter.
            (-1_000..1_000_i32).prop_map(|half| double(f64::from(half) / 2.0)),
            "[a-c]{0,2}".prop_map(|text| Value::Text(text.into())),
            Just(Value::Json("[]".into())),
        ]
    }

    proptest! {
        #[test]
        fn pieces_are_as_good_as_the_whole(
            values in prop::collection::vec(value(), 0..40), cuts in prop::collection::vec(0..40_usize, 0..4),
        ) {
            let mut whole = Taken::default();
            values.iter().for_each(|value| whole.add(value));
            let mut joined = Taken::default();
            let mut piece = Taken::default();
            for (at, value) in values.iter().enumerate() {
                if cuts.contains(&at) {
                    joined.join(&std::mem::take(&mut piece));
                }
                piece.add(value);
            }
            joined.join(&piece);
            prop_assert_eq!(joined, whole);
        }
    }
}
