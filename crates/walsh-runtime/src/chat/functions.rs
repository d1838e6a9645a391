//! What chat templates call besides Jinja's own functions.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_function(
        "raise_exception",
        |message: &str| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
        },
    );
    environment.add_function("strftime_now", |format: &str| -> Result<String, Error> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        strftime(format, now.as_secs())
    });
    environment.add_filter(
        "tojson",
        |value: Value, options: Kwargs| -> Result<String, Error> {
            let indent: Option<usize> = options.get("indent")?;
            let mut out = String::new();
            write_json(&mut out, &value, indent, 0)?;
            Ok(out)
        },
    );
}

/// JSON as Python's `json.dumps` writes it with `ensure_ascii=False`: a space after commas and colons.
/// Nothing is escaped for HTML.
fn write_json(
    out: &mut String,
    value: &Value,
    indent: Option<usize>,
    depth: usize,
) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{value}");
        }
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut empty = true;
            for item in value.try_iter()? {
                separate(out, indent, depth + 1, empty);
                empty = false;
                write_json(out, &item, indent, depth + 1)?;
            }
            end(out, indent, depth, empty);
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            let mut empty = true;
            for key in value.try_iter()? {
                separate(out, indent, depth + 1, empty);
                empty = false;
                write_string(out, &key.to_string());
                out.push_str(": ");
                write_json(out, &value.get_item(&key)?, indent, depth + 1)?;
            }
            end(out, indent, depth, empty);
            out.push('}');
        }
        other => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("tojson: {other} is not JSON"),
            ));
        }
    }
    Ok(())
}

fn separate(out: &mut String, indent: Option<usize>, depth: usize, first: bool) {
    match indent {
        Some(width) => {
            out.push_str(if first { "\n" } else { ",\n" });
            out.push_str(&" ".repeat(width * depth));
        }
        None if !first => out.push_str(", "),
        None => {}
    }
}

fn end(out: &mut String, indent: Option<usize>, depth: usize, empty: bool) {
    if let Some(width) = indent.filter(|_| !empty) {
        out.push('\n');
        out.push_str(&" ".repeat(width * depth));
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\x1f' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            _ => out.push(c),
        }
    }
    out.push('"');
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
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// The time of day and date, in UTC, by C's letters; `seconds` since 1970.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let days = seconds / 86_400;
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let month_name = MONTHS[month as usize - 1];
    let day_name = DAYS[(days % 7) as usize];
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(c) = letters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut letter = letters.next();
        let padded = letter != Some('-');
        if !padded {
            letter = letters.next();
        }
        let mut number = |value: u64| match padded {
            true => out.push_str(&format!("{value:02}")),
            false => out.push_str(&value.to_string()),
        };
        match letter {
            Some('d') => number(day),
            Some('m') => number(month),
            Some('y') => number(year % 100),
            Some('H') => number(hour),
            Some('I') => number((hour + 11) % 12 + 1),
            Some('M') => number(minute),
            Some('S') => number(second),
            Some('Y') => out.push_str(&year.to_string()),
            Some('F') => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(day_name),
            Some('a') => out.push_str(&day_name[..3]),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('Z') => out.push_str("UTC"),
            Some('%') => out.push('%'),
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now: {format:?} has a letter that is not supported"),
                ));
            }
        }
    }
    Ok(out)
}

/// Year, month and day, counted from 1, of a day since 1970: the civil calendar in eras of 400 years
/// that start on 1 March.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    #[test]
    fn dates_are_written_as_asked() {
        let at = |seconds, format| strftime(format, seconds).unwrap();
        assert_eq!(at(0, "%d %b %Y %A"), "01 Jan 1970 Thursday");
        assert_eq!(at(951_782_399, "%F %T"), "2000-02-28 23:59:59");
        assert_eq!(at(951_782_400, "%-d %B %y %a"), "29 February 00 Tue");
        assert_eq!(
            at(4_102_444_799, "%F %I:%M:%S %p 100%%"),
            "2099-12-31 11:59:59 PM 100%"
        );
        assert!(strftime("%q", 0).is_err());
        assert!(strftime("%", 0).is_err());
    }

    #[test]
    fn json_is_pythons() {
        let mut environment = Environment::new();
        add(&mut environment);
        let value = context! {
            v => vec![Value::from("a\"<é>\n\u{1}"), Value::from(1), Value::from(2.5), Value::from(true), Value::from(()), context! { k => Vec::<Value>::new() }],
        };
        let render = |source| environment.render_str(source, value.clone()).unwrap();
        assert_eq!(
            render("{{ v | tojson }}"),
            r#"["a\"<é>\n\u0001", 1, 2.5, true, null, {"k": []}]"#
        );
        assert_eq!(
            render("{{ v[5:] | tojson(indent=2) }}"),
            "[\n  {\n    \"k\": []\n  }\n]"
        );
        assert!(
            environment
                .render_str("{{ missing | tojson }}", ())
                .is_err()
        );
    }
}
