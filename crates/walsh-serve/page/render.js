// A tree of Markdown into elements. Text becomes text nodes and nothing else, whatever it looks like.

import { GrowingText } from "./markdown.js";
import { copyText, el, icon } from "./dom.js";

const TAGS = { paragraph: "p", quote: "blockquote", rule: "hr", em: "em", strong: "strong", del: "del", break: "br" };

/** Shows a text that grows in an element. Only what changes is touched: a selection in what has come before stays. */
export class MarkdownView {
  #growing = new GrowingText();
  #shown = [];

  constructor(element) {
    this.element = element;
  }

  update(text, open) {
    const { blocks, stable } = this.#growing.update(text, open);
    const same = Math.min(stable, this.#shown.length);
    // The blocks before were last ones until now, and may differ from what was shown then.
    const first = this.#shown.findIndex((block, index) => index >= same || block !== blocks[index]);
    const from = first < 0 ? this.#shown.length : first;
    patchChildren(this.element, this.#shown.slice(from), blocks.slice(from), from);
    this.#shown = blocks;
  }
}

/** Makes an element's children from `offset` on show `next`, where they show `before` now. */
function patchChildren(parent, before, next, offset = 0) {
  for (let at = 0; at < Math.max(before.length, next.length); at += 1) {
    const existing = parent.childNodes[offset + at];
    if (at >= next.length) parent.childNodes[offset + next.length].remove();
    else if (at >= before.length) parent.append(make(next[at]));
    else if (!patch(existing, before[at], next[at])) existing.replaceWith(make(next[at]));
  }
}

/** Turns what shows `before` into what shows `next`, where they are of a kind. */
function patch(element, before, next) {
  if (before === next) return true;
  if (typeof next === "string" || typeof before === "string") {
    if (typeof next !== typeof before) return false;
    if (element.data !== next) setText(element, next);
    return true;
  }
  if (before.type !== next.type) return false;
  switch (next.type) {
    case "paragraph": case "quote": case "em": case "strong": case "del":
      patchChildren(element, before.children, next.children);
      return true;
    case "heading":
      if (before.level !== next.level) return false;
      patchChildren(element, before.children, next.children);
      return true;
    case "code":
      if (before.lang !== next.lang || !element.matches(".code")) return before.text === next.text;
      if (before.text !== next.text) setText(element.querySelector("code").firstChild, next.text);
      return true;
    case "list":
      if (before.ordered !== next.ordered || before.start !== next.start || before.loose !== next.loose) return false;
      return patchItems(element, before, next);
    case "rule": case "break":
      return true;
    case "math":
      return before.text === next.text;
    case "table":
      return patchTable(element, before, next);
    default:
      return false;
  }
}

/** Appends where that is all there is to do, so that a long block of code is not set anew for every word. */
function setText(node, text) {
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}

function patchItems(element, before, next) {
  if (before.items.length > next.items.length) return false;
  next.items.forEach((item, index) => {
    const old = before.items[index];
    const existing = element.children[index];
    if (!old) element.append(makeItem(item, next.loose));
    else if (old.done !== item.done) existing.replaceWith(makeItem(item, next.loose));
    else patchChildren(existing, itemParts(old, next.loose), itemParts(item, next.loose), item.done === undefined ? 0 : 1);
  });
  return true;
}

function patchTable(element, before, next) {
  const aligned = before.align.join() === next.align.join() && before.head.length === next.head.length;
  if (!aligned || before.rows.length > next.rows.length) return false;
  const table = element.firstChild;
  next.head.forEach((cell, index) => patchChildren(table.tHead.rows[0].cells[index], before.head[index], cell));
  next.rows.forEach((row, at) => {
    const old = before.rows[at];
    const existing = table.tBodies[0].rows[at];
    if (!old) table.tBodies[0].append(makeRow("td", row, next.align));
    else row.forEach((cell, index) => patchChildren(existing.cells[index], old[index], cell));
  });
  return true;
}

function make(node) {
  if (typeof node === "string") return document.createTextNode(node);
  switch (node.type) {
    case "heading":
      // The page has the first two levels: an answer's headings lie below them.
      return el(`h${Math.min(node.level + 2, 6)}`, { class: `level-${node.level}` }, node.children.map(make));
    case "code":
      return node.lang === undefined ? el("code", {}, node.text) : makeCode(node);
    case "math":
      return el("code", { class: "math" }, node.text);
    case "list": {
      const list = el(node.ordered ? "ol" : "ul", {}, node.items.map((item) => makeItem(item, node.loose)));
      if (node.ordered && node.start !== 1) list.start = node.start;
      return list;
    }
    case "table": {
      const head = el("thead", {}, makeRow("th", node.head, node.align));
      const body = el("tbody", {}, node.rows.map((row) => makeRow("td", row, node.align)));
      return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, el("table", {}, head, body));
    }
    case "link":
      return el("a", { href: node.href, title: node.href, rel: "noopener noreferrer", target: "_blank" }, node.children.map(make));
    default:
      return el(TAGS[node.type], {}, (node.children ?? []).map(make));
  }
}

function makeRow(tag, cells, align) {
  return el("tr", {}, cells.map((cell, index) => {
    const attributes = { class: align[index] ? `align-${align[index]}` : null, scope: tag === "th" ? "col" : null };
    return el(tag, attributes, cell.map(make));
  }));
}

/** A tight item's paragraph is its text. */
function itemParts(item, loose) {
  const [first, ...rest] = item.children;
  return loose || first?.type !== "paragraph" ? item.children : [{ ...first, type: "tight" }, ...rest].flatMap(tight);
}

const tight = (part) => (part.type === "tight" ? part.children : [part]);

function makeItem(item, loose) {
  const parts = itemParts(item, loose).map(make);
  if (item.done === undefined) return el("li", {}, parts);
  const box = el("span", { class: "box", role: "img", "aria-label": item.done ? "done" : "to do" }, item.done ? "☑ " : "☐ ");
  return el("li", { class: "task" }, box, parts);
}

function makeCode(node) {
  const button = el("button", { type: "button", class: "quiet", "aria-label": "Copy this code" }, icon("copy"));
  const code = el("code", {}, document.createTextNode(node.text));
  button.addEventListener("click", () => copyText(code.textContent, button));
  const bar = el("div", { class: "bar" }, el("span", {}, node.lang || "text"), button);
  return el("div", { class: "code" }, bar, el("pre", { tabindex: "0", role: "region", "aria-label": "Code" }, code));
}
