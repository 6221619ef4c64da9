//! The date for templates that tell the model what day it is: `strftime_now`, in UTC.

use minijinja::{Error, ErrorKind};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the time comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    System,
    /// Seconds since 1970, for tests.
    #[cfg(test)]
    Fixed(u64),
}

impl Clock {
    pub(crate) fn now(self) -> DateTime {
        match self {
            Self::System => {
                DateTime::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
            }
            #[cfg(test)]
            Self::Fixed(seconds) => DateTime::from_unix(seconds),
        }
    }
}

/// A moment in the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DateTime {
    year: u64,
    /// 1 to 12.
    month: u64,
    day: u64,
    /// 1 to 366.
    day_of_year: u64,
    /// 0 is Sunday.
    weekday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl DateTime {
    pub(crate) fn from_unix(seconds: u64) -> Self {
        // 400 years have 146,097 days; the loops below are short after that.
        let days = seconds / 86_400;
        let (mut year, mut left) = (1970 + days / 146_097 * 400, days % 146_097);
        while left >= 365 + u64::from(is_leap(year)) {
            left -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let day_of_year = left + 1;
        let mut month = 1;
        while left >= days_of_month(year, month) {
            left -= days_of_month(year, month);
            month += 1;
        }
        let second = seconds % 86_400;
        Self {
            year,
            month,
            day: left + 1,
            day_of_year,
            // 1 January 1970 was a Thursday.
            weekday: (days + 4) % 7,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }

    /// Python's `strftime` for the fields of a date and a time; any other is an error.
    pub(crate) fn format(&self, format: &str) -> Result<String, Error> {
        use std::fmt::Write;
        let month = MONTHS.get(self.month as usize - 1).copied().unwrap_or_default();
        let day = DAYS.get(self.weekday as usize).copied().unwrap_or_default();
        let hour12 = (self.hour + 11) % 12 + 1;
        let mut out = String::with_capacity(format.len() + 16);
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut field = chars.next();
            // `%-d`: without a leading zero (glibc).
            let bare = field == Some('-');
            if bare {
                field = chars.next();
            }
            let mut number = |n: u64, width: usize| {
                let width = if bare { 1 } else { width };
                write!(out, "{n:0width$}")
            };
            let written = match field {
                Some('Y') => number(self.year, 4),
                Some('y') => number(self.year % 100, 2),
                Some('m') => number(self.month, 2),
                Some('d') => number(self.day, 2),
                Some('j') => number(self.day_of_year, 3),
                Some('H') => number(self.hour, 2),
                Some('I') => number(hour12, 2),
                Some('M') => number(self.minute, 2),
                Some('S') => number(self.second, 2),
                Some('u') => number((self.weekday + 6) % 7 + 1, 1),
                Some('w') => number(self.weekday, 1),
                Some('B') => out.write_str(month),
                Some('b' | 'h') => out.write_str(month.get(..3).unwrap_or_default()),
                Some('A') => out.write_str(day),
                Some('a') => out.write_str(day.get(..3).unwrap_or_default()),
                Some('p') => out.write_str(if self.hour < 12 { "AM" } else { "PM" }),
                Some('F') => write!(out, "{:04}-{:02}-{:02}", self.year, self.month, self.day),
                Some('T') => write!(out, "{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
                Some('Z') => out.write_str("UTC"),
                Some('z') => out.write_str("+0000"),
                Some('%') => out.write_str("%"),
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(Error::new(
                        ErrorKind::InvalidOperation,
                        format!("strftime_now: unknown field %{other}"),
                    ));
                }
            };
            written.map_err(|_| Error::from(ErrorKind::WriteFailure))?;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // By `date -u -d @N "+%Y-%m-%d %j %a %-d %I %p"`.
    #[test]
    fn known_dates() {
        let cases = [
            (0, "1970-01-01 001 Thu 1 12 AM"),
            (951_782_400, "2000-02-29 060 Tue 29 12 AM"),
            (1_735_689_599, "2024-12-31 366 Tue 31 11 PM"),
            (4_107_542_400, "2100-03-01 060 Mon 1 12 AM"),
        ];
        for (seconds, expected) in cases {
            let text = DateTime::from_unix(seconds).format("%Y-%m-%d %j %a %-d %I %p").expect("known fields");
            assert_eq!(text, expected);
        }
        assert!(DateTime::from_unix(0).format("%Q").is_err());
        assert!(DateTime::from_unix(0).format("%").is_err());
        DateTime::from_unix(u64::MAX);
    }
}
