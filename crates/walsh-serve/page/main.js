// The page: what belongs together is put together here, and what people do is carried out.

import { Answers } from "./answers.js";
import * as api from "./api.js";
import { CacheView } from "./cache.js";
import { announce, button, el, fit, icon } from "./dom.js";
import { Drawers } from "./drawers.js";
import { contextLine, Log, sends } from "./messages.js";
import { FieldError, Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Store } from "./store.js";
import { append, branch, choose, create, path, remove, rename } from "./tree.js";

const byId = (id) => document.getElementById(id);
const input = byId("input");

/** How long a conversation can be taken back after it is deleted, in milliseconds. */
const UNDO_FOR = 15_000;

class Page {
  constructor() {
    this.store = new Store();
    this.props = null;
    // Not stored before something is said.
    this.conversation = create();
    this.settings = new Settings(this.store, { onModel: () => this.describe() });
    const { store, settings } = this;
    this.answers = new Answers({ store, settings, changed: (...all) => this.changed(...all), ended: (...all) => this.ended(...all) });
    this.drawers = new Drawers({ opened: () => this.cache.wake() });
    this.cache = new CacheView({
      fetch: () => api.metrics(),
      model: () => this.settings.model,
      visible: () => this.drawers.isOpen("panel"),
    });
    const isRunning = (conversation) => this.answers.isRunning(conversation);
    this.log = new Log({
      isRunning,
      writes: (node) => this.answers.writes(node),
      choose: (...all) => this.choose(...all),
      edit: (...all) => this.edit(...all),
      again: (node) => this.again(node),
    });
    this.sidebar = new Sidebar({
      isRunning,
      open: (conversation) => this.open(conversation),
      rename: (conversation, title) => this.rename(conversation, title),
      remove: (conversation) => this.remove(conversation),
    });
    this.listen();
    this.show();
    this.connect();
    this.cache.wake();
    input.focus();
  }

  listen() {
    const draw = { send: "send", stop: "stop", new: "plus" };
    for (const [id, image] of Object.entries(draw)) byId(id).prepend(icon(image));
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    input.addEventListener("input", () => fit(input));
    input.addEventListener("keydown", (event) => {
      if (!sends(event)) return;
      event.preventDefault();
      this.send();
    });
    byId("stop").addEventListener("click", () => this.stop());
    byId("new").addEventListener("click", () => this.open(create()));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      if (!this.drawers.escape()) this.stop();
    });
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.useKey(byId("key").value.trim());
    });
    window.addEventListener("storage", (event) => this.follow(event));
    window.addEventListener("pagehide", () => this.answers.leave());
    // Taken up again as it was left, but for the answers that were being written.
    window.addEventListener("pageshow", (event) => event.persisted && this.show());
  }

  // What is shown.

  show() {
    const { conversation } = this;
    this.log.show(conversation);
    this.sidebar.show(this.store.list(), conversation);
    const title = conversation.title || "New conversation";
    byId("title").textContent = title;
    document.title = conversation.title ? `${title} – Walsh` : "Walsh";
    const running = this.answers.isRunning(conversation);
    byId("send").hidden = running;
    byId("stop").hidden = !running;
    byId("usage").textContent = contextLine(conversation, this.props?.context);
    this.notice("storage", this.store.trouble);
  }

  /** Shows or takes away a notice; each `name` has one. `control` is a button that goes with it. */
  notice(name, text, control = null) {
    const notices = byId("notices");
    const old = [...notices.children].find((notice) => notice.dataset.name === name);
    if (old?.dataset.text === text) return;
    old?.remove();
    if (!text) return;
    const close = button({ label: "Dismiss", image: "failed" }, () => fresh.remove());
    const fresh = el("div", { class: "notice" }, el("p", {}, text), ...(control ? [control] : []), close);
    fresh.dataset.name = name;
    fresh.dataset.text = text;
    notices.append(fresh);
  }

  open(conversation) {
    this.conversation = conversation;
    this.show();
    this.log.toEnd();
    this.drawers.close("sidebar");
    input.focus();
  }

  // The server.

  /** Asks what is served. Without an answer nothing can be sent, and that is said with a way to try again. */
  async connect() {
    const asked = api.models();
    // What is sent meanwhile waits for it.
    this.connecting = asked.catch(() => {});
    try {
      const names = await asked;
      this.settings.offer(names);
      this.notice("server", names.length ? "" : "The server serves no model.", this.retry());
      this.describe();
    } catch (error) {
      if (error.status === 401) this.askForKey(() => this.connect());
      else this.notice("server", error.message, this.retry());
    }
    this.connecting = null;
  }

  retry() {
    return button({ text: "Try again", kind: "plain" }, () => {
      this.notice("server", "");
      this.connect();
    });
  }

  async describe() {
    const { model } = this.settings;
    this.props = null;
    let problem = "";
    if (model) {
      try {
        const props = await api.props(model);
        // Another one was chosen meanwhile.
        if (model !== this.settings.model) return;
        this.props = props;
      } catch (error) {
        problem = `What ${model} is served with is not known: ${error.message}`;
      }
    }
    this.notice("props", problem);
    this.settings.describe(this.props);
    const { device, kv } = this.props ?? {};
    byId("serving").textContent = [model, device, kv && `KV ${kv}`].filter(Boolean).join(" · ");
    byId("welcome-model").textContent = model ? `What would you like to know from ${model}?` : "What would you like to know?";
    byId("usage").textContent = contextLine(this.conversation, this.props?.context);
    this.cache.wake();
  }

  /** Shows the key's field; `then` is what the server refused. */
  askForKey(then) {
    const form = byId("key-form");
    byId("key-hint").textContent = api.key.get()
      ? "The server does not take this key. Another one is kept until this tab is closed."
      : "The server asks for a key. It is kept until this tab is closed.";
    (this.afterKey ??= []).push(then);
    form.hidden = false;
    byId("key").value = "";
    byId("key").focus();
    announce("The server asks for an API key");
  }

  useKey(text) {
    if (!text) return;
    api.key.set(text);
    byId("key-form").hidden = true;
    input.focus();
    const waiting = this.afterKey ?? [];
    this.afterKey = [];
    for (const then of waiting) then();
    this.cache.wake();
  }

  // Messages.

  /** The parameters for a request, or null where the settings do not give them; that is shown. */
  parameters() {
    try {
      const parameters = this.settings.parameters();
      if (parameters.model) return parameters;
      this.notice("server", "There is no model to answer.", this.retry());
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this.notice("settings", error.message);
      this.drawers.open("panel");
      this.settings.focus(error.field);
    }
    return null;
  }

  send() {
    const { conversation } = this;
    const text = input.value;
    if (this.connecting) {
      this.connecting.then(() => this.send());
      return;
    }
    if (!text.trim() || this.answers.isRunning(conversation)) return;
    const parameters = this.parameters();
    if (!parameters) return;
    input.value = "";
    fit(input);
    const last = path(conversation).at(-1) ?? null;
    this.answer(append(conversation, last, { role: "user", content: text }), parameters);
  }

  /** Answers a user's message; gives whether it is being done. */
  answer(user, parameters = this.parameters()) {
    const { conversation } = this;
    if (!parameters || this.answers.isRunning(conversation)) return false;
    this.notice("settings", "");
    this.answers.start(conversation, user, parameters);
    this.save(conversation);
    this.show();
    this.log.toEnd();
    input.focus();
    return true;
  }

  edit(node, text) {
    const parameters = this.answers.isRunning(this.conversation) ? null : this.parameters();
    if (!parameters) return false;
    return this.answer(branch(this.conversation, node, { role: "user", content: text }), parameters);
  }

  /** Asks for another answer. One of which nothing came is no version worth keeping. */
  again(node) {
    const { conversation } = this;
    const parameters = this.answers.isRunning(conversation) ? null : this.parameters();
    if (!parameters || !conversation.nodes[node.id]) return;
    const user = conversation.nodes[node.parent];
    if (!node.content && !node.reasoning && !node.calls?.length && !node.children.length) remove(conversation, node);
    this.answer(user, parameters);
  }

  choose(node, index, label) {
    const shown = choose(this.conversation, node, index);
    this.save(this.conversation);
    this.show();
    this.log.viewOf(shown)?.focusArrow(label);
  }

  stop() {
    if (!this.answers.isRunning(this.conversation)) return;
    this.answers.stop(this.conversation);
    input.focus();
  }

  changed(conversation, node) {
    if (conversation === this.conversation) this.log.grow(node);
  }

  ended(conversation, node) {
    // One that was deleted meanwhile is not stored again.
    if (this.store.get(conversation.id)) this.save(conversation);
    if (conversation === this.conversation) {
      this.show();
      this.log.end(node);
    } else {
      this.sidebar.show(this.store.list(), this.conversation);
    }
    if (node.status === 401) {
      this.askForKey(() => {
        if (this.conversation === conversation) this.again(node);
      });
    }
    this.cache.wake();
  }

  // Conversations.

  save(conversation) {
    const gone = this.store.save(conversation);
    if (gone.length) {
      const what = gone.length === 1 ? `“${gone[0].title}”` : `${gone.length} conversations`;
      this.notice("room", `The browser's storage is full: the oldest, ${what}, had to go.`);
    }
    this.notice("storage", this.store.trouble);
  }

  rename(conversation, title) {
    rename(conversation, title);
    this.save(conversation);
    this.show();
  }

  remove(conversation) {
    const list = this.store.list();
    const index = list.indexOf(conversation);
    this.answers.stop(conversation);
    this.store.delete(conversation.id);
    if (conversation === this.conversation) this.conversation = create();
    const undo = button({ text: "Undo", kind: "plain" }, () => {
      this.notice("deleted", "");
      this.save(conversation);
      this.open(conversation);
    });
    const text = `“${conversation.title}” is deleted.`;
    this.notice("deleted", "");
    this.notice("deleted", text, undo);
    clearTimeout(this.undoTimer);
    this.undoTimer = setTimeout(() => this.notice("deleted", ""), UNDO_FOR);
    this.show();
    const next = list[index + 1] ?? list[index - 1];
    if (next) this.sidebar.focus(next);
    else byId("new").focus();
  }

  /** Takes what another tab did. An answer that is being written here is not given up for it. */
  follow(event) {
    const known = event.key && this.store.get(event.key.slice(event.key.lastIndexOf(".") + 1));
    if (known && this.answers.isRunning(known)) return;
    const id = this.store.follow(event);
    if (id === null) return;
    if (id === this.conversation.id) this.conversation = this.store.get(id) ?? create();
    this.show();
  }
}

new Page();
