// The list of conversations: open, rename, delete.

import { button, el } from "./dom.js";

export class Sidebar {
  #list = document.getElementById("conversations");
  #empty = document.getElementById("no-conversations");
  #renaming = null;

  constructor(actions) {
    this.actions = actions;
  }

  show(conversations, current) {
    // Somebody is typing in it: what changes meanwhile is shown when that is done.
    if (this.#renaming) return;
    const focused = this.#list.contains(document.activeElement) ? this.#mark(document.activeElement) : null;
    this.#list.replaceChildren(...conversations.map((conversation) => this.#item(conversation, conversation === current)));
    this.#empty.hidden = conversations.length > 0;
    if (focused) this.#find(focused)?.focus();
  }

  #mark(element) {
    return { id: element.closest("li").dataset.id, part: element.dataset.part };
  }

  #find({ id, part }) {
    return [...this.#list.querySelectorAll(`[data-part="${part}"]`)].find((element) => element.closest("li").dataset.id === id);
  }

  focus(conversation) {
    this.#find({ id: conversation.id, part: "open" })?.focus();
  }

  #item(conversation, current) {
    const name = conversation.title || "Without a name";
    const busy = this.actions.isRunning(conversation);
    const open = el("button", { type: "button", class: "open", title: name, "aria-current": current ? "page" : null }, el("span", {}, name));
    if (busy) open.append(el("span", { class: "dot", role: "img", "aria-label": "an answer is being written" }));
    open.dataset.part = "open";
    open.addEventListener("click", () => this.actions.open(conversation));
    const rename = button({ label: `Rename “${name}”`, image: "edit" }, () => this.#rename(item, conversation));
    rename.dataset.part = "rename";
    const remove = button({ label: `Delete “${name}”`, image: "delete" }, () => this.actions.remove(conversation));
    remove.dataset.part = "remove";
    const item = el("li", { class: current ? "current" : null }, open, rename, remove);
    item.dataset.id = conversation.id;
    return item;
  }

  #rename(item, conversation) {
    const field = el("input", { "aria-label": "Name of the conversation", maxlength: "200" });
    field.value = conversation.title;
    this.#renaming = conversation;
    const close = (keep, by) => {
      if (this.#renaming !== conversation) return;
      this.#renaming = null;
      this.actions.rename(conversation, keep ? field.value : "");
      if (by === "key") this.#find({ id: conversation.id, part: "rename" })?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
      // The key is done with: it neither presses the button that has focus next nor stops an answer.
      event.preventDefault();
      event.stopPropagation();
      close(event.key === "Enter", "key");
    });
    field.addEventListener("blur", () => close(true));
    item.replaceChildren(field);
    field.focus();
    field.select();
  }
}
