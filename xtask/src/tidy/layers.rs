//! The order of the crates: what each may use, and the map that says so.

/// From the lowest layer up: a crate may depend on those before it.
const LAYERS: &[&str] = &[
    "walsh-formats",
    "walsh-convert",
    "walsh-core",
    "walsh-kernels",
    "walsh-sim",
    "walsh-cpu",
    "walsh-cuda",
    "walsh-metal",
    "walsh",
    "walsh-bench",
    "walsh-runtime",
    "walsh-report",
    "walsh-serve",
    "walsh-c",
    "walsh-python",
    "walsh-cli",
    "conformance",
    "xtask",
];

/// Those of them that are no part of what users get: the map lists them apart.
const APART: [&str; 2] = ["conformance", "xtask"];

/// Each line of a crate's manifest that breaks the order, with what is wrong.
pub(super) fn manifest(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut section = "";
    let mut layer = None;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim().trim_matches(['[', ']']);
        }
        // A dependency is a key of a section, or a section of its own.
        let (kind, last) = section.rsplit_once('.').unwrap_or(("", section));
        let used = match line.split_once('=') {
            Some((key, value)) if section == "package" && key.trim() == "name" => {
                let name = value.trim().trim_matches('"');
                layer = LAYERS.iter().position(|layer| *layer == name);
                if layer.is_none() {
                    let what = format!("{name} is not among the layers that tidy knows");
                    found.push((index + 1, what));
                }
                continue;
            }
            Some((key, _)) if last.ends_with("dependencies") => {
                key.split('.').next().unwrap_or(key).trim()
            }
            None if line.starts_with('[') && kind.ends_with("dependencies") => last,
            _ => continue,
        };
        let position = LAYERS.iter().position(|layer| *layer == used);
        // A crate's own tests may ask for features of it.
        let is_own = section == "dev-dependencies" && position == layer;
        if let (Some(layer), Some(position)) = (layer, position)
            && position >= layer
            && !is_own
        {
            let what = format!("{} is below {used} and cannot use it", LAYERS[layer]);
            found.push((index + 1, what));
        }
    }
    found
}

/// What is wrong with the map of the crates, the first block of ARCHITECTURE.md: it has them from the top down.
pub(super) fn map(text: &str) -> Option<(usize, String)> {
    let block = text.split("```").nth(1).unwrap_or_default();
    let names = block.lines().filter_map(|line| line.split(' ').next());
    let listed: Vec<&str> = names.filter(|name| name.starts_with("walsh")).collect();
    let layers = LAYERS.iter().rev().filter(|layer| !APART.contains(layer));
    let layers: Vec<&str> = layers.copied().collect();
    let line = 1 + text.lines().position(|line| line.starts_with("```"))?;
    (listed != layers).then(|| {
        let what = format!(
            "the map has not the layers that tidy checks: {}",
            layers.join(", ")
        );
        (line, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, uses: &str) -> Vec<(usize, String)> {
        manifest(&format!("[package]\nname = \"{name}\"\n\n{uses}\n"))
    }

    #[test]
    fn a_crate_uses_only_those_below_it() {
        let wrong = |line| {
            let what = "walsh-core is below walsh-cpu and cannot use it";
            vec![(line, what.to_owned())]
        };
        for uses in ["walsh-formats.workspace = true", "half.workspace = true"] {
            assert_eq!(found("walsh-core", &format!("[dependencies]\n{uses}")), []);
        }
        for section in [
            "dependencies",
            "dev-dependencies",
            "target.'cfg(unix)'.dependencies",
        ] {
            for uses in ["walsh-cpu.workspace = true", "walsh-cpu = { path = \"x\" }"] {
                assert_eq!(
                    found("walsh-core", &format!("[{section}]\n{uses}")),
                    wrong(5)
                );
            }
        }
        let section = "[dependencies.walsh-cpu]\nworkspace = true";
        assert_eq!(found("walsh-core", section), wrong(4));
        assert_eq!(found("walsh-other", "").len(), 1);
        let own = |section| {
            found(
                "walsh-core",
                &format!("[{section}]\nwalsh-core.path = \".\""),
            )
        };
        assert_eq!(own("dev-dependencies"), []);
        assert_eq!(own("dependencies").len(), 1);
    }

    #[test]
    fn the_map_is_the_order() {
        let mut lines: Vec<String> = LAYERS
            .iter()
            .rev()
            .map(|name| format!("{name}  words"))
            .collect();
        let map = |lines: &[String]| map(&format!("# A\n\n```\n{}\n```\n", lines.join("\n")));
        assert_eq!(map(&lines), None);
        lines.swap(2, 3);
        assert!(map(&lines).is_some_and(|(line, _)| line == 3));
        lines.clear();
        assert!(map(&lines).is_some());
    }
}
