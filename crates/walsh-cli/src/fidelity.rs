//! `walsh fidelity`.

use walsh_report::{FidelityPage, Provenance, ReportFile};
use walsh_runtime::{
    FidelityOptions, FidelityProgress, FidelityReport, Proportion, TaskFidelity, fidelity,
};

use crate::args::Fidelity;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Notes, Table, shown};
use crate::progress::Steps;
use crate::{interrupt, models};

/// Where no bar can be seen, a run says so many times how far it is.
const NOTES: usize = 20;

pub(crate) fn run(args: &Fidelity) -> Outcome {
    let page = args
        .report
        .as_deref()
        .map(ReportFile::prepare)
        .transpose()?;
    let notes = Notes::for_figures(args.json);
    let cancel = interrupt::on_interrupt()?;
    let model = models::open(&args.model, &notes, &cancel)?;
    models::say_unfitted(&model, &args.kv, &notes)?;
    let options = FidelityOptions {
        kv: args.kv.clone(),
        tasks: args.tasks(),
        count: args.count.map(usize::from),
        seed: args.seed,
        tokens: args.tokens.map_or(FidelityOptions::TOKENS, usize::from),
        cancel,
    };
    let steps = Steps::new("answers", &notes);
    let mut noted = 0;
    let report = fidelity(&model, &options, &mut |progress| {
        let FidelityProgress { done, total, .. } = *progress;
        let doing = format!("{}, {}", progress.task, progress.kv);
        steps.show(done, total);
        let part = NOTES * done / total;
        if steps.is_hidden() && part > noted {
            steps.note(format_args!("[{done}/{total}] {doing}"));
            noted = part;
        }
        steps.message(doing);
    })?;
    drop(steps);
    for warning in report.left_out.iter().chain(&report.warnings) {
        output::note(format_args!("warning: {warning}"));
    }
    match args.json {
        true => output::print_json(&report)?,
        false => output::print(&text(&report))?,
    }
    if report.cancelled {
        // A page would take the place of one of a whole run.
        let count = |of: fn(&TaskFidelity) -> usize| report.tasks.iter().map(of).sum::<usize>();
        notes.note(format_args!(
            "interrupted: the figures are those of {} questions of {}, which were answered with every SPEC",
            count(|task| task.cases),
            count(|task| task.planned)
        ));
        return Err(Failure::Interrupted);
    }
    let Some(page) = page else { return Ok(()) };
    let provenance = Provenance::new(&model, std::env::args_os());
    let html = FidelityPage {
        report: &report,
        provenance: &provenance,
    }
    .to_html();
    Ok(page.write(&html)?)
}

fn text(report: &FidelityReport) -> String {
    let mut text = format!(
        "{} on {}, {}, seed {}; [] are 95% confidence intervals",
        shown(&report.model),
        report.device,
        match report.chat {
            true => "by its chat template",
            false => "as plain text, since it has no chat template",
        },
        report.seed,
    );
    let first = report.specs.first().map_or("", |spec| &spec.kv);
    if report.specs.len() > 1 {
        text += &format!("; same: as with {first}");
    }
    text += "\n";
    for task in &report.tasks {
        let length = task.length.map(|length| format!(" at {length} tokens"));
        text += &format!(
            "\n{}{}, {} questions\n{}",
            task.task,
            length.unwrap_or_default(),
            task.cases,
            table(task)
        );
    }
    if report.specs.len() > 1 && report.tasks.len() > 1 {
        let mut table = Table::new(&["kv", "bits", "same right or wrong", "same result"]);
        for spec in report.specs.iter().skip(1) {
            table.row(vec![
                spec.kv.clone(),
                format!("{:.2}", spec.bits_per_value),
                spec.same_verdict.as_ref().map_or("-".to_owned(), share),
                share(&spec.same_result),
            ]);
        }
        text += &format!("\nall tasks\n{table}");
    }
    for spec in &report.specs {
        if let Some(policy) = &spec.policy {
            text += &format!("{}, fitted to the model: {policy}\n", spec.kv);
        }
    }
    text
}

fn table(task: &TaskFidelity) -> Table {
    let mut headings = vec!["kv"];
    match task.task.is_judged() {
        true => headings.extend([
            "right",
            "same right or wrong",
            "lost",
            "gained",
            "same result",
        ]),
        false => headings.extend(["same answer", "equal tokens", "of all"]),
    }
    let mut table = Table::new(&headings);
    for (index, result) in task.results.iter().enumerate() {
        let against_first = |text: String| if index == 0 { "-".to_owned() } else { text };
        let mut cells = vec![result.kv.clone()];
        let number = |count: Option<usize>| count.map_or(String::new(), |count| count.to_string());
        if let (Some(right), Some(same)) = (&result.right, &result.same_verdict) {
            cells.extend([
                share(right),
                against_first(share(same)),
                against_first(number(result.lost)),
                against_first(number(result.gained)),
            ]);
        }
        cells.push(against_first(share(&result.same_result)));
        if let Some(equal) = &result.equal_tokens {
            let mean = format!("{:.1} [{:.1}, {:.1}]", equal.mean, equal.low, equal.high);
            let of_all = format!("{:.1}%", 100.0 * equal.share);
            cells.extend([mean, of_all].map(against_first));
        }
        table.row(cells);
    }
    table
}

fn share(proportion: &Proportion) -> String {
    let Proportion {
        share, low, high, ..
    } = proportion;
    let percent = |share: &f64| 100.0 * share;
    format!(
        "{:.1}% [{:.1}, {:.1}]",
        percent(share),
        percent(low),
        percent(high)
    )
}
