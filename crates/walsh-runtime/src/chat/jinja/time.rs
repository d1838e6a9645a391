//! `strftime_now`: the local time, by C's letters.

use chrono::{DateTime, Datelike, Local, NaiveDateTime, Timelike};

use super::budget::{Heap, Outcome, fail};
use super::value::{Builder, Value};

/// The local time as `format` says.
pub(super) fn now(heap: &Heap, format: &str) -> Outcome<Value> {
    let now: DateTime<Local> = Local::now();
    strftime(heap, format, now.naive_local())
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

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A number in a field: what fills it, and how wide it is.
struct Field(u32, char, usize);

/// Python's `strftime` of a time without a zone, in the C locale.
fn strftime(heap: &Heap, format: &str, time: NaiveDateTime) -> Outcome<Value> {
    let mut out = Builder::new(heap)?;
    let mut letters = format.chars();
    while let Some(c) = letters.next() {
        if c != '%' {
            out.push_char(c)?;
            continue;
        }
        heap.step(2)?;
        let mut letter = letters.next();
        let mut fill = None;
        if let Some(flag @ ('-' | '_' | '0' | '^')) = letter {
            fill = Some(flag);
            letter = letters.next();
        }
        let Some(letter) = letter else {
            return fail("strftime_now: the format ends in an incomplete letter");
        };
        let text = match composed(letter) {
            Some(format) if fill.is_none() => {
                let text = strftime(heap, format, time)?;
                text.as_str().unwrap_or_default().to_string()
            }
            _ => match (number(letter, time), word(letter, time)) {
                (Some(Field(value, usual, width)), _) => match fill.unwrap_or(usual) {
                    '-' => value.to_string(),
                    '_' | ' ' => format!("{value:width$}"),
                    _ => format!("{value:0width$}"),
                },
                (_, Some(text)) => match fill {
                    Some('^') => text.to_uppercase(),
                    _ => text,
                },
                _ => {
                    return fail(format!(
                        "strftime_now: the letter {:?} is not supported",
                        letter.to_string()
                    ));
                }
            },
        };
        out.push(&text)?;
    }
    Ok(Value::Str(out.finish()))
}

/// The letters that stand for several.
fn composed(letter: char) -> Option<&'static str> {
    Some(match letter {
        'c' => "%a %b %e %H:%M:%S %Y",
        'D' | 'x' => "%m/%d/%y",
        'F' => "%Y-%m-%d",
        'R' => "%H:%M",
        'r' => "%I:%M:%S %p",
        'T' | 'X' => "%H:%M:%S",
        _ => return None,
    })
}

fn number(letter: char, time: NaiveDateTime) -> Option<Field> {
    let weekday = time.weekday();
    let hour = time.hour();
    // Days since the week began, and the day of the year, from 0.
    let (sunday, monday) = (
        weekday.num_days_from_sunday(),
        weekday.num_days_from_monday(),
    );
    let day = time.ordinal0();
    Some(match letter {
        'd' => Field(time.day(), '0', 2),
        'e' => Field(time.day(), ' ', 2),
        'm' => Field(time.month(), '0', 2),
        'y' => Field(time.year().rem_euclid(100) as u32, '0', 2),
        'Y' => Field(time.year().unsigned_abs(), '0', 4),
        'C' => Field(time.year().unsigned_abs() / 100, '0', 2),
        'G' => Field(time.iso_week().year().unsigned_abs(), '0', 4),
        'g' => Field(time.iso_week().year().rem_euclid(100) as u32, '0', 2),
        'V' => Field(time.iso_week().week(), '0', 2),
        'U' => Field((day + 7 - sunday) / 7, '0', 2),
        'W' => Field((day + 7 - monday) / 7, '0', 2),
        'j' => Field(time.ordinal(), '0', 3),
        'H' => Field(hour, '0', 2),
        'k' => Field(hour, ' ', 2),
        'I' => Field((hour + 11) % 12 + 1, '0', 2),
        'l' => Field((hour + 11) % 12 + 1, ' ', 2),
        'M' => Field(time.minute(), '0', 2),
        'S' => Field(time.second(), '0', 2),
        'f' => Field(time.nanosecond() / 1000 % 1_000_000, '0', 6),
        'u' => Field(monday + 1, '0', 1),
        'w' => Field(sunday, '0', 1),
        _ => return None,
    })
}

fn word(letter: char, time: NaiveDateTime) -> Option<String> {
    let month = MONTHS[time.month0() as usize];
    let day = DAYS[time.weekday().num_days_from_sunday() as usize];
    let text = match letter {
        'A' => day,
        'a' => &day[..3],
        'B' => month,
        'b' | 'h' => &month[..3],
        'p' if time.hour() < 12 => "AM",
        'p' => "PM",
        'P' if time.hour() < 12 => "am",
        'P' => "pm",
        'n' => "\n",
        't' => "\t",
        '%' => "%",
        // A time without a zone names none.
        'z' | 'Z' => "",
        's' => {
            return Some(
                time.and_local_timezone(Local)
                    .earliest()?
                    .timestamp()
                    .to_string(),
            );
        }
        _ => return None,
    };
    Some(text.to_string())
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::super::budget::{Heap, Limits};
    use super::strftime;

    #[test]
    fn dates_are_written_as_by_c() {
        let heap = Heap::new(Limits::new(0));
        let time = NaiveDate::from_ymd_opt(2024, 2, 5).and_then(|day| day.and_hms_opt(14, 7, 9));
        let text = |format| {
            let text = strftime(&heap, format, time.unwrap());
            text.map(|text| text.as_str().unwrap_or_default().to_string())
        };
        for (format, expected) in [
            ("%d %b %Y", "05 Feb 2024"),
            ("%-d %B %y %A %a", "5 February 24 Monday Mon"),
            ("%F %T %D %R", "2024-02-05 14:07:09 02/05/24 14:07"),
            ("%e|%_d|%I:%M %p|%k|%l", " 5| 5|02:07 PM|14| 2"),
            ("%j %U %W %V %G %u %w", "036 05 06 06 2024 1 1"),
            ("%c", "Mon Feb  5 14:07:09 2024"),
            ("[%Z%z] %f 100%%", "[] 000000 100%"),
        ] {
            assert_eq!(text(format).unwrap(), expected, "{format}");
        }
        assert!(text("%").is_err() && text("%Q").is_err());
    }
}
