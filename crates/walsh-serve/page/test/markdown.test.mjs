// What Markdown means, as trees.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { webAddress } from "../inline.js";
import { GrowingText, parse } from "../markdown.js";

/** A tree in one line: `p(a, em(b))`. */
function brief(node) {
  if (typeof node === "string") return JSON.stringify(node);
  const all = (nodes) => nodes.map(brief).join(", ");
  switch (node.type) {
    case "paragraph": return `p(${all(node.children)})`;
    case "heading": return `h${node.level}(${all(node.children)})`;
    case "code": return node.lang === undefined ? `code(${JSON.stringify(node.text)})` : `block[${node.lang}](${JSON.stringify(node.text)})`;
    case "math": return `math(${JSON.stringify(node.text)})`;
    case "link": return `a[${node.href}](${all(node.children)})`;
    case "break": return "br";
    case "rule": return "hr";
    case "list": {
      const box = (item) => (item.done === undefined ? "" : item.done ? "[x]" : "[ ]");
      const kind = `${node.ordered ? `ol${node.start}` : "ul"}${node.loose ? "+" : ""}`;
      return `${kind}(${node.items.map((item) => `${box(item)}${all(item.children)}`).join("; ")})`;
    }
    case "table": {
      const row = (cells) => cells.map(all).join(" | ");
      return `table[${node.align.join()}](${[node.head, ...node.rows].map(row).join(" / ")})`;
    }
    default: return `${node.type}(${all(node.children)})`;
  }
}
const read = (text, open) => parse(text, open).map(brief).join(" ");

const CASES = [
  ["paragraphs", "a\n\nb", 'p("a") p("b")'],
  ["line breaks, hard or not", "a\nb  \nc\\\nd", 'p("a", br, "b", br, "c", br, "d")'],
  ["carriage returns", "a\r\n\r\nb", 'p("a") p("b")'],
  ["headings", "# A *b* #\n## C#\n####### d\n#e", 'h1("A ", em("b")) h2("C#") p("####### d", br, "#e")'],
  ["an underlined heading", "A\n===", 'h1("A")'],
  ["a rule, also under text", "a\n---\n* * *", 'p("a") hr hr'],
  ["emphasis", "*a* **b** ***c*** __d__ _e_ ~~f~~", 'p(em("a"), " ", strong("b"), " ", em(strong("c")), " ", strong("d"), " ", em("e"), " ", del("f"))'],
  ["emphasis within emphasis", "**a *b* c** *d **e** f*", 'p(strong("a ", em("b"), " c"), " ", em("d ", strong("e"), " f"))'],
  ["emphasis within a word", "un*frigging*believable snake_case_name", 'p("un", em("frigging"), "believable snake_case_name")'],
  ["what is no emphasis", "2 * 3 * 4, ** a **, *a, _", 'p("2 * 3 * 4, ** a **, *a, _")'],
  ["code within a line", "`a` ``b ` c`` ` d ` `e", 'p(code("a"), " ", code("b ` c"), " ", code("d"), " `e")'],
  ["code binds closer than emphasis", "*a `b*`", 'p("*a ", code("b*"))'],
  ["escapes", "\\*a\\* \\\\ \\q", 'p("*a* \\\\ \\\\q")'],
  ["entities", "&lt;b&gt; &amp;amp; &#65;&#x42; &nope; &#0;", 'p("<b> &amp; AB &nope; \ufffd")'],
  ["HTML is text", "<b>x</b>\n<script>alert(1)</script>", 'p("<b>x</b>", br, "<script>alert(1)</script>")'],
  ["a break in HTML", "a<br>b<br/>c", 'p("a", br, "b", br, "c")'],
  ["formulas stay as written", "\\(a_1 * b_2 * c\\) and $$x_1$$ and \\[y\\]", 'p(math("\\\\(a_1 * b_2 * c\\\\)"), " and ", math("$$x_1$$"), " and ", math("\\\\[y\\\\]"))'],
  ["dollars", "It costs $5 or $6, $$", 'p("It costs $5 or $6, $$")'],
  ["a link", '[a *b*](https://example.com/x_(y) "t")', 'p(a[https://example.com/x_(y)]("a ", em("b")))'],
  ["a link in brackets", "[a](<https://example.com/x y>)", 'p(a[https://example.com/x%20y]("a"))'],
  ["links bind closer than emphasis", "*a [b* c](https://example.com)", 'p("*a ", a[https://example.com/]("b* c"))'],
  ["no link within a link", "[a [b](https://example.com/b) c](https://example.com/c)", 'p("[a ", a[https://example.com/b]("b"), " c](", a[https://example.com/c]("https://example.com/c"), ")")'],
  ["bare addresses", "see https://example.com/a_b_c, (https://example.com/d), <https://example.com/e>.", 'p("see ", a[https://example.com/a_b_c]("https://example.com/a_b_c"), ", (", a[https://example.com/d]("https://example.com/d"), "), ", a[https://example.com/e]("https://example.com/e"), ".")'],
  ["a bare address in bold", "**https://example.com/**", 'p(strong(a[https://example.com/]("https://example.com/")))'],
  ["an image is a link", "![a](https://example.com/a.png)", 'p(a[https://example.com/a.png]("a"))'],
  ["brackets without a link", "[a] [b](no link [c", 'p("[a] [b](no link [c")'],
  ["a list", "- a\n- b\n* c", 'ul(p("a"); p("b")) ul(p("c"))'],
  ["a numbered list from 3", "3. a\n4. b", 'ol3(p("a"); p("b"))'],
  ["nested lists", "- a\n  - b\n    1. c\n- d", 'ul(p("a"), ul(p("b"), ol1(p("c"))); p("d"))'],
  ["two spaces nest under a number", "1. a\n  - b\n2. c", 'ol1(p("a"), ul(p("b")); p("c"))'],
  ["a loose list", "- a\n\n- b", 'ul+(p("a"); p("b"))'],
  ["paragraphs of an item", "1. a\n\n   b\n2. c", 'ol1+(p("a"), p("b"); p("c"))'],
  ["code in an item", "1. a\n   ```sh\n   x\n\n     y\n   ```\n2. b", 'ol1(p("a"), block[sh]("x\\n\\n  y"); p("b"))'],
  ["a list goes on behind code that is not indented", "1. a\n```\nx\n```\n2. b", 'ol1(p("a")) block[]("x") ol2(p("b"))'],
  ["a list ends", "- a\n\nb", 'ul(p("a")) p("b")'],
  ["an item goes on", "- a\nb", 'ul(p("a", br, "b"))'],
  ["tasks", "- [x] a\n- [ ] b\n- [y] c", 'ul([x]p("a"); [ ]p("b"); p("[y] c"))'],
  ["a year begins no list amid text", "in\n1998. A year", 'p("in", br, "1998. A year")'],
  ["a block of code", "```rust,ignore x\nfn a() {}\n\n*b*\n```\nc", 'block[rust,ignore]("fn a() {}\\n\\n*b*") p("c")'],
  ["fences within a longer fence", "````\n```\n````", 'block[]("```")'],
  ["tildes", "~~~\na\n~~~", 'block[]("a")'],
  ["a fence that nothing closes", "```\na\nb", 'block[]("a\\nb")'],
  ["code that is indented", "    a\n\n      b\nc", 'block[]("a\\n\\n  b") p("c")'],
  ["tabs stay in code", "```\n\ta\n```", 'block[]("\\ta")'],
  ["quotes", "> a\nb\n> - c\n\nd", 'quote(p("a", br, "b"), ul(p("c"))) p("d")'],
  ["quotes within quotes", "> a\n> > b", 'quote(p("a"), quote(p("b")))'],
  ["a table", "| a | b |\n|:--|:-:|\n| 1 | `x\\|y` |\n| 2 |\n\nz", 'table[left,center]("a" | "b" / "1" | code("x|y") / "2" | ) p("z")'],
  ["a table without outer bars", "a|b\n-|-:\n1|2", 'table[,right]("a" | "b" / "1" | "2")'],
  ["a table behind a line of text", "t\n| a |\n|---|\n| 1 |", 'p("t") table[]("a" / "1")'],
  ["bars alone are text", "a | b\nc | d", 'p("a | b", br, "c | d")'],
];
for (const [name, text, expected] of CASES) {
  test(name, () => assert.equal(read(text), expected));
}

test("only addresses of the web are links", () => {
  const hostile = [
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:alert(1)", "java\nscript:alert(1)", "java\tscript:alert(1)",
    "data:text/html,<script>alert(1)</script>", "vbscript:x", "file:///etc/passwd", "blob:https://example.com/x", "//example.com", "/x", "x.md", "",
    "https:", "\u0001javascript:alert(1)", "view-source:https://example.com",
  ];
  for (const address of hostile) {
    assert.equal(webAddress(address), null, address);
    for (const text of [`[x](${address})`, `[x](<${address}>)`, `![x](${address} "t")`, `<${address}>`]) {
      const tree = JSON.stringify(parse(text));
      for (const [, href] of tree.matchAll(/"href":"([^"]*)"/g)) assert.match(href, /^https?:\/\//, text);
    }
  }
  assert.equal(read("[x](javascript:alert(1))"), 'p("x (javascript:alert(1))")');
});

test("what is being written is shown as if it were closed", () => {
  assert.equal(read("a **b", true), 'p("a ", strong("b"))');
  assert.equal(read("a **", true), 'p("a ")');
  assert.equal(read("a `b", true), 'p("a ", code("b"))');
  assert.equal(read("see [the text](https://exam", true), 'p("see the text")');
  assert.equal(read("| a | b |", true), 'table[,]("a" | "b")');
  assert.equal(read("| a | b |\n|-", true), 'table[,]("a" | "b")');
  assert.equal(read("a **b\n\nc", true), 'p("a **b") p("c")');
  assert.equal(read("2 * 3", true), 'p("2 * 3")');
});

test("a text that grows means at its end what it means at once, and what was stable stays", async () => {
  const example = await readFile(new URL("example.md", import.meta.url), "utf8");
  for (const text of [example, example.replaceAll("\n", "\r\n"), ...CASES.map(([, text]) => text)]) {
    const growing = new GrowingText();
    let stable = [];
    for (let end = 1; end <= text.length; end += 1) {
      const now = growing.update(text.slice(0, end), true);
      stable.forEach((block, index) => assert.equal(now.blocks[index], block, "a stable block is the same object"));
      stable = now.blocks.slice(0, now.stable);
    }
    const whole = parse(text);
    assert.equal(growing.update(text, false).blocks.map(brief).join(" "), whole.map(brief).join(" "));
    stable.forEach((block, index) => assert.equal(brief(block), brief(whole[index])));
  }
});

test("time and depth are bounded whatever is written", () => {
  const pieces = [
    "*", "* ", "*a ", "**a **", "*a**b", "_a", "[", "]", "[]", "![", "](", "[a](", '[a](b "', "[a](https://example.com) ", "`", "`` ", "```\n", "> ",
    ">", "- ", "\n- ", "\n  - ", "1. ", "|", "|-", "\n|a", "$$", "\\(", "\\[", "<", "<https://", "http://", "https://x)", "&#1;", "&", "#", "\n#", "\t", " ", "=\n",
    "~~a", "***a*", "\n> - ",
  ];
  const depth = (node) => {
    let deepest = 0;
    for (const child of [node.children, node.items].flatMap((nodes) => nodes ?? [])) deepest = Math.max(deepest, depth(child));
    return deepest + 1;
  };
  for (const piece of pieces) {
    const text = piece.repeat(Math.ceil(100_000 / piece.length));
    const start = performance.now();
    const trees = [parse(text), parse(text, true), parse(`${text}a${[...text].reverse().join("")}`)];
    const took = performance.now() - start;
    assert.ok(took < 4000, `${JSON.stringify(piece)} takes ${Math.round(took)} ms`);
    for (const tree of trees) {
      let deepest = 0;
      for (const block of tree) deepest = Math.max(deepest, depth(block));
      assert.ok(deepest < 120, `${JSON.stringify(piece)} is ${deepest} deep`);
    }
  }
});

test("nothing that is written is left out", () => {
  // Every letter of random texts of marks is in the tree, in order.
  const marks = ["*", "**", "_", "`", "``", "[", "](", ")", "\n", "\n\n", "- ", "> ", "# ", "|", " ", "  ", "<", "~~", "1. ", "    ", "!", "\\", "$$", "\n|--|\n"];
  let seed = 12345;
  const random = (below) => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return Math.floor((seed / 2 ** 31) * below);
  };
  const texts = (node) => (typeof node === "string" ? node : [node.text ?? "", ...["children", "items", "head", "rows"].flatMap((key) => (node[key] ?? []).flat().map(texts)), node.lang ?? ""].join(""));
  for (let round = 0; round < 3000; round += 1) {
    let text = "";
    let letters = "";
    for (let length = random(24); length >= 0; length -= 1) {
      const letter = String.fromCharCode(97 + random(26));
      text += marks[random(marks.length)] + letter;
      letters += letter;
    }
    // Cells beyond a table's columns are dropped, as everywhere, and the language of a block comes before its text.
    if (/\|-/.test(text) || /```|~~~/.test(text)) continue;
    const found = parse(text).map(texts).join("").replace(/[^a-z]/g, "");
    assert.equal(found, letters, JSON.stringify(text));
  }
});
