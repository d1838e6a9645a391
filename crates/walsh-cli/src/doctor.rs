//! `walsh doctor`.

use serde_json::json;
use walsh_runtime::store::{State, Store};
use walsh_runtime::{Tool, diagnose};

use crate::args::Doctor;
use crate::failure::{Failure, Outcome};
use crate::models;
use crate::output::{self, shown};

pub(crate) fn run(args: &Doctor) -> Outcome {
    let diagnosis = diagnose(&walsh::open("cpu")?)?;
    // A machine on which nothing can be kept is described all the same.
    let (folder, present) = match models::store(&args.cache) {
        Ok(store) => (Ok(store.folder().display().to_string()), present(&store)?),
        Err(failure) => (Err(failure.to_string()), Vec::new()),
    };
    if args.json {
        let folder = folder.ok();
        let mut report = serde_json::to_value(&diagnosis).map_err(Failure::run)?;
        report["cache"] = json!({ "folder": folder, "models": present });
        return output::print_json(&report);
    }
    let folder = folder.unwrap_or_else(|why| format!("none: {why}"));
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
         cache folder  {}\n\
         models        {}\n",
        diagnosis.version,
        shown(cpu.name.as_deref().unwrap_or("unknown")),
        cpu.threads,
        list(&cpu.features),
        cpu.instruction_set,
        list(&cpu.available),
        diagnosis.memory_gigabytes_per_second,
        state(&diagnosis.python),
        state(&diagnosis.pip),
        shown(&folder),
        if present.is_empty() {
            "none yet; 'walsh pull' fetches the default".to_owned()
        } else {
            list(&present)
        },
    );
    for backend in &diagnosis.backends {
        for (at, line) in backend.state.iter().enumerate() {
            let name = if at == 0 { backend.name } else { "" };
            text.push_str(&format!("{name:<13} {}\n", shown(line)));
        }
    }
    output::print(&text)
}

fn present(store: &Store) -> Outcome<Vec<String>> {
    let models = store.list()?;
    let ready = models.iter().filter(|model| model.state == State::Ready);
    Ok(ready.map(|model| model.name.clone()).collect())
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
    let detail = shown(&tool.detail);
    match tool.found {
        true => detail.into_owned(),
        false => format!("missing: {detail}"),
    }
}
