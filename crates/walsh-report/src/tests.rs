//! The page as a whole.

use roxmltree::{Document, Node};

use walsh_runtime::PerplexityResult;

use super::*;

pub(crate) const NASTY: &str = "<script src=\"//example.com/x.js\">alert('&')</script>\u{1b}[31m";

fn result(kv: &str, bits: f64, kld: f64) -> PerplexityResult {
    PerplexityResult {
        kv: kv.to_owned(),
        policy: None,
        ppl: 31.3 + 10.0 * kld,
        ppl_stderr: 0.4,
        kld_mean: kld,
        kld_stderr: 0.02 * kld,
        kld_p99: 9.0 * kld,
        same_top: 1.0 - kld,
        kv_bytes_per_token: (bits * 1440.0) as u64,
        bits_per_value: bits,
    }
}

fn report(results: Vec<PerplexityResult>) -> PerplexityReport {
    PerplexityReport {
        model: "A <model> & more".to_owned(),
        device: "cpu (avx512)".to_owned(),
        context: 1024,
        chunks: 8,
        tokens: 26_000,
        results,
        warnings: Vec::new(),
        cancelled: false,
    }
}

fn common() -> PerplexityReport {
    report(vec![
        result("f16", 16.0, 0.0),
        result("q8_0", 8.5, 0.0040),
        result("q4_0", 4.5, 0.1),
        result("q4_0+rot", 4.5, 0.06),
        result("8bit", 8.25, 0.0009),
        result("4bit", 4.25, 0.004),
        result("k=tq4+equalise,v=tq2+norm,sink=4,recent=32", 3.25, 0.02),
        result("bf16", 16.0, 0.00001),
    ])
}

pub(crate) fn provenance() -> Provenance {
    Provenance {
        command: ["walsh", "perplexity", "--file", "a b.txt"]
            .map(str::to_owned)
            .to_vec(),
        architecture: "llama".to_owned(),
        model_file: "model.gguf".to_owned(),
        model_bytes: 98_362_432,
        fingerprint: None,
        device: "cpu (avx512), threads: 2".to_owned(),
    }
}

fn comparison() -> Comparison {
    let text = r#"{"model": "model.gguf", "context": 512, "chunks": 8, "entries": [
        {"name": "engine f16", "bits_per_value": 16, "kld_mean": 0, "source": "engine 1.0"},
        {"name": "engine q8_0", "bits_per_value": 8.5, "kld_mean": 0.0041, "kld_p99": 0.02,
         "same_top": 0.95, "ppl": 31.4, "source": "engine 1.0"}]}"#;
    Comparison::parse(text.as_bytes(), "x".as_ref()).expect("figures")
}

fn html(report: &PerplexityReport, comparisons: &[Comparison]) -> String {
    ReportPage {
        report,
        provenance: &provenance(),
        text: Path::new("texts/a b.txt"),
        comparisons,
    }
    .to_html()
    .expect("a page")
}

/// Parses a page and checks what holds for all of them.
#[track_caller]
pub(crate) fn checked<R>(html: &str, look: impl FnOnce(&Document<'_>) -> R) -> R {
    let body = html.strip_prefix("<!DOCTYPE html>\n").expect("the doctype");
    let document = Document::parse(body).expect("well-formed");
    let mut ids = Vec::new();
    for node in document.descendants().filter(Node::is_element) {
        assert_ne!(node.tag_name().name(), "script");
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!["src", "href", "srcset", "data"].contains(&name), "{name}");
            assert!(!name.starts_with("on"), "{name}");
            assert!(!value.contains("://") && !value.contains("NaN"), "{value}");
            if name == "id" {
                ids.push(value);
            }
        }
        if node.has_tag_name("style") {
            let style = node.text().expect("a style sheet");
            assert!(!style.contains("url(") && !style.contains("@import"));
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id stands twice");
    look(&document)
}

pub(crate) fn text(node: Node<'_, '_>) -> String {
    let texts = node.descendants().filter(Node::is_text);
    texts.filter_map(|node| node.text()).collect()
}

pub(crate) fn named<'a>(document: &'a Document<'_>, name: &str) -> Vec<Node<'a, 'a>> {
    let all = document.descendants();
    all.filter(|node| node.tag_name().name() == name).collect()
}

#[test]
fn every_spec_is_in_the_table_and_every_row_is_as_long_as_the_headings() {
    let report = common();
    checked(&html(&report, &[comparison()]), |page| {
        let tables = named(page, "table");
        assert_eq!(tables.len(), 2);
        for table in &tables {
            let rows: Vec<usize> = table
                .descendants()
                .filter(|node| node.has_tag_name("tr"))
                .map(|row| row.children().filter(Node::is_element).count())
                .collect();
            assert!(rows.iter().all(|&cells| cells == rows[0]), "{rows:?}");
            assert!(table.children().any(|node| node.has_tag_name("caption")));
        }
        let own = text(tables[0]);
        for result in &report.results {
            assert!(own.contains(&result.kv), "{}", result.kv);
        }
        let others = text(tables[1]);
        assert!(others.contains("engine q8_0") && others.contains("0.00410"));
    });
}

#[test]
fn divergence_is_also_given_relative_to_plain_q4_0() {
    let relative = |page: &Document<'_>| {
        let rows = named(page, "tr").into_iter();
        let last = |row: Node<'_, '_>| row.last_element_child().map(text).unwrap_or_default();
        rows.map(last).collect::<Vec<_>>()
    };
    let cells = checked(&html(&common(), &[]), relative);
    assert!(cells[0].starts_with("Relative to q4_0"));
    assert_eq!(
        cells[1..7],
        ["–", "0.040", "1.000", "0.600", "0.009", "0.040"]
    );
    let without = report(vec![result("f16", 16.0, 0.0), result("tq4", 4.25, 0.05)]);
    let cells = checked(&html(&without, &[]), relative);
    assert!(cells[0].starts_with("Same top"), "{cells:?}");
}

#[test]
fn plots_have_titles_descriptions_and_a_label_for_each_quantised_cache() {
    checked(&html(&common(), &[comparison()]), |page| {
        let plots: Vec<_> = named(page, "svg")
            .into_iter()
            .filter(|svg| svg.attribute("role") == Some("img"))
            .collect();
        assert_eq!(plots.len(), 3);
        for plot in &plots {
            let child = |name: &str| {
                let found = plot.children().find(|node| node.tag_name().name() == name);
                text(found.expect("there"))
            };
            assert!(!child("title").is_empty());
            assert!(child("desc").contains("engine q8_0"), "{}", child("desc"));
            let labels: Vec<String> = plot
                .descendants()
                .filter(|node| node.tag_name().name() == "text")
                .map(|node| text(node).trim().to_owned())
                .collect();
            for name in ["q8_0", "q4_0", "q4_0+rot", "8bit", "4bit", "engine q8_0"] {
                assert!(labels.iter().any(|label| label == name), "{name}");
            }
            assert!(
                labels
                    .iter()
                    .any(|label| label.starts_with("k=tq4+equalise"))
            );
            for name in ["f16", "bf16", "engine f16"] {
                assert!(labels.iter().all(|label| label != name), "{name}");
            }
        }
    });
}

#[test]
fn text_of_users_and_files_stays_text() {
    let mut report = report(vec![result("f16", 16.0, 0.0), result(NASTY, 4.25, 0.01)]);
    report.model = NASTY.to_owned();
    report.warnings.push(NASTY.to_owned());
    let mut other = comparison();
    other.entries[1].name = NASTY.to_owned();
    other.entries[1].source = NASTY.to_owned();
    let provenance = Provenance {
        command: vec![NASTY.to_owned()],
        architecture: NASTY.to_owned(),
        model_file: NASTY.to_owned(),
        model_bytes: 1,
        fingerprint: Some(NASTY.to_owned()),
        device: NASTY.to_owned(),
    };
    // All of it is the file's name.
    let file = NASTY.replace('/', "|");
    let page = ReportPage {
        report: &report,
        provenance: &provenance,
        text: Path::new(&file),
        comparisons: &[other],
    };
    let html = page.to_html().expect("a page");
    assert!(!html.contains("<script") && !html.contains('\u{1b}'));
    checked(&html, |page| {
        let shown = text(page.root());
        assert!(shown.matches("alert('&')").count() >= 10, "{shown}");
    });
}

#[test]
fn warnings_come_first_and_differences_of_comparisons_are_told() {
    let mut report = common();
    report.warnings.push("keys have large biases".to_owned());
    checked(&html(&report, &[comparison()]), |page| {
        let sections = named(page, "section");
        assert!(text(sections[0]).contains("keys have large biases"));
        let all = text(page.root());
        assert!(
            all.contains("with context 512, this run with 1024"),
            "{all}"
        );
        assert!(!all.contains("with chunks 8"));
    });
    report.warnings.clear();
    checked(&html(&report, &[]), |page| {
        assert!(!text(page.root()).contains("Warnings"));
    });
}

#[test]
fn what_is_needed_to_measure_again_is_there() {
    let mut provenance = provenance();
    provenance.fingerprint = Some("0123abcd".to_owned());
    let report = common();
    let page = ReportPage {
        report: &report,
        provenance: &provenance,
        text: Path::new("texts/a b.txt"),
        comparisons: &[],
    };
    let html = page.to_html().expect("a page");
    assert_eq!(html, page.to_html().expect("the same page"));
    let shown = checked(&html, |page| text(page.root()));
    for part in [
        "walsh perplexity --file 'a b.txt'",
        "llama",
        "model.gguf",
        "98362432 bytes",
        "0123abcd",
        "26000 tokens",
        "8 chunks of 1024 tokens",
        "positions 512 to 1022",
        "cpu (avx512), threads: 2",
        concat!("walsh ", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(shown.contains(part), "{part}");
    }
}

#[test]
fn runs_with_nothing_to_plot_have_a_page_all_the_same() {
    for results in [
        vec![],
        vec![result("tq4", 4.25, 0.0)],
        vec![result("f32", 32.0, 0.0), result("f16", 16.0, 1e-7)],
        vec![result("f32", 32.0, 0.0), result("tq8", 8.25, 0.0)],
    ] {
        let shown = checked(&html(&report(results), &[]), |page| text(page.root()));
        assert!(shown.contains("nothing to plot"), "{shown}");
    }
}

#[test]
fn extreme_figures_are_drawn() {
    let mut results = vec![result("f16", 16.0, 0.0)];
    for (i, kld) in [1e-300, 1e-7, 0.5, 1e6].into_iter().enumerate() {
        let mut extreme = result("tq4", 4.25, kld);
        extreme.kv = format!("tq{i}");
        extreme.kld_p99 = if i == 0 { 0.0 } else { kld };
        extreme.same_top = if i % 2 == 0 { 0.0 } else { 1.0 };
        results.push(extreme);
    }
    checked(&html(&report(results), &[]), |_| ());
    let many: Vec<_> = (0..60)
        .map(|i| result(&format!("tq{i}"), 4.25, 0.05))
        .collect();
    checked(&html(&report(many), &[]), |page| {
        assert!(
            text(page.root()).contains("no room for a label") || named(page, "text").len() > 59
        );
    });
}
