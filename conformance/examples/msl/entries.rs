//! What no compiler of another language knows of Metal's entry points: their attributes, which are taken out.

/// The most buffers of Metal's argument table.
const MOST_BUFFERS: usize = 31;

/// The most threads of a group.
const MOST_THREADS: u32 = 1024;

/// The attribute in front of an entry point, up to its number of threads.
const KERNEL: &str = "kernel, max_total_threads_per_threadgroup(";

/// The text with its entry points as the compiler of C++ for OpenCL has them.
///
/// # Errors
/// What is wrong with an entry point's attributes or parameters.
pub(crate) fn rewritten(source: &str) -> Result<String, String> {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, entry)) = rest.split_once("[[") {
        text.push_str(before);
        let Some(entry) = entry.strip_prefix(KERNEL) else {
            let shown: String = entry.chars().take(40).collect();
            return Err(format!("an attribute outside an entry point: [[{shown}"));
        };
        let (threads, entry) = entry.split_once(")]]").ok_or("an attribute has no end")?;
        let threads: u32 = threads.parse().map_err(|_| "no number of threads")?;
        if threads == 0 || threads > MOST_THREADS || !threads.is_multiple_of(32) {
            return Err(format!(
                "groups of {threads} threads: whole simdgroups, up to {MOST_THREADS}"
            ));
        }
        let (head, entry) = entry.split_once('(').ok_or("an entry point is none")?;
        if !head.trim_start().starts_with("void ") {
            return Err(format!("an entry point gives something back: {head}"));
        }
        let end = closing(entry).ok_or("an entry point's parameters have no end")?;
        text.push_str("__kernel");
        text.push_str(head);
        text.push('(');
        text.push_str(&parameters(&entry[..end])?);
        rest = &entry[end..];
    }
    text.push_str(rest);
    Ok(text)
}

/// Where the parenthesis that was opened before the text closes.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    text.char_indices().find_map(|(at, c)| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        (depth == 0).then_some(at)
    })
}

/// The parameters of an entry point without their attributes.
fn parameters(text: &str) -> Result<String, String> {
    let mut buffers = Vec::new();
    let mut plain = Vec::new();
    for parameter in text.split(',').map(str::trim) {
        let (declared, attribute) = parameter
            .split_once("[[")
            .and_then(|(declared, rest)| Some((declared.trim(), rest.strip_suffix("]]")?)))
            .ok_or_else(|| format!("a parameter without an attribute: {parameter}"))?;
        match attribute {
            "threadgroup_position_in_grid" if declared.starts_with("uint3 ") => {}
            "thread_index_in_threadgroup" if declared.starts_with("uint ") => {}
            _ => {
                let number = attribute.strip_prefix("buffer(");
                let number = number.and_then(|n| n.strip_suffix(')')?.parse::<usize>().ok());
                let number =
                    number.ok_or_else(|| format!("not an attribute of it: {parameter}"))?;
                if number >= MOST_BUFFERS || buffers.contains(&number) {
                    return Err(format!(
                        "buffer {number} is taken, or beyond {MOST_BUFFERS}"
                    ));
                }
                buffers.push(number);
                let is_reference = declared.contains(['*', '&']);
                let space = ["device ", "constant "]
                    .iter()
                    .any(|s| declared.starts_with(s));
                if !is_reference || !space {
                    return Err(format!(
                        "a buffer in no address space of buffers: {parameter}"
                    ));
                }
            }
        }
        plain.push(declared.to_owned());
    }
    Ok(plain.join(", "))
}
