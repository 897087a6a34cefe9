//! [`Eras`]: which number stands for which time, also after the machine's clock was put back.
//!
//! Numbers only grow, so that a cursor means the same for ever. A number is made of the time, and when the clock is put
//! back, what would be made of the time is less than what is there. Then an era begins: from its first number on, numbers
//! are so much ahead of the clock. Where two eras tell of the same time, the newer one is right: a clock is put back
//! because it was wrong. When it soon comes to where the numbers are without the era, that was the mistake: the era ends.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

/// By how much numbers may be ahead of the clock without further ado.
const TOLERANCE: Duration = Duration::from_secs(5);
/// How far ahead of the numbers the clock may be for an era to end; further, it is the clock that may be wrong.
const RETURN: Duration = Duration::from_secs(3600);
/// Most eras; then the oldest is forgotten, and its records count as of later than they are.
const MOST: usize = 64;
/// Bits of a number that count within a millisecond.
const COUNT_BITS: u32 = 20;
/// The highest number that is made of a time: that of the year 2116. What is above is for eras.
const CEILING: i64 = i64::MAX / 2;
/// Above this, another era may have no room any more.
const USED_UP: i64 = i64::MAX / 4 * 3;

/// From which number on, by how much numbers are ahead of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Era {
    first: i64,
    ahead: i64,
}

/// What following the clock comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// Numbers go with the clock.
    Same,
    /// The clock is behind the numbers by so much: an era has begun.
    Begun(Duration),
    /// The clock is where it would be had it not been put back: an era has ended.
    Ended,
    /// There is no room for another era.
    UsedUp,
}

/// The eras of a file, in the order of their numbers. Before the first one, numbers are those of the clock.
#[derive(Debug, Default)]
pub(super) struct Eras(Vec<Era>);

/// The first number of a millisecond, by the clock.
fn number_at(time: Timestamp) -> i64 {
    let number = time.as_millisecond().max(0).saturating_mul(1 << COUNT_BITS);
    number.min(CEILING)
}

impl Eras {
    /// Reads them; a file may be of a time when there were none.
    pub(super) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS eras(first INTEGER PRIMARY KEY, ahead INTEGER NOT NULL)",
        )?;
        let mut statement = connection.prepare("SELECT first, ahead FROM eras ORDER BY first")?;
        let eras = statement.query_map([], |row| {
            Ok(Era {
                first: row.get(0)?,
                ahead: row.get(1)?,
            })
        })?;
        Ok(Self(eras.collect::<Result<_, _>>()?))
    }

    /// Replaces those of the file.
    pub(super) fn save(&self, connection: &mut Connection) -> Result<(), rusqlite::Error> {
        let transaction = connection.transaction()?;
        transaction.execute("DELETE FROM eras", [])?;
        for era in &self.0 {
            let insert = "INSERT INTO eras(first, ahead) VALUES(?1, ?2)";
            transaction.execute(insert, (era.first, era.ahead))?;
        }
        transaction.commit()
    }

    /// Begins an era, or ends some, when the clock is no longer where it was; `last` is the last number.
    pub(super) fn follow(&mut self, now: Timestamp, last: i64) -> Followed {
        let now = number_at(now);
        let ahead = |eras: &[Era]| eras.last().map_or(0, |era| era.ahead);
        let gap = |from: i64, to: i64| {
            let millis = to.saturating_sub(from) >> COUNT_BITS;
            Duration::from_millis(u64::try_from(millis).unwrap_or_default())
        };
        let mut ended = false;
        while let Some((_, before)) = self.0.split_last()
            && let next = now.saturating_add(ahead(before))
            && next > last
            && gap(last, next) <= RETURN
        {
            self.0.pop();
            ended = true;
        }
        let behind = gap(now.saturating_add(ahead(&self.0)), last);
        if behind <= TOLERANCE {
            return if ended { Followed::Ended } else { Followed::Same };
        }
        if last > USED_UP {
            return Followed::UsedUp;
        }
        // One without a record is needless.
        self.0.retain(|era| era.first <= last);
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        let first = last.saturating_add(1);
        self.0.push(Era {
            first,
            ahead: first.saturating_sub(now),
        });
        Followed::Begun(behind)
    }

    /// The first number that a record of now may have.
    pub(super) fn next(&self, now: Timestamp) -> i64 {
        let ahead = self.0.last().map_or(0, |era| era.ahead);
        number_at(now).saturating_add(ahead)
    }

    /// The first number of a time: records of before have lower ones.
    pub(super) fn at(&self, time: Timestamp) -> i64 {
        let number = number_at(time);
        let mut end = i64::MAX;
        for era in self.0.iter().rev() {
            let here = number.saturating_add(era.ahead);
            if here >= era.first {
                return here.min(end);
            }
            end = era.first;
        }
        number.min(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60;
    const DAY: i64 = 24 * 60 * MINUTE;

    /// So many seconds after noon.
    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_769_860_800 + seconds).unwrap()
    }

    /// A clock and what is numbered by it.
    #[derive(Default)]
    struct Log {
        eras: Eras,
        last: i64,
    }

    impl Log {
        fn write(&mut self, now: Timestamp) -> i64 {
            self.eras.follow(now, self.last);
            self.last = self.last.max(self.eras.next(now)) + 1;
            self.last
        }
    }

    #[test]
    fn numbers_grow_and_follow_the_clock_however_often_it_is_put_back() {
        let mut log = Log::default();
        let mut before = log.write(at(0));
        for turn in 1..=3 {
            let ahead = log.write(at(turn * DAY));
            assert!(ahead > before);
            let now = turn * 2 * MINUTE;
            let put_back = log.write(at(now));
            assert!(put_back > ahead);
            let later = log.write(at(now + MINUTE));
            assert!(log.eras.at(at(now)) <= put_back, "{turn}");
            assert!((put_back..later).contains(&log.eras.at(at(now + 30))), "{turn}");
            assert!((before..ahead).contains(&log.eras.at(at(now - 10))), "{turn}");
            before = later;
        }
        assert_eq!(log.eras.0.len(), 3);
    }

    #[test]
    fn times_have_numbers_in_their_order() {
        let mut log = Log::default();
        for seconds in [0, DAY, MINUTE, 3 * DAY, -DAY, -DAY + MINUTE] {
            log.write(at(seconds));
        }
        let numbers: Vec<i64> = (-2 * DAY..4 * DAY)
            .step_by(600)
            .map(|seconds| log.eras.at(at(seconds)))
            .collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }

    #[test]
    fn a_clock_that_is_behind_for_a_moment_leaves_no_trace() {
        let mut log = Log::default();
        log.write(at(0));
        let behind = log.write(at(-DAY));
        assert_eq!(log.eras.0.len(), 1);
        log.write(at(MINUTE));
        assert_eq!(log.eras.0, []);
        assert!((1..behind).contains(&log.eras.at(at(0))));
    }

    #[test]
    fn a_clock_that_is_put_back_a_little_needs_no_era() {
        let mut log = Log::default();
        log.write(at(0));
        assert_eq!(log.eras.follow(at(-5), log.last), Followed::Same);
        assert_eq!(
            log.eras.follow(at(-6), log.last),
            Followed::Begun(Duration::from_secs(6))
        );
    }

    #[test]
    fn an_era_without_records_makes_room_for_the_next() {
        let mut log = Log::default();
        log.write(at(0));
        for back in [MINUTE, 2 * MINUTE] {
            let followed = log.eras.follow(at(-back), log.last);
            assert!(matches!(followed, Followed::Begun(_)), "{followed:?}");
        }
        assert_eq!(log.eras.0.len(), 1);
        assert_eq!(log.eras.at(at(-2 * MINUTE)), log.last + 1);
    }

    #[test]
    fn eras_are_bounded_and_so_are_numbers() {
        let mut log = Log::default();
        for turn in 0..100 {
            log.write(at(-turn * MINUTE));
        }
        assert_eq!(log.eras.0.len(), MOST);
        let mut log = Log::default();
        let mut last = 0;
        for _ in 0..2 {
            assert!(log.write(Timestamp::MAX) > last);
            last = log.write(at(0));
        }
        assert_eq!(log.eras.follow(at(-DAY), log.last), Followed::UsedUp);
    }
}
