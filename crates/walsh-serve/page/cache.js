// The view of the cache: how many pages are used, kept for prefixes and free, and what the server has to do.

import { count, el } from "./dom.js";

const EVERY = 2000;

/** What a model's numbers say, as text for each part; null where the numbers are not there. */
export function summary(model) {
  const { used, kept, free, total } = model?.pages ?? {};
  if (![used, kept, free, total].every(Number.isFinite)) return null;
  const share = (pages) => (total > 0 ? Math.min(100, (100 * pages) / total) : 0);
  return {
    used: share(used),
    kept: share(kept),
    label: `Pages: ${count(used)} used, ${count(kept)} kept for prefixes, ${count(free)} free, of ${count(total)}`,
    rows: [
      ["used", "Used", count(used)],
      ["kept", "Kept for prefixes", count(kept)],
      ["free", "Free", count(free)],
      ["", "Requests running", amount(model.running)],
      ["", "Requests waiting", amount(model.waiting)],
      ["", "Tokens read", amount(model.read)],
      ["", "Tokens reused", amount(model.reused)],
      ["", "Tokens written", amount(model.generated)],
    ],
  };
}

const amount = (value) => (Number.isFinite(value) ? count(value) : "?");

export class CacheView {
  #bar = document.getElementById("pages");
  #counts = document.getElementById("counts");
  #problem = document.getElementById("cache-problem");
  #timer = 0;
  #running = false;

  /** `fetch` gives /metrics.json; `model` the name of the chosen model; `visible` whether anybody can see this. */
  constructor({ fetch, model, visible }) {
    this.fetch = fetch;
    this.model = model;
    this.visible = visible;
    document.addEventListener("visibilitychange", () => this.wake());
  }

  /** Looks now and then every two seconds, for as long as the view can be seen. */
  async wake() {
    clearTimeout(this.#timer);
    if (this.#running || document.visibilityState !== "visible" || !this.visible()) return;
    this.#running = true;
    try {
      const { models } = await this.fetch();
      const found = Array.isArray(models) ? models.find((model) => model.model === this.model()) : undefined;
      this.#show(found);
    } catch (error) {
      this.#say(error.status === 401 ? "The server asks for a key." : error.message);
      // What is shown is no longer known to be so.
      this.#bar.classList.add("stale");
      if (error.status === 401) return;
    } finally {
      this.#running = false;
    }
    this.#timer = setTimeout(() => this.wake(), EVERY);
  }

  #say(text) {
    if (this.#problem.textContent !== text) this.#problem.textContent = text;
  }

  #show(model) {
    const shown = summary(model);
    this.#bar.classList.toggle("stale", !shown);
    this.#say(shown ? "" : "The server says nothing of this model's cache.");
    if (!shown) return;
    const [used, kept] = this.#bar.children;
    used.style.width = `${shown.used}%`;
    kept.style.width = `${shown.kept}%`;
    this.#bar.setAttribute("aria-label", shown.label);
    // Only numbers change from look to look: somebody may be reading the list.
    shown.rows.forEach(([kind, name, value], index) => {
      const cell = this.#counts.children[2 * index + 1];
      if (!cell) this.#counts.append(el("dt", { class: kind || null }, name), el("dd", {}, value));
      else if (cell.textContent !== value) cell.textContent = value;
    });
  }
}
