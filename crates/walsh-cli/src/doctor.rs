//! `walsh doctor`.

use serde_json::json;
use walsh_runtime::store::State;
use walsh_runtime::{Tool, diagnose};

use crate::args::Doctor;
use crate::failure::{Failure, Outcome};
use crate::{models, output};

pub(crate) fn run(args: &Doctor) -> Outcome {
    let diagnosis = diagnose(&walsh::open("cpu")?)?;
    let store = models::store(&args.cache)?;
    let present: Vec<String> = store
        .list()?
        .iter()
        .filter(|model| model.state == State::Ready)
        .map(|model| model.entry.name.clone())
        .collect();
    let folder = store.folder().display().to_string();
    if args.json {
        let mut report = serde_json::to_value(&diagnosis).map_err(Failure::run)?;
        report["cache"] = json!({ "folder": folder, "models": present });
        return output::print_json(&report);
    }
    let cpu = &diagnosis.cpu;
    let mut text = format!(
        "walsh {}\n\
         cpu           {}\n\
         threads       {}\n\
         features      {}\n\
         kernels       {} (of {})\n\
         memory        {:.1} GB/s read by all threads\n\
         python        {}\n\
         pip           {}\n\
         cache folder  {folder}\n\
         models        {}\n",
        diagnosis.version,
        cpu.name.as_deref().unwrap_or("unknown"),
        cpu.threads,
        list(&cpu.features),
        cpu.instruction_set,
        list(&cpu.available),
        diagnosis.memory_gigabytes_per_second,
        state(&diagnosis.python),
        state(&diagnosis.pip),
        if present.is_empty() {
            "none yet; 'walsh pull' fetches the default".to_owned()
        } else {
            list(&present)
        },
    );
    for backend in &diagnosis.backends {
        for (at, line) in backend.state.iter().enumerate() {
            let name = if at == 0 { backend.name } else { "" };
            text.push_str(&format!("{name:<13} {line}\n"));
        }
    }
    output::print(&text)
}

fn list(words: &[impl AsRef<str>]) -> String {
    if words.is_empty() {
        return "none".to_owned();
    }
    words
        .iter()
        .map(AsRef::as_ref)
        .collect::<Vec<_>>()
        .join(" ")
}

fn state(tool: &Tool) -> String {
    if tool.found {
        tool.detail.clone()
    } else {
        format!("missing: {}", tool.detail)
    }
}
