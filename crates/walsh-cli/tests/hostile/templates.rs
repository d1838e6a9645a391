//! Chat templates that want more than their share.

use walsh::formats::random::SplitMix64;

/// What makes `ns.x` larger or deeper.
const GROWTH: [&str; 30] = [
    "ns.x ~ ns.x",
    "ns.x + ns.x",
    "ns.x * 2",
    "ns.x * 100000000",
    "[ns.x, ns.x]",
    "[ns.x]",
    "(ns.x,)",
    "{'a': ns.x}",
    "{'a': ns.x, 'b': ns.x}",
    "ns",
    "[ns]",
    "ns.x | tojson",
    "ns.x | tojson(indent=100000)",
    "ns.x | string",
    "ns.x | list",
    "ns.x | join(ns.x)",
    "ns.x | string | replace('a', 'aaaa')",
    "ns.x | string | indent(10000, true)",
    "ns.x | string | center(100000000)",
    "ns.x | string | upper",
    "(ns.x | string).replace('a', 'aa')",
    "(ns.x | string).join(['aaaa', 'aaaa', 'aaaa'])",
    "(ns.x | string).ljust(1000000000)",
    "'%s%s' % (ns.x, ns.x)",
    "'%1000000000s' % 'a'",
    "'{}{}'.format(ns.x, ns.x)",
    "[ns.x] | batch(1000000000, 'x') | list",
    "range(1000000000) | list",
    "ns.x | string | list | sort | join",
    "ns.x | string | urlencode",
];

/// What is done with it in the end.
const SINKS: [&str; 9] = [
    "{{ ns.x }}",
    "{{ ns.x | tojson }}",
    "{{ ns.x | length }}",
    "{{ ns.x == ns.x }}",
    "{{ ns.x in [ns.x] }}",
    "{{ ns }}",
    "{{ [ns.x] | unique | list }}",
    "{{ {ns.x: 1} }}",
    "hi",
];

/// What nests or chains: an opening, what stands in the middle, a closing.
const NESTS: [(&str, &str, &str); 24] = [
    ("{{ (", "1", ") }}"),
    ("(", "1", ")"),
    ("[", "1", "]"),
    ("{'a': ", "1", "}"),
    ("not ", "1", ""),
    ("-", "1", ""),
    ("1 + ", "1", ""),
    ("1 ~ ", "1", ""),
    ("1 ** ", "1", ""),
    ("1 < ", "1", ""),
    ("1 and ", "1", ""),
    ("1 if 1 else ", "1", ""),
    ("a.", "b", ""),
    ("", "a", ".b"),
    ("", "a", "[0]"),
    ("", "a", "()"),
    ("", "'a'", " | upper"),
    ("", "1", " is defined"),
    ("{% if 1 %}", "a", "{% endif %}"),
    ("{% for a in [1] %}", "a", "{% endfor %}"),
    ("{% macro a() %}", "a", "{% endmacro %}"),
    ("{% filter upper %}", "a", "{% endfilter %}"),
    ("{% set a %}", "a", "{% endset %}"),
    ("{% if 0 %}a{% else %}", "a", "{% endif %}"),
];

/// What loops or recurs without an end, and numbers at their ends.
const OTHERS: [&str; 26] = [
    "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% macro a(n) %}{% for i in range(2) %}{{ a(n + 1) }}{% endfor %}{% endmacro %}{{ a(0) }}",
    "{% macro a() %}{{ caller() }}{% endmacro %}{% call a() %}{{ a() }}{% endcall %}",
    "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% for i in [1] recursive %}{{ loop([1, 2]) }}{{ loop([1, 2]) }}{% endfor %}",
    "{{ 10 ** 1000000000 }}",
    "{{ 2 ** 9223372036854775807 }}",
    "{{ (-9223372036854775807 - 1) // -1 }}",
    "{{ (-9223372036854775807 - 1) | abs }}",
    "{{ (-9223372036854775807 - 1) % -1 }}",
    "{{ 170141183460469231731687303715884105727 + 1 }}",
    "{{ 1 // 0 }}",
    "{{ 1 % 0 }}",
    "{{ 1.0 % 0 }}",
    "{{ 'abc'[9223372036854775807:-9223372036854775807:-1] }}",
    "{{ [1, 2][::0] }}",
    "{{ 'é日本'[1:2] }}{{ 'é'[-99999999999999999999:] }}",
    "{{ '%' % 1 }}{{ '%(a)s' % 1 }}{{ '%*d' % (1, 2) }}",
    "{{ '{:>99999999999}'.format(1) }}{{ '{0[0]}'.format('a') }}{{ '{.a}'.format(1) }}",
    "{{ strftime_now('%' * 10000) }}",
    "{{ strftime_now('%999999999d') }}",
    "{{ raise_exception('\\x1b[2J' * 100000) }}",
    "{{ cycler('a', 'b').next.next.next() }}{{ lipsum(n=1000000) }}",
    "{{ 1e308 * 10 }}{{ (1e308 * 10) | int }}{{ (0.0 / 1e-320) | round(400) }}",
    "{{ 'a' | int(base=99) }}{{ 1 | round(-9223372036854775807) }}{{ '9' * 5000 | int }}",
];

/// A template.
pub(crate) fn template(random: &mut SplitMix64) -> String {
    match random.below(4) {
        0 => random.pick(&OTHERS).to_string(),
        1 => {
            let (open, middle, close) = *random.pick(&NESTS);
            let times = *random.pick(&[20, 500, 5000, 100_000]);
            let nest = open.repeat(times) + middle + &close.repeat(times);
            if open.contains("{%") || open.contains("{{") {
                nest
            } else {
                format!("{{{{ {nest} }}}}")
            }
        }
        _ => {
            let (growth, sink) = (random.pick(&GROWTH), random.pick(&SINKS));
            let times = *random.pick(&[1, 30, 1000, 90_000]);
            let start = *random.pick(&["'aaaaaaaa'", "['a', 'b']", "[]", "{'a': 1}", "1", "''"]);
            format!(
                "{{% set ns = namespace(x={start}) %}}{{% for i in range({times}) %}}{{% set ns.x = {growth} %}}{{% endfor %}}{sink}"
            )
        }
    }
}
