//! The page's tables and lists.

use std::fmt::Write;

use walsh_runtime::{PerplexityReport, PerplexityResult};

use crate::html::{count, escape, mark, shell};
use crate::plot::three_digits;
use crate::points::Kind;
use crate::{Comparison, ComparisonEntry, Provenance, ReportPage, file_name};

/// What the page warns of; nothing when there is nothing.
pub(crate) fn warnings(warnings: &[String]) -> String {
    if warnings.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section class=\"warnings\" aria-labelledby=\"warnings\">\n<h2 id=\"warnings\">Warnings</h2>\n<ul>\n",
    );
    for warning in warnings {
        let _ = writeln!(out, "<li>{}</li>", escape(warning));
    }
    out.push_str("</ul>\n</section>\n");
    out
}

/// A table that scrolls on its own where the page is narrow.
pub(crate) fn table(caption: &str, headings: &[(&str, &str)], rows: &str) -> String {
    let mut out = format!(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\">\n<table>\n<caption>{caption}</caption>\n<thead><tr>"
    );
    for (heading, unit) in headings {
        let _ = write!(out, "<th scope=\"col\">{heading}");
        if !unit.is_empty() {
            let _ = write!(out, " <small>{unit}</small>");
        }
        out.push_str("</th>");
    }
    let _ = write!(
        out,
        "</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    );
    out
}

/// The figures of every SPEC.
pub(crate) fn figures(report: &PerplexityReport) -> String {
    let plain = baseline(report);
    let mut headings = vec![
        ("SPEC", ""),
        ("Bits per value", ""),
        ("Bytes per token", "all layers"),
        ("Perplexity", "± standard error"),
    ];
    let compares = report.results.len() > 1;
    if compares {
        headings.extend([
            ("Mean KLD", "nats, ± standard error"),
            ("99% KLD", "nats"),
            ("Same top", "%"),
        ]);
    }
    if plain.is_some() {
        headings.push(("Relative to q4_0", "mean KLD"));
    }
    let mut rows = String::new();
    for (index, result) in report.results.iter().enumerate() {
        let is_reference = compares && index == 0;
        rows.push_str(&row(result, is_reference, compares));
        if let Some(plain) = plain {
            let relative = if is_reference {
                "&#8211;".to_owned()
            } else {
                three_decimals(result.kld_mean / plain)
            };
            let _ = write!(rows, "<td>{relative}</td>");
        }
        rows.push_str("</tr>\n");
    }
    let caption = match report.results.as_slice() {
        [first, _, ..] => format!("Every SPEC against {}", escape(&first.kv)),
        _ => "Perplexity".to_owned(),
    };
    let fitted = report
        .results
        .iter()
        .map(|result| fitted(&result.kv, result.policy.as_deref()));
    format!(
        "<section>\n<h2>Figures</h2>\n{}{}</section>\n",
        table(&caption, &headings, &rows),
        fitted.collect::<String>()
    )
}

/// What a SPEC was fitted to the model as; nothing where it was not.
pub(crate) fn fitted(kv: &str, policy: Option<&str>) -> String {
    policy.map_or_else(String::new, |policy| {
        let (kv, policy) = (escape(kv), escape(policy));
        format!("<p><code>{kv}</code>, fitted to the model: <code>{policy}</code></p>\n")
    })
}

/// The divergence of plain `q4_0`, where it was measured.
fn baseline(report: &PerplexityReport) -> Option<f64> {
    let rest = report.results.iter().skip(1);
    rest.filter(|result| result.kv == "q4_0" && result.kld_mean > 0.0)
        .map(|result| result.kld_mean)
        .next()
}

/// A row, but for its end.
fn row(result: &PerplexityResult, is_reference: bool, compares: bool) -> String {
    let class = if is_reference {
        " class=\"reference\""
    } else {
        ""
    };
    let note = if is_reference {
        " <small>reference</small>"
    } else {
        ""
    };
    let mark = mark(Kind::of_spec(&result.kv));
    let mut out = format!(
        "<tr{class}><th scope=\"row\">{mark} <code>{}</code>{note}</th><td>{:.2}</td><td>{}</td><td>{}</td>",
        escape(&result.kv),
        result.bits_per_value,
        result.kv_bytes_per_token,
        with_error(
            three_decimals(result.ppl),
            three_decimals(result.ppl_stderr)
        ),
    );
    if is_reference {
        out.push_str("<td>&#8211;</td><td>&#8211;</td><td>&#8211;</td>");
    } else if compares {
        let _ = write!(
            out,
            "<td>{}</td><td>{}</td><td>{:.2}</td>",
            divergence(result.kld_mean, result.kld_stderr),
            small(result.kld_p99),
            100.0 * result.same_top
        );
    }
    out
}

fn three_decimals(value: f64) -> String {
    format!("{value:.3}")
}

/// A divergence.
fn small(value: f64) -> String {
    if value >= 1e-4 {
        format!("{value:.5}")
    } else {
        three_digits(value)
    }
}

/// A figure and its standard error, in the same form.
fn with_error(value: String, error: String) -> String {
    format!("{value} <span class=\"error\">± {error}</span>")
}

/// A divergence and its standard error.
fn divergence(mean: f64, error: f64) -> String {
    let error = if mean >= 1e-4 {
        format!("{error:.5}")
    } else {
        small(error)
    };
    with_error(small(mean), error)
}

/// What other engines' caches change; nothing when none is compared with.
pub(crate) fn others(report: &PerplexityReport, comparisons: &[Comparison]) -> String {
    if comparisons.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for entry in comparisons.iter().flat_map(|other| &other.entries) {
        rows.push_str(&other_row(entry));
    }
    let headings = [
        ("Cache", ""),
        ("Bits per value", ""),
        ("Perplexity", ""),
        ("Mean KLD", "nats"),
        ("99% KLD", "nats"),
        ("Same top", "%"),
        ("Source", ""),
    ];
    let mut out = format!(
        "<section class=\"others\">\n<h2>Other engines</h2>\n{}",
        table(
            "Other engines, each against its own unquantised cache",
            &headings,
            &rows
        )
    );
    for difference in comparisons
        .iter()
        .flat_map(|other| differences(report, other))
    {
        let _ = writeln!(out, "<p class=\"note\">{difference}</p>");
    }
    out.push_str("</section>\n");
    out
}

fn other_row(entry: &ComparisonEntry) -> String {
    let optional = |value: Option<f64>, text: fn(f64) -> String| {
        value.map_or_else(|| "&#8211;".to_owned(), text)
    };
    format!(
        "<tr><th scope=\"row\">{} <code>{}</code></th><td>{:.2}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>\n",
        mark(Kind::Engine),
        escape(&entry.name),
        entry.bits_per_value,
        optional(entry.ppl, three_decimals),
        small(entry.kld_mean),
        optional(entry.kld_p99, small),
        optional(entry.same_top, |share| format!("{:.2}", 100.0 * share)),
        escape(&entry.source)
    )
}

/// How a comparison was measured otherwise than this run, as HTML.
fn differences(report: &PerplexityReport, other: &Comparison) -> Vec<String> {
    let name = other.entries.first().map_or("", |entry| &entry.name);
    let measured = [
        ("context", other.context, report.context),
        ("chunks", other.chunks, report.chunks),
    ];
    measured
        .into_iter()
        .filter_map(|(what, theirs, ours)| theirs.map(|theirs| (what, theirs, ours)))
        .filter(|(_, theirs, ours)| theirs != ours)
        .map(|(what, theirs, ours)| {
            format!(
                "The figures from <code>{}</code> on were measured with {what} {theirs}, this run with {ours}.",
                escape(name)
            )
        })
        .collect()
}

/// How to measure it again, and what the figures mean.
pub(crate) fn measured(page: &ReportPage<'_>) -> String {
    let report = page.report;
    let text = (
        "Text",
        format!(
            "<code>{}</code>, {}",
            escape(&file_name(page.text)),
            count(report.tokens, "token")
        ),
    );
    let scored = (
        "Scored",
        format!(
            "{} of {} tokens; in each, the predictions at positions {} to {}",
            count(report.chunks, "chunk"),
            report.context,
            report.context / 2,
            report.context.saturating_sub(2)
        ),
    );
    how_measured(page.provenance, &report.model, &[text, scored], MEANINGS)
}

/// How to measure something of a model again, with facts of its own, and what the figures mean. Facts and meanings are
/// HTML.
pub(crate) fn how_measured(
    from: &Provenance,
    model: &str,
    own: &[(&str, String)],
    meanings: &[(&str, &str)],
) -> String {
    let mut facts = vec![(
        "Model",
        format!(
            "{}, {}, <code>{}</code>, {} bytes",
            escape(model),
            escape(&from.architecture),
            escape(&from.model_file),
            from.model_bytes
        ),
    )];
    if let Some(fingerprint) = &from.fingerprint {
        let fingerprint = format!("<code>{}</code>", escape(fingerprint));
        facts.push(("Fingerprint", fingerprint));
    }
    facts.extend(own.iter().cloned());
    facts.push(("Device", escape(&from.device)));
    facts.push(("Version", format!("walsh {}", env!("CARGO_PKG_VERSION"))));
    format!(
        "<section>\n<h2>How this was measured</h2>\n<pre tabindex=\"0\"><code>{}</code></pre>\n{}\
         <h3>What the figures mean</h3>\n{}</section>\n",
        escape(&shell(&from.command)),
        list(&facts),
        list(meanings)
    )
}

/// Names, each with what is to be said of it.
fn list(entries: &[(&str, impl std::fmt::Display)]) -> String {
    let mut out = String::from("<dl>\n");
    for (name, text) in entries {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{text}</dd></div>");
    }
    out.push_str("</dl>\n");
    out
}

const MEANINGS: &[(&str, &str)] = &[
    (
        "Bits per value",
        "What a number of a key or a value takes, codes and scales together, keys and values averaged. Tokens that a SPEC keeps in a finer type are not counted.",
    ),
    (
        "Perplexity",
        "The exponential of the mean negative log-likelihood of the text&#8217;s own tokens.",
    ),
    (
        "KLD",
        "The Kullback-Leibler divergence of the predicted distribution of the next token from the reference&#8217;s, at each scored position, in nats. It sees every change of a prediction, where a perplexity may stay the same by luck.",
    ),
    (
        "Same top",
        "The share of positions at which the likeliest token is the reference&#8217;s.",
    ),
];
