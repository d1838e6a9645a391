// Markdown as models write it: text in, a tree out. No DOM here, so that Node can test it.
//
// A block is {type, …}: paragraph, heading {level}, code {lang, text}, list {ordered, start, loose, items}, quote, table
// {align, head, rows}, rule. `children` of a paragraph are strings and inline nodes (see inline.js). HTML is text.
//
// It departs from CommonMark where models mean something else: a single line break is a break, `---` under a line of text
// is a rule, two spaces are enough to nest a list under a number, and there are no link definitions, so that what has
// been read never changes its meaning later.

import { parseInline } from "./inline.js";

/** Deeper nesting stays text: a page of `>` must not become a page of elements within each other. */
const DEEPEST = 12;

const FENCE = /^( {0,3})(`{3,}(?=[^`]*$)|~{3,})(.*)$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)(.*)$/;
const QUOTE = /^ {0,3}>/;
const MARKER = /^(\s*)([-+*]|\d{1,9}[.)])(?=[ \t]|$)/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** Parses a whole text. With `open`, the text is still being written, and its last block is shown as if it were closed. */
export function parse(text, open = false) {
  return parseBlocks(text.split(/\r\n|\r|\n/), { depth: 0, open });
}

/**
 * Parses a text that grows. `update` gives all blocks; the first `stable` ones are the very objects that it gave before,
 * and will be for good: what is read again is what the last whole line belongs to.
 */
export class GrowingText {
  #done = [];
  #from = 0;

  update(written, open) {
    const text = written.replaceAll("\r\n", "\n");
    const rest = text.slice(this.#from);
    const whole = rest.lastIndexOf("\n") + 1;
    if (whole > 0) {
      const lines = rest.slice(0, whole - 1).split("\n");
      const blocks = parseBlocks(lines, { depth: 0, open: false });
      const last = blocks.at(-1);
      if (last && last.line > 0) {
        this.#done = this.#done.concat(blocks.slice(0, -1));
        this.#from += lines.slice(0, last.line).reduce((sum, line) => sum + line.length + 1, 0);
      }
    }
    const blocks = this.#done.concat(parse(text.slice(this.#from), open));
    return { blocks, stable: this.#done.length };
  }
}

/** How many columns a line is indented by; tabs end at every fourth. */
function indentOf(line) {
  let columns = 0;
  for (const char of line) {
    if (char === " ") columns += 1;
    else if (char === "\t") columns += 4 - (columns % 4);
    else break;
  }
  return columns;
}

/** Takes up to `columns` columns of white space from a line's beginning. */
function outdent(line, columns) {
  let at = 0;
  let gone = 0;
  while (gone < columns && at < line.length) {
    if (line[at] === " ") gone += 1;
    else if (line[at] === "\t") gone += 4 - (gone % 4);
    else break;
    at += 1;
  }
  return " ".repeat(Math.max(0, gone - columns)) + line.slice(at);
}

const isBlank = (line) => line.trim() === "";

/** Whether a line ends a paragraph before it. */
function interrupts(line) {
  if (FENCE.test(line) || RULE.test(line) || HEADING.test(line) || QUOTE.test(line)) return true;
  const marker = MARKER.exec(line);
  // A list that begins amid a paragraph begins at one, and with some text: "in\n1998. A year" is none.
  return marker !== null && indentOf(line) < 4 && line.length > marker[0].length && !/^(?!1[.)])\d/.test(marker[2]);
}

/** `line` of a block is the index of its first line. */
function parseBlocks(lines, context) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const { block, next } = parseBlock(lines, at, context);
    block.line = at;
    blocks.push(block);
    at = next;
  }
  return blocks;
}

function parseBlock(lines, at, context) {
  const line = lines[at];
  const nests = context.depth < DEEPEST;
  if (indentOf(line) >= 4) return indentedCode(lines, at);
  if (FENCE.test(line)) return fencedCode(lines, at);
  if (RULE.test(line)) return { block: { type: "rule" }, next: at + 1 };
  if (HEADING.test(line)) return heading(lines, at, context);
  if (nests && QUOTE.test(line)) return quote(lines, at, context);
  if (nests && MARKER.test(line)) return list(lines, at, context);
  if (beginsTable(lines, at, context)) return table(lines, at, context);
  return paragraph(lines, at, context);
}

/** Whether what ends before line `next` is still being written. */
const isOpen = (lines, next, context) => context.open && next >= lines.length;

function indentedCode(lines, at) {
  let next = at;
  let end = at;
  while (next < lines.length && (isBlank(lines[next]) || indentOf(lines[next]) >= 4)) {
    next += 1;
    if (!isBlank(lines[next - 1])) end = next;
  }
  const text = lines.slice(at, end).map((line) => outdent(line, 4)).join("\n");
  return { block: { type: "code", lang: "", text }, next: end };
}

function fencedCode(lines, at) {
  const [, indent, fence, info] = FENCE.exec(lines[at]);
  let next = at + 1;
  let closed = false;
  const text = [];
  while (next < lines.length && !closed) {
    const line = lines[next];
    const end = line.trim();
    closed = indentOf(line) < 4 && end.length >= fence.length && end === fence[0].repeat(end.length);
    if (!closed) text.push(outdent(line, indent.length));
    next += 1;
  }
  const lang = info.trim().split(/\s/)[0];
  return { block: { type: "code", lang, text: text.join("\n") }, next };
}

function heading(lines, at, context) {
  const [, marks, rest] = HEADING.exec(lines[at]);
  let text = rest.trim();
  const trailing = text.length - trimEndOf(text, "#").length;
  // Marks at the end are decoration where a space precedes them: "# C#" is no such case.
  if (trailing && /^$|\s$/.test(text.slice(0, -trailing))) text = text.slice(0, -trailing).trim();
  const children = parseInline(text, isOpen(lines, at + 1, context));
  return { block: { type: "heading", level: marks.length, children }, next: at + 1 };
}

function trimEndOf(text, char) {
  let end = text.length;
  while (end > 0 && text[end - 1] === char) end -= 1;
  return text.slice(0, end);
}

function quote(lines, at, context) {
  const inner = [];
  let next = at;
  let fenced = false;
  while (next < lines.length) {
    const line = lines[next];
    if (QUOTE.test(line)) {
      inner.push(line.replace(/^ {0,3}> ?/, ""));
      if (FENCE.test(inner.at(-1))) fenced = !fenced;
    } else {
      // A paragraph goes on without the mark.
      const lazy = !fenced && !isBlank(line) && !interrupts(line) && !isBlank(inner.at(-1));
      if (!lazy) break;
      inner.push(line);
    }
    next += 1;
  }
  const children = parseBlocks(inner, { depth: context.depth + 1, open: isOpen(lines, next, context) });
  return { block: { type: "quote", children }, next };
}

/** What kind of list a marker belongs to: its bullet, or what stands behind its number. */
const kindOf = (marker) => marker.at(-1);

function list(lines, at, context) {
  const first = MARKER.exec(lines[at]);
  const ordered = /\d/.test(first[2]);
  const block = { type: "list", ordered, loose: false, items: [] };
  if (ordered) block.start = Number.parseInt(first[2], 10);
  let next = at;
  while (next < lines.length) {
    const marker = MARKER.exec(lines[next]);
    if (!marker || indentOf(lines[next]) >= 4 || RULE.test(lines[next]) || kindOf(marker[2]) !== kindOf(first[2])) break;
    const item = listItem(lines, next, marker);
    const open = isOpen(lines, item.next, context);
    const children = parseBlocks(item.inner, { depth: context.depth + 1, open });
    block.items.push({ ...task(children), children });
    next = item.next;
    let after = next;
    while (after < lines.length && isBlank(lines[after])) after += 1;
    if (item.gap) block.loose = true;
    if (after > next) {
      // Blank lines between two items, but not behind the last one, set items apart.
      const following = after < lines.length ? MARKER.exec(lines[after]) : null;
      const goes_on = following && indentOf(lines[after]) < 4 && kindOf(following[2]) === kindOf(first[2]) && !RULE.test(lines[after]);
      if (!goes_on) break;
      block.loose = true;
      next = after;
    }
  }
  return { block, next };
}

/** Collects an item's lines without their indentation. `gap` says that a blank line lies between two of its paragraphs. */
function listItem(lines, at, marker) {
  const from = indentOf(lines[at]);
  const rest = lines[at].slice(marker[0].length);
  const space = indentOf(rest);
  const width = from + marker[2].length + (isBlank(rest) || space > 4 ? 1 : space);
  const enough = Math.min(width, from + 2);
  const inner = [outdent(rest, isBlank(rest) || space > 4 ? 1 : space)];
  let next = at + 1;
  let end = next;
  let fence = FENCE.exec(inner[0]);
  let gap = false;
  while (next < lines.length) {
    const line = lines[next];
    const before = inner.at(-1);
    if (isBlank(line)) {
      // An item that begins with an empty line has nothing behind a second one.
      if (inner.length === 1 && isBlank(inner[0])) break;
      inner.push("");
    } else if (indentOf(line) >= enough) {
      const text = outdent(line, width);
      const mark = FENCE.exec(text);
      if (mark && !fence) fence = mark;
      else if (mark && mark[2][0] === fence[2][0] && isBlank(mark[3])) fence = null;
      if (isBlank(before) && inner.length > 1 && !fence && !MARKER.test(text)) gap = true;
      inner.push(text);
      end = next + 1;
    } else if (!fence && !isBlank(before) && !interrupts(line) && !MARKER.test(line)) {
      inner.push(line.trimStart());
      end = next + 1;
    } else {
      break;
    }
    next += 1;
  }
  return { inner: inner.slice(0, end - at), next: end, gap };
}

/** `[x]` and `[ ]` at the beginning of an item, which are taken from its text. */
function task(children) {
  const [first] = children;
  const text = first?.type === "paragraph" ? first.children[0] : undefined;
  const box = typeof text === "string" ? /^\[([ xX])\] +/.exec(text) : null;
  if (!box) return {};
  first.children[0] = text.slice(box[0].length);
  return { done: box[1] !== " " };
}

/** The cells of a row: what lies between bars that no backslash precedes. */
function cellsOf(line) {
  const cells = [""];
  const text = line.trim();
  for (let at = text[0] === "|" ? 1 : 0; at < text.length; at += 1) {
    if (text[at] === "\\" && text[at + 1] === "|") {
      cells.push(`${cells.pop()}|`);
      at += 1;
    } else if (text[at] === "\\" && at + 1 < text.length) {
      cells.push(cells.pop() + text.slice(at, at + 2));
      at += 1;
    } else if (text[at] === "|") {
      if (at + 1 < text.length) cells.push("");
    } else {
      cells.push(cells.pop() + text[at]);
    }
  }
  return cells.map((cell) => cell.trim());
}

function beginsTable(lines, at, context) {
  if (!lines[at].includes("|")) return false;
  const under = lines[at + 1];
  if (under !== undefined && DELIMITERS.test(under) && cellsOf(under).length === cellsOf(lines[at]).length) return true;
  // The row of dashes is still to come: bars that turn into a table would make the page jump.
  const last = context.open && (at + 1 >= lines.length || (at + 2 >= lines.length && /^[|:\- \t]*$/.test(under)));
  return last && lines[at].trimStart().startsWith("|");
}

function table(lines, at, context) {
  const names = cellsOf(lines[at]);
  const dashes = cellsOf(lines[at + 1] ?? "");
  const align = names.map((_, index) => {
    const cell = dashes[index] ?? "";
    if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "right";
    return cell.startsWith(":") ? "left" : "";
  });
  let next = Math.min(at + 2, lines.length);
  const rows = [];
  while (next < lines.length && !isBlank(lines[next]) && !interrupts(lines[next])) {
    const cells = cellsOf(lines[next]);
    rows.push(names.map((_, index) => cells[index] ?? ""));
    next += 1;
  }
  const open = isOpen(lines, next, context);
  const inline = (cells, last) => cells.map((cell) => parseInline(cell, last));
  return {
    block: {
      type: "table",
      align,
      head: inline(names, open && rows.length === 0),
      rows: rows.map((cells, index) => inline(cells, open && index === rows.length - 1)),
    },
    next,
  };
}

function paragraph(lines, at, context) {
  let next = at + 1;
  while (next < lines.length && !isBlank(lines[next]) && !interrupts(lines[next]) && !beginsTable(lines, next, context)) {
    if (/^ {0,3}=+[ \t]*$/.test(lines[next])) {
      const text = lines.slice(at, next).join("\n");
      return { block: { type: "heading", level: 1, children: parseInline(text, false) }, next: next + 1 };
    }
    next += 1;
  }
  const text = lines.slice(at, next).join("\n");
  return { block: { type: "paragraph", children: parseInline(text, isOpen(lines, next, context)) }, next };
}
