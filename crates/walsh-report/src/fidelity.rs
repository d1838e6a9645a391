//! A run of fidelity as a page.

use std::fmt::Write;

use walsh_runtime::{EqualTokens, FidelityReport, Proportion, SpecFidelity, TaskFidelity};

use crate::Provenance;
use crate::html::{count, escape, page};
use crate::tables::{fitted, how_measured, table, warnings};

/// A page about what caches change about answers. The same page always has the same bytes.
#[derive(Debug, Clone, Copy)]
pub struct FidelityPage<'a> {
    /// What was measured.
    pub report: &'a FidelityReport,
    /// How.
    pub provenance: &'a Provenance,
}

/// What there is no figure for.
const NONE: &str = "&#8211;";

impl FidelityPage<'_> {
    /// The page as HTML that is well-formed XML but for its first line.
    #[must_use]
    pub fn to_html(&self) -> String {
        let report = self.report;
        let said = [report.left_out.as_slice(), &report.warnings].concat();
        let mut body = warnings(&said);
        body.push_str(&self.over_all());
        for task in &report.tasks {
            let _ = write!(
                body,
                "<section>\n<h2>{}</h2>\n<p>{}</p>\n{}</section>\n",
                name(task),
                about(task),
                self.task(task)
            );
        }
        body.push_str(&self.measured());
        page(("Fidelity report", &report.model), &self.lede(), &body)
    }

    /// The SPEC that others are compared with, as HTML.
    fn first(&self) -> String {
        let first = self.report.specs.first();
        escape(first.map_or("", |spec| &spec.kv))
    }

    fn lede(&self) -> String {
        let how = match self.report.chat {
            true => "through the model&#8217;s chat template",
            false => "as plain text, since the model has no chat template",
        };
        let against = match self.report.specs.len() {
            0 | 1 => String::new(),
            _ => format!(
                " What comes of each is compared with <code>{}</code>.",
                self.first()
            ),
        };
        format!(
            "What storing keys and values in fewer bits changes about answers: the same questions, {how}, with each cache.{against}"
        )
    }

    /// All tasks together.
    fn over_all(&self) -> String {
        let mut rows = String::new();
        for (index, spec) in self.report.specs.iter().enumerate() {
            let is_first = index == 0;
            let _ = writeln!(
                rows,
                "{}<td>{:.2}</td><td>{}</td>{}{}</tr>",
                start(&spec.kv, is_first),
                spec.bits_per_value,
                spec.kv_bytes_per_token,
                share(spec.same_verdict.as_ref().filter(|_| !is_first)),
                share(Some(&spec.same_result).filter(|_| !is_first)),
            );
        }
        let headings = [
            ("SPEC", ""),
            ("Bits per value", ""),
            ("Bytes per token", "all layers"),
            ("Same right or wrong", "%, 95% interval"),
            ("Same result", "%, 95% interval"),
        ];
        let policies = self.report.specs.iter();
        let policies = policies.map(|spec| fitted(&spec.kv, spec.policy.as_deref()));
        format!(
            "<section>\n<h2>All tasks</h2>\n{}{}</section>\n",
            table(
                &format!("All tasks against {}", self.first()),
                &headings,
                &rows
            ),
            policies.collect::<String>()
        )
    }

    fn task(&self, task: &TaskFidelity) -> String {
        const INTERVAL: &str = "%, 95% interval";
        let headings: &[(&str, &str)] = match task.task.is_judged() {
            true => &[
                ("SPEC", ""),
                ("Right", INTERVAL),
                ("Same right or wrong", INTERVAL),
                ("Lost", "right with the first only"),
                ("Gained", "right with this only"),
                ("Same result", INTERVAL),
            ],
            false => &[
                ("SPEC", ""),
                ("Same answer", INTERVAL),
                ("Equal tokens", "mean, 95% interval"),
                ("Of all", "%"),
            ],
        };
        let mut rows = String::new();
        for (index, result) in task.results.iter().enumerate() {
            rows.push_str(&start(&result.kv, index == 0));
            rows.push_str(&cells(result, index == 0, task.task.is_judged()));
            rows.push_str("</tr>\n");
        }
        let caption = format!("{} against {}", name(task), self.first());
        table(&caption, headings, &rows)
    }

    fn measured(&self) -> String {
        let asked = self
            .report
            .tasks
            .iter()
            .map(|task| format!("{} ({})", name(task), count(task.cases, "question")));
        let facts = [
            ("Asked", asked.collect::<Vec<_>>().join(", ")),
            ("Seed", self.report.seed.to_string()),
        ];
        how_measured(self.provenance, &self.report.model, &facts, MEANINGS)
    }
}

fn name(task: &TaskFidelity) -> String {
    match task.length {
        Some(length) => format!("{} at {length} tokens", task.task),
        None => task.task.to_string(),
    }
}

fn about(task: &TaskFidelity) -> String {
    use walsh_runtime::FidelityTask::{Greedy, Recall, Sums, Tools};
    let asked = match task.task {
        Greedy => "Requests that are answered at length, compared token by token",
        Recall => "A number that stands somewhere in a long text is asked for at its end",
        Sums => "Sums of three or four steps in words, right by the last number of the answer",
        Tools => {
            "Requests for which one of four tools has to be called in JSON, with the right arguments"
        }
    };
    format!("{asked}: {}.", count(task.cases, "question"))
}

/// A row's beginning.
fn start(kv: &str, is_first: bool) -> String {
    let (class, note) = match is_first {
        true => (" class=\"reference\"", " <small>reference</small>"),
        false => ("", ""),
    };
    format!(
        "<tr{class}><th scope=\"row\"><code>{}</code>{note}</th>",
        escape(kv)
    )
}

/// A row's figures.
fn cells(result: &SpecFidelity, is_first: bool, is_judged: bool) -> String {
    let others = |proportion| share(Some(proportion).filter(|_| !is_first));
    if !is_judged {
        let equal = result.equal_tokens.filter(|_| !is_first);
        return others(&result.same_result) + &tokens(equal);
    }
    let number = |count: Option<usize>| {
        let count = count.filter(|_| !is_first);
        format!(
            "<td>{}</td>",
            count.map_or(NONE.to_owned(), |count| count.to_string())
        )
    };
    [
        share(result.right.as_ref()),
        share(result.same_verdict.as_ref().filter(|_| !is_first)),
        number(result.lost),
        number(result.gained),
        others(&result.same_result),
    ]
    .concat()
}

/// A share in percent and its interval, in figures and drawn.
fn share(proportion: Option<&Proportion>) -> String {
    let Some(proportion) = proportion else {
        return format!("<td>{NONE}</td>");
    };
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let Proportion {
        share, low, high, ..
    } = proportion;
    let (share, low, high) = (percent(*share), percent(*low), percent(*high));
    format!(
        "<td>{share} <span class=\"error\">[{low}, {high}]</span> <svg class=\"interval\" viewBox=\"-2 -4 104 8\" aria-hidden=\"true\">\
         <path d=\"M0 0H100\" stroke=\"#E3E7EB\"/><path d=\"M{low} 0H{high}\" stroke=\"#0B6BCB\" stroke-width=\"2\"/>\
         <circle cx=\"{share}\" r=\"3\" fill=\"#0B6BCB\"/></svg></td>"
    )
}

/// Equal tokens, and their share.
fn tokens(equal: Option<EqualTokens>) -> String {
    equal.map_or_else(
        || format!("<td>{NONE}</td><td>{NONE}</td>"),
        |equal| {
            format!(
                "<td>{:.1} <span class=\"error\">[{:.1}, {:.1}]</span></td><td>{:.1}</td>",
                equal.mean,
                equal.low,
                equal.high,
                100.0 * equal.share
            )
        },
    )
}

const MEANINGS: &[(&str, &str)] = &[
    (
        "Bits per value",
        "What a number of a key or a value takes, codes and scales together, keys and values averaged. Tokens that a SPEC keeps in a finer type are not counted.",
    ),
    (
        "Same right or wrong",
        "The share of questions that both caches answer rightly, or neither.",
    ),
    (
        "Same result",
        "The share of questions of whose answers the same comes: the same number, the same call, or none in both; of greedy answers, all tokens.",
    ),
    (
        "Equal tokens",
        "The tokens of an answer before the first that differs, all of them where none does.",
    ),
    (
        "Intervals",
        "Wilson&#8217;s for shares; for means that of the normal distribution, questions taken as independent.",
    ),
];

#[cfg(test)]
mod tests {
    use walsh_runtime::{FidelitySpec, FidelityTask};

    use super::*;
    use crate::tests::{NASTY, checked, named, provenance, text};

    fn report(kv: &[&str]) -> FidelityReport {
        let judged = |kv: &&str| SpecFidelity {
            kv: (*kv).to_owned(),
            right: Some(Proportion::new(30, 40)),
            same_verdict: Some(Proportion::new(39, 40)),
            lost: Some(1),
            gained: Some(0),
            same_result: Proportion::new(38, 40),
            equal_tokens: None,
        };
        let greedy = |kv: &&str| SpecFidelity {
            right: None,
            same_verdict: None,
            lost: None,
            gained: None,
            equal_tokens: Some(EqualTokens {
                mean: 51.25,
                low: 40.0,
                high: 62.5,
                share: 0.8,
            }),
            ..judged(kv)
        };
        let task = |task, length, results| TaskFidelity {
            task,
            length,
            cases: 40,
            planned: 40,
            results,
        };
        FidelityReport {
            model: "A <model> & more".to_owned(),
            device: "cpu (avx512)".to_owned(),
            seed: 7,
            chat: true,
            specs: kv
                .iter()
                .map(|kv| FidelitySpec {
                    kv: (*kv).to_owned(),
                    policy: None,
                    kv_bytes_per_token: 6120,
                    bits_per_value: 4.25,
                    same_verdict: Some(Proportion::new(39, 40)),
                    same_result: Proportion::new(76, 80),
                })
                .collect(),
            tasks: vec![
                task(FidelityTask::Greedy, None, kv.iter().map(greedy).collect()),
                task(
                    FidelityTask::Recall,
                    Some(2048),
                    kv.iter().map(judged).collect(),
                ),
            ],
            left_out: vec!["recall at 8192 tokens: left out".to_owned()],
            warnings: Vec::new(),
            cancelled: false,
        }
    }

    fn html(report: &FidelityReport) -> String {
        FidelityPage {
            report,
            provenance: &provenance(),
        }
        .to_html()
    }

    #[test]
    fn every_task_has_a_table_with_a_row_for_each_spec() {
        let kv = ["f16", "4bit", NASTY];
        let page = html(&report(&kv));
        assert_eq!(page, html(&report(&kv)));
        assert!(!page.contains("<script"));
        checked(&page, |page| {
            let tables = named(page, "table");
            assert_eq!(tables.len(), 3);
            for table in tables {
                let rows: Vec<_> = table
                    .descendants()
                    .filter(|node| node.has_tag_name("tr"))
                    .collect();
                assert_eq!(rows.len(), 1 + kv.len());
                let cells = |index: usize| {
                    let cells = rows[index].children();
                    cells.filter(roxmltree::Node::is_element).count()
                };
                assert!((0..rows.len()).all(|row| cells(row) == cells(0)));
            }
            let all = text(page.root());
            for part in [
                "recall at 2048 tokens",
                "40 questions",
                "97.5 [87.1, 99.6]",
                "51.2 [40.0, 62.5]",
                "recall at 8192 tokens: left out",
                "compared with f16",
                "A <model> & more",
            ] {
                assert!(all.contains(part), "{part}");
            }
        });
    }

    #[test]
    fn one_spec_is_compared_with_nothing() {
        let mut report = report(&["f16"]);
        report.chat = false;
        report.left_out.clear();
        checked(&html(&report), |page| {
            let all = text(page.root());
            assert!(
                !all.contains("compared with") && !all.contains("Warnings"),
                "{all}"
            );
            assert!(all.contains("no chat template"));
        });
    }
}
