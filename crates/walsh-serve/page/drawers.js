// The list of conversations and the panel. Where the window is wide they stand beside the messages; where it is narrow they
// are drawers over them, of which one is open at a time, and the rest of the page waits.

import { icon } from "./dom.js";

const NAMES = ["sidebar", "panel"];

export class Drawers {
  #app = document.getElementById("app");
  #narrow = window.matchMedia("(max-width: 1000px)");
  #returnTo = null;

  constructor({ opened }) {
    this.opened = opened;
    for (const name of NAMES) {
      const toggle = this.#app.querySelector(`[data-toggle="${name}"]`);
      toggle.append(icon(name === "sidebar" ? "menu" : "sliders"));
      toggle.addEventListener("click", () => (this.isOpen(name) ? this.close(name, true) : this.open(name)));
      const close = this.#app.querySelector(`[data-close="${name}"]`);
      close.append(icon("failed"));
      close.addEventListener("click", () => this.close(name));
    }
    document.getElementById("backdrop").addEventListener("click", () => this.escape());
    this.#narrow.addEventListener("change", () => {
      this.#arrange();
      this.opened();
    });
    this.#arrange();
  }

  isOpen(name) {
    return this.#app.dataset[name] === "open";
  }

  open(name) {
    if (this.#narrow.matches) {
      for (const other of NAMES) this.#set(other, other === name);
      this.#returnTo = this.#app.querySelector(`[data-toggle="${name}"]`);
      this.#app.querySelector(`[data-close="${name}"]`).focus();
    } else {
      this.#set(name, true);
    }
    this.opened();
  }

  /** Closes a drawer; one that stands beside the messages stays unless it is meant. */
  close(name, meant = false) {
    if (!this.isOpen(name) || (!meant && !this.#narrow.matches)) return;
    this.#set(name, false);
    if (this.#narrow.matches) this.#returnTo?.focus();
  }

  /** Closes what lies over the messages; gives whether anything did. */
  escape() {
    const open = this.#narrow.matches && NAMES.find((name) => this.isOpen(name));
    if (open) this.close(open);
    return Boolean(open);
  }

  /** A window that becomes narrow begins with the messages, one that becomes wide with everything. */
  #arrange() {
    for (const name of NAMES) this.#set(name, !this.#narrow.matches);
  }

  #set(name, open) {
    this.#app.dataset[name] = open ? "open" : "shut";
    this.#app.querySelector(`[data-toggle="${name}"]`).setAttribute("aria-expanded", String(open));
    const covered = this.#narrow.matches && NAMES.some((other) => this.isOpen(other));
    document.getElementById("main").inert = covered;
  }
}
