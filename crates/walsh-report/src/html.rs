//! Text that becomes HTML.

use std::fmt::Write;

use walsh_runtime::shown::shown;

use crate::plot::Plot;
use crate::points::{Kind, Point};

const STYLE: &str = include_str!("report.css");

/// A page of a kind about a model. `lede` and `body` are HTML.
pub(crate) fn page((kind, model): (&str, &str), lede: &str, body: &str) -> String {
    let model = escape(model);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>{kind}: {model}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<p class=\"kicker\">{kind}</p>\n<h1>{model}</h1>\n<p class=\"lede\">{lede}</p>\n</header>\n\
         {body}</main>\n<footer><p>Made by walsh {}.</p></footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// A text without what neither HTML nor XML can hold.
pub(crate) fn visible(text: &str) -> String {
    shown(text).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

/// A text for an element or an attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// How many cells of a monospaced font a text takes at most.
pub(crate) fn text_cells(text: &str) -> usize {
    text.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum()
}

/// A text of at most `most` cells, which ends in an ellipsis where it was longer.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    if text_cells(text) <= most {
        return text.to_owned();
    }
    let mut cells = 2;
    let kept = text.chars().take_while(|&c| {
        cells += if c.is_ascii() { 1 } else { 2 };
        cells <= most
    });
    let mut out: String = kept.collect();
    out.push('…');
    out
}

/// `1 chunk`, `8 chunks`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The words as a shell takes them.
pub(crate) fn shell(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    quoted.join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The mark of a kind of cache, as in the plots.
pub(crate) fn mark(kind: Kind) -> &'static str {
    match kind {
        Kind::Walsh => {
            "<svg class=\"mark\" viewBox=\"-8 -8 16 16\" aria-hidden=\"true\"><circle r=\"5.5\" fill=\"#0B6BCB\"/></svg>"
        }
        Kind::Ggml => {
            "<svg class=\"mark\" viewBox=\"-8 -8 16 16\" aria-hidden=\"true\"><path d=\"M0-7 7 0 0 7-7 0z\" fill=\"#B45309\"/></svg>"
        }
        Kind::Engine => {
            "<svg class=\"mark\" viewBox=\"-8 -8 16 16\" aria-hidden=\"true\"><path d=\"M0-6 6.5 5.5h-13z\" fill=\"#7A4FB5\"/></svg>"
        }
    }
}

/// What the marks mean, of the kinds that the plots have.
pub(crate) fn legend(points: &[Point]) -> String {
    let mut out = String::from("<ul class=\"legend\">\n");
    for kind in Kind::ALL {
        if points.iter().any(|point| point.kind == kind) {
            let meaning = match kind {
                Kind::Walsh => "Walsh&#8217;s codecs; the line joins those that no other one beats",
                Kind::Ggml => {
                    "ggml&#8217;s block types in Walsh; a thin line runs through plain q4_0"
                }
                Kind::Engine => "other engines, each against its own unquantised cache",
            };
            let _ = writeln!(out, "<li>{} {meaning}</li>", mark(kind));
        }
    }
    out.push_str("</ul>\n");
    out
}

/// A plot with its caption.
pub(crate) fn figure(plot: &Plot, reference: &str) -> String {
    let Plot {
        id, title, reading, ..
    } = plot;
    let description = escape(&plot.description);
    // The drawing's own first tag, with what makes it readable aloud.
    let (open, rest) = plot.svg.split_once(">\n").unwrap_or(("<svg", ""));
    let unlabelled = match plot.unlabelled {
        0 => String::new(),
        missing => format!(
            " {} no room for a label.",
            if missing == 1 {
                "One point has".to_owned()
            } else {
                format!("{missing} points have")
            }
        ),
    };
    format!(
        "<figure id=\"{id}\">\n{open} role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n\
         <title id=\"{id}-title\">{title}</title>\n<desc id=\"{id}-desc\">{reading} {description}</desc>\n{rest}\
         <figcaption><strong>{title}.</strong> {reading} Walsh&#8217;s caches are compared with <code>{}</code>.{unlabelled}</figcaption>\n</figure>\n",
        escape(reference)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped_and_control_characters_are_shown() {
        assert_eq!(
            escape("<a href='x' b=\"y\">&\u{1b}[0m\u{0}é"),
            "&lt;a href=&#39;x&#39; b=&quot;y&quot;&gt;&amp;\\u{1b}[0m\\u{0}é"
        );
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(shortened("tq4", 3), "tq4");
        assert_eq!(shortened("k=tq5,v=tq3", 8), "k=tq5,…");
        assert_eq!(shortened("日本語", 5), "日…");
        assert!(text_cells(&shortened(&"x".repeat(99), 34)) <= 34);
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_split_or_change_them() {
        let words = [
            "walsh",
            "--kv",
            "k=tq5,v=tq4+rot",
            "my file.txt",
            "it's",
            "",
            "$x",
        ];
        let words = words.map(str::to_owned);
        assert_eq!(
            shell(&words),
            r"walsh --kv k=tq5,v=tq4+rot 'my file.txt' 'it'\''s' '' '$x'"
        );
    }
}
