// Messages on show. A view belongs to a node and is told when that changes; what people do with it goes to `actions`.

import { costs } from "./answers.js";
import { announce, button, copyText, count, el, fit, icon } from "./dom.js";
import { MarkdownView } from "./render.js";
import { path, versions } from "./tree.js";

/** How long an answer is read aloud; who wants more goes to it. */
const LONGEST_ANNOUNCEMENT = 3000;

/** Shows the path through a conversation. */
export class Log {
  #views = [];
  #element = document.getElementById("log");
  #scroller = document.getElementById("scroller");
  #toEnd = document.getElementById("to-end");
  #follows = true;
  #scheduled = 0;
  #grown = new Set();

  constructor(actions) {
    this.actions = actions;
    this.#toEnd.prepend(icon("down"));
    this.#toEnd.addEventListener("click", () => {
      this.toEnd();
      this.#scroller.focus();
    });
    this.#scroller.addEventListener("scroll", () => this.#look());
    new ResizeObserver(() => this.#keep()).observe(this.#scroller);
  }

  /** Shows what is looked at of a conversation; views of what stays are kept. */
  show(conversation) {
    const nodes = conversation ? path(conversation) : [];
    let same = 0;
    while (same < nodes.length && this.#views[same]?.node === nodes[same]) same += 1;
    for (const view of this.#views.splice(same)) view.element.remove();
    for (const node of nodes.slice(same)) {
      const view = node.role === "user" ? new UserView(conversation, node, this.actions) : new AnswerView(conversation, node, this.actions);
      this.#views.push(view);
      this.#element.append(view.element);
    }
    for (const view of this.#views) view.refresh();
    document.getElementById("welcome").hidden = nodes.length > 0;
    this.#keep();
  }

  viewOf(node) {
    return this.#views.find((view) => view.node === node) ?? null;
  }

  /** Shows what has come of an answer, a little later: pieces come faster than eyes read. */
  grow(node) {
    // One timer for all answers: a new one may begin while the last look at the one before is still to come.
    this.#grown.add(node);
    this.#scheduled ||= setTimeout(() => {
      this.#scheduled = 0;
      for (const grown of this.#grown) this.viewOf(grown)?.refresh();
      this.#grown.clear();
      this.#keep();
    }, 40);
  }

  /** Shows an answer's end. */
  end(node) {
    const view = this.viewOf(node);
    if (!view) return;
    view.refresh();
    this.#keep();
    const said = view.text.slice(0, LONGEST_ANNOUNCEMENT);
    const how = { stopped: "Answer stopped.", failed: `The answer failed: ${node.error}` }[node.state] ?? "Answer finished.";
    announce(`${how} ${said}`);
  }

  toEnd() {
    this.#follows = true;
    this.#keep();
  }

  #look() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    this.#follows = scrollHeight - scrollTop - clientHeight < 40;
    this.#toEnd.hidden = this.#follows;
  }

  #keep() {
    if (this.#follows) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#look();
  }
}

/** What messages of both kinds have: a name, the text, and a row of what can be done. */
class MessageView {
  constructor(conversation, node, actions) {
    Object.assign(this, { conversation, node, actions });
    this.content = el("div", { class: "content" });
    this.tools = el("div", { class: "tools" });
    this.branches = el("span", { class: "branches", role: "group", "aria-label": "Versions" });
    const name = node.role === "user" ? "You" : "Answer";
    this.element = el("article", { class: node.role, "aria-label": name }, el("h2", { class: "offscreen" }, name), this.content, this.tools);
  }

  /** The arrows between versions, where there is more than one. */
  refreshBranches(disabled) {
    const { index, total } = versions(this.conversation, this.node);
    const state = `${index} ${total} ${disabled}`;
    if (this.branchState === state) return;
    this.branchState = state;
    this.branches.replaceChildren();
    if (total < 2) return;
    const arrow = (label, image, to) => {
      const control = button({ label, image }, () => this.actions.choose(this.node, to, label));
      control.disabled = disabled || to < 0 || to >= total;
      return control;
    };
    const place = el("span", {}, el("span", { class: "offscreen" }, `Version ${index + 1} of ${total}`), el("span", { "aria-hidden": "true" }, `${index + 1}/${total}`));
    this.branches.append(arrow("Previous version", "left", index - 1), place, arrow("Next version", "right", index + 1));
  }

  /** After a change of version, focus stays at the arrow that was pressed, or goes to its neighbour at the end of the row. */
  focusArrow(label) {
    const pressed = this.branches.querySelector(`[aria-label="${label}"]`);
    (pressed && !pressed.disabled ? pressed : this.branches.querySelector("button:enabled"))?.focus();
  }
}

class UserView extends MessageView {
  constructor(...all) {
    super(...all);
    this.edit = button({ label: "Edit this message", image: "edit" }, () => this.#edit());
    this.copy = button({ label: "Copy this message", image: "copy" }, () => copyText(this.node.content, this.copy));
    this.tools.append(this.branches, this.copy, this.edit);
    this.text = this.node.content;
    this.content.append(this.node.content);
  }

  refresh() {
    const busy = this.actions.isRunning(this.conversation);
    this.edit.disabled = busy;
    this.refreshBranches(busy);
  }

  #edit() {
    const area = el("textarea", { "aria-label": "Edited message", rows: "1" });
    area.value = this.node.content;
    const close = () => {
      form.replaceWith(this.content);
      this.tools.hidden = false;
      this.element.classList.remove("editing");
    };
    const cancel = () => {
      close();
      this.edit.focus();
    };
    const send = el("button", { type: "submit", class: "primary" }, "Send");
    const row = el("div", { class: "row" }, button({ label: "Cancel", text: "Cancel", kind: "plain" }, cancel), send);
    const form = el("form", { class: "edit" }, area, row);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (area.value.trim() && this.actions.edit(this.node, area.value)) close();
    });
    area.addEventListener("input", () => fit(area));
    area.addEventListener("keydown", (event) => {
      if (sends(event)) {
        event.preventDefault();
        form.requestSubmit();
      } else if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      }
    });
    this.content.replaceWith(form);
    this.tools.hidden = true;
    this.element.classList.add("editing");
    fit(area);
    area.focus();
  }
}

/** Whether a key sends what is written. Enter that ends the composition of a character does not. */
export function sends(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}

class AnswerView extends MessageView {
  constructor(...all) {
    super(...all);
    this.body = el("div", { class: "markdown" });
    this.markdown = new MarkdownView(this.body);
    this.trouble = el("div", { class: "trouble" });
    this.costs = el("p", { class: "costs" });
    this.calls = el("div", { class: "calls" });
    this.content.append(this.calls, this.body, this.trouble);
    this.copy = button({ label: "Copy this answer", image: "copy" }, () => copyText(this.node.content, this.copy));
    this.again = button({ label: "Answer again", image: "again" }, () => this.actions.again(this.node));
    this.tools.append(this.branches, this.copy, this.again, this.costs);
  }

  get text() {
    return this.body.textContent;
  }

  refresh() {
    const { node } = this;
    const writes = this.actions.writes(node);
    this.element.setAttribute("aria-busy", String(writes));
    this.element.classList.toggle("writes", writes);
    this.#reasoning(writes);
    this.#calls();
    if (this.shown !== node.content || this.wasOpen !== writes) this.markdown.update(node.content, writes);
    this.shown = node.content;
    this.wasOpen = writes;
    this.element.classList.toggle("waits", writes && !node.content && !node.reasoning && !node.calls?.length);
    this.#trouble(writes);
    const busy = this.actions.isRunning(this.conversation);
    this.copy.hidden = writes || !node.content;
    // Trouble has a button of its own.
    this.again.hidden = writes || Boolean(problemOf(node, writes)?.retry);
    this.again.disabled = busy;
    this.refreshBranches(busy);
    const line = costs(node).join(" · ");
    if (this.costs.textContent !== line) this.costs.textContent = line;
  }

  #reasoning(writes) {
    const { node } = this;
    if (!node.reasoning) return;
    if (!this.thought) {
      this.thoughtName = el("summary", {});
      this.thoughtText = el("div", { class: "thought" });
      this.thoughts = new MarkdownView(this.thoughtText);
      this.thought = el("details", { class: "part" }, this.thoughtName, this.thoughtText);
      this.content.prepend(this.thought);
    }
    const thinks = writes && !node.content;
    const name = thinks ? "Thinking…" : "Thoughts";
    if (this.thoughtName.textContent !== name) this.thoughtName.textContent = name;
    if (this.thoughtShown !== node.reasoning + thinks) this.thoughts.update(node.reasoning, thinks);
    this.thoughtShown = node.reasoning + thinks;
  }

  #calls() {
    (this.node.calls ?? []).forEach((call, index) => {
      let part = this.calls.children[index];
      if (!part) {
        part = el("details", { class: "part call" }, el("summary", {}), el("pre", { tabindex: "0" }, el("code")));
        this.calls.append(part);
      }
      const name = `Calls ${call.name}`;
      if (part.firstChild.textContent !== name) part.firstChild.replaceChildren("Calls ", el("code", {}, call.name));
      const code = part.querySelector("pre code");
      const text = indented(call.text);
      if (code.textContent !== text) code.textContent = text;
    });
  }

  #trouble(writes) {
    const problem = problemOf(this.node, writes);
    const state = JSON.stringify(problem);
    if (this.troubleState === state) return;
    this.troubleState = state;
    this.trouble.replaceChildren();
    if (!problem) return;
    this.trouble.className = `trouble ${problem.kind}`;
    this.trouble.append(el("p", {}, problem.text));
    if (problem.retry) this.trouble.append(button({ text: "Try again", kind: "plain" }, () => this.actions.again(this.node)));
  }
}

/** What people are to know of how an answer ended. */
function problemOf(node, writes) {
  if (writes) return null;
  const some = node.content || node.reasoning || node.calls?.length;
  const kept = some ? " What came is kept." : "";
  switch (node.state) {
    case "failed":
      return { kind: "error", text: `${node.error}${kept}`, retry: true };
    case "stopped":
      return { kind: "note", text: some ? "Stopped." : "Stopped before anything came.", retry: !some };
    case "running":
      return { kind: "note", text: `The page was closed before the answer's end.${kept}`, retry: true };
    default:
      if (node.finish === "length") return { kind: "note", text: "Cut off: no more tokens are allowed, or the context is full." };
      return some ? null : { kind: "note", text: "The answer is empty.", retry: true };
  }
}

function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Not all of it is there yet, or it is no JSON: as it was written.
    return text;
  }
}

/** How much of the context the conversation takes, after its last answer. */
export function contextLine(conversation, context) {
  const last = conversation && path(conversation).findLast((node) => node.usage);
  const total = last?.usage?.total_tokens;
  if (!Number.isFinite(total)) return "";
  return Number.isFinite(context) ? `${count(total)} of ${count(context)} tokens of context` : `${count(total)} tokens of context`;
}
