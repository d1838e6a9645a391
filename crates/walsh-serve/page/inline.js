// What stands within a line of Markdown: strings, and {type, …} of code {text}, math {text}, em, strong, del, link {href}
// and break. Time grows with the length of the text alone, whatever is written: brackets and marks are kept on stacks.

/** Longer ones are text. */
const LONGEST_LINK = 4096;
const LONGEST_TITLE = 1024;
/** Longer runs of marks are lines and decoration. */
const LONGEST_RUN = 6;
/** How many openers may wait for what closes them, which bounds how deep the tree is. */
const DEEPEST = 24;

const ESCAPED = /[!-/:-@[-`{-~]/;
const ENTITY = /&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|(amp|lt|gt|quot|apos|nbsp|copy|mdash|ndash|hellip));/y;
const ENTITIES = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", mdash: "—", ndash: "–", hellip: "…",
};
const BARE = /https?:\/\/[^\s<>"`\\|]+/iy;
const ANGLED = /<(https?:\/\/[^\s<>]{1,4096})>/iy;
const PUNCTUATION = /[\p{P}\p{S}]/u;

/** The address, if it is one of the web; nothing else becomes a link. */
export function webAddress(text) {
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

/** With `open`, more text is to come: what is begun is shown as if it were closed, and marks at the end are held back. */
export function parseInline(text, open = false) {
  const shown = open ? text.replace(/[*_`~]{1,3}$|\[$|!\[$/, "") : text;
  return emphasise(new Scanner(shown, open).run(), open);
}

/** Finds all that binds closer than emphasis, and leaves {delimiter} tokens for that. */
class Scanner {
  constructor(text, open) {
    this.text = text;
    this.open = open;
    this.at = 0;
    this.tokens = [];
    // Indices of tokens that may begin a link.
    this.brackets = [];
    // Lengths of runs of backticks that nothing closes from here on.
    this.unclosed = new Set();
  }

  run() {
    while (this.at < this.text.length) {
      const char = this.text[this.at];
      const step = STEPS[char];
      if (!(step && this[step](char))) this.plain(char);
    }
    if (this.open) this.unfinishedLink();
    return this.tokens;
  }

  plain(text, length = text.length) {
    const last = this.tokens.length - 1;
    if (typeof this.tokens[last] === "string" && this.brackets.at(-1) !== last) this.tokens[last] += text;
    else this.tokens.push(text);
    this.at += length;
    return true;
  }

  node(node, end) {
    this.tokens.push(node);
    this.at = end;
    return true;
  }

  escape() {
    const next = this.text[this.at + 1];
    if (next === "\n") return this.lineBreak(2);
    if (next === "(" && this.math("\\(", "\\)")) return true;
    if (next === "[" && this.math("\\[", "\\]")) return true;
    return next !== undefined && ESCAPED.test(next) && this.plain(next, 2);
  }

  dollar() {
    return this.math("$$", "$$");
  }

  /** Formulas are shown as written: their marks are not Markdown's. */
  math(begin, end) {
    if (!this.text.startsWith(begin, this.at) || this.unclosed.has(begin)) return false;
    const close = this.text.indexOf(end, this.at + 2);
    if (close < 0) {
      this.unclosed.add(begin);
      return false;
    }
    return this.node({ type: "math", text: this.text.slice(this.at, close + 2) }, close + 2);
  }

  entity() {
    ENTITY.lastIndex = this.at;
    const found = ENTITY.exec(this.text);
    if (!found) return false;
    const [all, decimal, hexadecimal, name] = found;
    if (name) return this.plain(ENTITIES[name], all.length);
    const code = decimal ? Number.parseInt(decimal, 10) : Number.parseInt(hexadecimal, 16);
    const valid = code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code < 0xe000);
    return this.plain(valid ? String.fromCodePoint(code) : "\ufffd", all.length);
  }

  code() {
    const { text, at } = this;
    let begin = at;
    while (text[begin] === "`") begin += 1;
    const length = begin - at;
    let close = this.unclosed.has(length) ? -1 : begin;
    while (close >= 0) {
      close = text.indexOf("`", close);
      if (close < 0) break;
      let end = close;
      while (text[end] === "`") end += 1;
      if (end - close === length) break;
      close = end;
    }
    if (close < 0 && !this.open) {
      this.unclosed.add(length);
      return this.plain(text.slice(at, begin));
    }
    let inner = text.slice(begin, close < 0 ? undefined : close).replaceAll("\n", " ");
    if (inner.startsWith(" ") && inner.endsWith(" ") && inner.trim()) inner = inner.slice(1, -1);
    return this.node({ type: "code", text: inner }, close < 0 ? text.length : close + length);
  }

  angle() {
    ANGLED.lastIndex = this.at;
    const found = ANGLED.exec(this.text);
    const href = found && webAddress(found[1]);
    if (href) return this.node({ type: "link", href, children: [found[1]] }, ANGLED.lastIndex);
    // The one piece of HTML that models write for want of another way: a break within a table.
    const tag = /^<br ?\/?>/i.exec(this.text.slice(this.at, this.at + 6));
    return tag !== null && this.lineBreak(tag[0].length);
  }

  bare() {
    if (this.at > 0 && /[\p{L}\p{N}]/u.test(this.text[this.at - 1])) return false;
    BARE.lastIndex = this.at;
    const found = BARE.exec(this.text);
    if (!found) return false;
    const address = withoutPunctuation(found[0]);
    const href = address.length <= LONGEST_LINK && webAddress(address);
    return href ? this.node({ type: "link", href, children: [address] }, this.at + address.length) : this.plain(address);
  }

  newline() {
    return this.lineBreak(1);
  }

  /** A break that is written in `length` characters. */
  lineBreak(length) {
    const last = this.tokens.at(-1);
    if (typeof last === "string" && this.brackets.at(-1) !== this.tokens.length - 1) {
      this.tokens[this.tokens.length - 1] = last.trimEnd();
    }
    let end = this.at + length;
    while (this.text[end] === " " || this.text[end] === "\t") end += 1;
    return this.node({ type: "break" }, end);
  }

  bracket(char) {
    const begin = char === "!" ? "![" : "[";
    if (!this.text.startsWith(begin, this.at)) return false;
    this.brackets.push(this.tokens.length);
    this.tokens.push(begin);
    this.at += begin.length;
    return true;
  }

  closing() {
    const opener = this.brackets.pop();
    const target = opener === undefined ? null : this.target(this.at + 1);
    if (!target) return false;
    this.makeLink(opener, target.address);
    this.at = target.end;
    return true;
  }

  makeLink(opener, address) {
    const children = withoutLinks(emphasise(this.tokens.splice(opener).slice(1), false));
    const href = webAddress(address);
    // Where it does not lead to the web, where it would have led is part of the text.
    if (href) this.tokens.push({ type: "link", href, children: children.length ? children : [address] });
    else this.tokens = this.tokens.concat(children, address ? [` (${address})`] : []);
    // Links have no links within them.
    this.brackets.length = 0;
  }

  /** The `(address "title")` behind a bracket. */
  target(at) {
    const { text } = this;
    if (text[at] !== "(") return null;
    const space = (from) => {
      let end = from;
      while (end < text.length && end < from + 64 && /\s/.test(text[end])) end += 1;
      return end;
    };
    let begin = space(at + 1);
    let end = begin;
    if (text[begin] === "<") {
      begin += 1;
      end = begin;
      while (end < text.length && end - begin < LONGEST_LINK && !/[<>\n]/.test(text[end])) end += 1;
      if (text[end] !== ">") return null;
    } else {
      let depth = 0;
      while (end < text.length && end - begin < LONGEST_LINK && !/\s/.test(text[end])) {
        if (text[end] === "(") depth += 1;
        if (text[end] === ")") depth -= 1;
        if (depth < 0 || depth > 32) break;
        end += 1;
      }
    }
    const address = text.slice(begin, end).replace(/\\([!-/:-@[-`{-~])/g, "$1");
    end = space(text[end] === ">" ? end + 1 : end);
    if (/["']/.test(text[end] ?? "")) {
      const title = text.slice(end, end + LONGEST_TITLE).indexOf(text[end], 1);
      if (title < 0) return null;
      end = space(end + title + 1);
    }
    return text[end] === ")" ? { address, end: end + 1 } : null;
  }

  /** `[text](addre` at the end: the text alone, until the rest has come. */
  unfinishedLink() {
    const found = /\]\([^\s()]{0,4096}$/.exec(this.text.slice(-LONGEST_LINK));
    if (!found || !this.tokens.length) return;
    const from = this.tokens.findLastIndex((token) => token === "[" || token === "![");
    if (from < 0) return;
    const inner = this.tokens.splice(from).slice(1);
    const last = inner.findLastIndex((token) => typeof token === "string" && token.includes("]("));
    if (last < 0) return;
    const text = inner[last].slice(0, inner[last].lastIndexOf("]("));
    this.tokens = this.tokens.concat(inner.slice(0, last), [text]);
  }

  delimiter(char) {
    const { text, at } = this;
    let end = at;
    while (text[end] === char) end += 1;
    const count = end - at;
    if (count > LONGEST_RUN || (char === "~" && count !== 2)) return this.plain(text.slice(at, end));
    const before = at > 0 ? text[at - 1] : " ";
    const after = text[end] ?? " ";
    const leftFlanking = flanks(after, before);
    const rightFlanking = flanks(before, after);
    const word = char === "_";
    const opens = leftFlanking && (!word || !rightFlanking || PUNCTUATION.test(before));
    const closes = rightFlanking && (!word || !leftFlanking || PUNCTUATION.test(after));
    if (!opens && !closes) return this.plain(text.slice(at, end));
    return this.node({ delimiter: char, count, opens, closes, whole: count }, end);
  }
}

const STEPS = {
  "\\": "escape", "$": "dollar", "&": "entity", "`": "code", "<": "angle", "\n": "newline", "[": "bracket", "!": "bracket",
  "]": "closing", "*": "delimiter", _: "delimiter", "~": "delimiter", h: "bare", H: "bare",
};

/** Whether a run lies at a word: `inner` is what it touches there, `outer` what is on its other side. */
function flanks(inner, outer) {
  if (/\s/.test(inner)) return false;
  return !PUNCTUATION.test(inner) || /\s/.test(outer) || PUNCTUATION.test(outer);
}

/** An address in a sentence ends before the sentence's own marks, and before a bracket that it has not opened. */
function withoutPunctuation(address) {
  let balance = 0;
  for (const char of address) balance += char === "(" ? 1 : char === ")" ? -1 : 0;
  let end = address.length;
  while (end > 0) {
    const char = address[end - 1];
    if (char === ")") {
      if (balance >= 0) break;
      balance += 1;
    } else if (!/[.,:;!?'*_~\]]/.test(char)) {
      break;
    }
    end -= 1;
  }
  return address.slice(0, end);
}

function withoutLinks(nodes) {
  return nodes.flatMap((node) => {
    if (node.type === "link") return withoutLinks(node.children);
    return node.children ? [{ ...node, children: withoutLinks(node.children) }] : [node];
  });
}

/** Pairs delimiters. A frame is an opener that waits, with what has come since; the bottom one is the result. */
function emphasise(tokens, open) {
  const frames = [{ children: [] }];
  for (const token of tokens) {
    if (!token.delimiter) {
      add(frames.at(-1).children, token);
      continue;
    }
    let { count } = token;
    while (token.closes && count > 0) {
      const found = findOpener(frames, token);
      if (found < 0) break;
      dissolve(frames, found + 1);
      count -= closeFrame(frames, token, count);
    }
    if (count > 0 && token.opens) frames.push({ ...token, count, children: [] });
    else if (count > 0) add(frames.at(-1).children, token.delimiter.repeat(count));
    // The oldest opener is given up: of many that wait, most are no openers.
    if (frames.length > DEEPEST) {
      for (const child of flat(frames[1])) add(frames[0].children, child);
      frames.splice(1, 1);
    }
  }
  if (open) closeAll(frames);
  dissolve(frames, 1);
  return frames[0].children.filter((node) => node !== "");
}

function findOpener(frames, closer) {
  for (let at = frames.length - 1; at >= 1; at -= 1) {
    const frame = frames[at];
    if (frame.delimiter !== closer.delimiter) continue;
    // CommonMark's rule of three, which tells `*a**b*` from two pairs.
    const both = frame.closes || closer.opens;
    const odd = both && (frame.whole + closer.whole) % 3 === 0 && !(frame.whole % 3 === 0 && closer.whole % 3 === 0);
    if (!odd) return at;
  }
  return -1;
}

/** Closes the top frame with what a closer has; gives how many marks that took. */
function closeFrame(frames, closer, count) {
  const frame = frames.pop();
  const used = frame.count >= 2 && count >= 2 ? 2 : 1;
  const type = closer.delimiter === "~" ? "del" : used === 2 ? "strong" : "em";
  const node = { type, children: frame.children };
  if (frame.count > used) frames.push({ ...frame, count: frame.count - used, children: [node] });
  else frames.at(-1).children.push(node);
  return used;
}

/** Makes openers that nothing closed, from a height on, the text that they are. */
function dissolve(frames, from) {
  const target = frames[from - 1].children;
  for (const frame of frames.splice(from)) {
    for (const child of flat(frame)) add(target, child);
  }
}

/** What a frame is without its meaning. */
const flat = (frame) => [frame.delimiter.repeat(frame.count), ...frame.children];

/** Closes what is likely to be closed soon: bold text. A lone star may be one for good. */
function closeAll(frames) {
  const first = frames.findIndex((frame) => frame.delimiter && frame.count === 2 && frame.children.length);
  if (first < 1) return;
  dissolve(frames, first + 1);
  closeFrame(frames, frames[first], 2);
}

function add(nodes, node) {
  if (typeof node === "string" && typeof nodes.at(-1) === "string") nodes[nodes.length - 1] += node;
  else nodes.push(node);
}
