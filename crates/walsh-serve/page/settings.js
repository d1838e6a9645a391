// The settings' form: what is sent with each request. An empty field is not sent, and shows what the server takes instead.

import { count, el } from "./dom.js";

/** What may be sent, and what the API takes. */
const NUMBERS = {
  temperature: { label: "Temperature", least: 0, most: 10 },
  top_p: { label: "Top p", least: 0, most: 1 },
  min_p: { label: "Min p", least: 0, most: 1 },
  max_completion_tokens: { label: "Max tokens", least: 1, most: 1e9, whole: true },
  seed: { label: "Seed", least: 0, most: Number.MAX_SAFE_INTEGER, whole: true },
};

/** A field that cannot be sent. */
export class FieldError extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

/** The number in a field, undefined where it is empty; throws a FieldError. */
export function numberOf(name, text) {
  const { label, least, most, whole } = NUMBERS[name];
  const written = text.trim().replace(",", ".");
  if (written === "") return undefined;
  const number = Number(written);
  const range = most === Number.MAX_SAFE_INTEGER || most === 1e9 ? `of at least ${least}` : `from ${least} to ${most}`;
  if (!Number.isFinite(number) || number < least || number > most || (whole && !Number.isInteger(number))) {
    throw new FieldError(`${label} is ${whole ? "a whole number" : "a number"} ${range}, not “${text.trim()}”.`, name);
  }
  return number;
}

export class Settings {
  #form = document.getElementById("settings");
  #problem = document.getElementById("settings-problem");

  constructor(store, { onModel }) {
    this.store = store;
    this.onModel = onModel;
    this.wanted = "";
    const kept = store.settings();
    for (const name of ["system", ...Object.keys(NUMBERS)]) {
      if (typeof kept[name] === "string") this.#form.elements[name].value = kept[name];
    }
    if (typeof kept.model === "string") this.wanted = kept.model;
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#form.addEventListener("input", () => this.#changed());
    this.#form.elements.model.addEventListener("change", () => {
      this.wanted = this.model;
      this.#keep();
      this.onModel();
    });
    document.getElementById("defaults").addEventListener("click", () => {
      for (const name of Object.keys(NUMBERS)) this.#form.elements[name].value = "";
      this.#changed();
    });
    this.#theme();
  }

  get model() {
    return this.#form.elements.model.value;
  }

  get system() {
    return this.#form.elements.system.value;
  }

  /** The parameters of a request; throws a FieldError. */
  parameters() {
    const body = { model: this.model };
    for (const name of Object.keys(NUMBERS)) {
      const number = numberOf(name, this.#form.elements[name].value);
      if (number !== undefined) body[name] = number;
    }
    return body;
  }

  focus(name) {
    this.#form.elements[name].focus();
  }

  #changed() {
    let problem = "";
    for (const name of Object.keys(NUMBERS)) {
      const field = this.#form.elements[name];
      try {
        numberOf(name, field.value);
        field.removeAttribute("aria-invalid");
        field.removeAttribute("aria-describedby");
      } catch (error) {
        problem ||= error.message;
        field.setAttribute("aria-invalid", "true");
        field.setAttribute("aria-describedby", "settings-problem");
      }
    }
    if (this.#problem.textContent !== problem) this.#problem.textContent = problem;
    this.#keep();
  }

  #keep() {
    const values = { model: this.wanted };
    for (const name of ["system", ...Object.keys(NUMBERS)]) values[name] = this.#form.elements[name].value;
    this.store.saveSettings(values);
  }

  /** Offers the models that are served. One that is gone is replaced, which the list shows. */
  offer(names) {
    const select = this.#form.elements.model;
    select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
    if (names.includes(this.wanted)) select.value = this.wanted;
  }

  /** Shows what the chosen model is served with. */
  describe(props) {
    const list = document.getElementById("serves");
    list.replaceChildren();
    const rows = [["KV cache", props?.kv], ["Context", number(props?.context, "tokens")], ["Device", props?.device], ["Slots", number(props?.total_slots, "")]];
    for (const [name, value] of rows) {
      if (value) list.append(el("dt", {}, name), el("dd", {}, String(value)));
    }
    const defaults = props?.default_generation_settings ?? {};
    for (const name of ["temperature", "top_p", "min_p"]) {
      const value = defaults[name];
      // Numbers of 32 bits come with digits that say nothing.
      this.#form.elements[name].placeholder = Number.isFinite(value) ? String(Number(value.toPrecision(6))) : "";
    }
  }

  #theme() {
    const root = document.documentElement;
    const radios = this.#form.elements.theme;
    radios.value = root.dataset.theme ?? "auto";
    document.getElementById("theme").addEventListener("change", () => {
      if (radios.value === "auto") delete root.dataset.theme;
      else root.dataset.theme = radios.value;
      try {
        localStorage.setItem("walsh.theme", radios.value);
      } catch {
        // The choice lasts as long as the page; that storage is refused is said elsewhere.
      }
    });
  }
}

const number = (value, unit) => (Number.isFinite(value) ? `${count(value)} ${unit}`.trim() : null);
