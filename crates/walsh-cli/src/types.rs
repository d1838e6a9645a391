//! `walsh types`.

use serde_json::json;
use walsh_runtime::weight_types;

use crate::args::Types;
use crate::failure::Outcome;
use crate::models;
use crate::output::{self, Table};

pub(crate) fn run(args: &Types) -> Outcome {
    let device = models::device(&args.on, &args.cache)?;
    let types = weight_types(&device)?;
    let name = device.properties().to_string();
    if args.json {
        return output::print_json(&json!({ "device": name, "types": types }));
    }
    let mut table = Table::new(&[
        "type",
        "of",
        "block",
        "bits",
        "written",
        "importance",
        "products",
        "error",
    ]);
    let yes = |is_so: bool| if is_so { "yes" } else { "no" }.to_owned();
    for facts in &types {
        table.row(vec![
            facts.name.to_owned(),
            if facts.is_of_ggml { "GGML" } else { "Walsh" }.to_owned(),
            facts.block.to_string(),
            format!("{:.2}", facts.bits),
            yes(facts.is_written),
            yes(facts.takes_importance),
            yes(facts.no_products.is_none()),
            facts
                .error
                .map_or_else(|| "-".to_owned(), |error| format!("{error:.2e}")),
        ]);
    }
    output::print(&format!(
        "{table}\nproducts: on {name}; error: squared, over the square of normal numbers, written without an importance\n"
    ))
}
