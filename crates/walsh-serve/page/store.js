// Conversations and settings in the browser's storage, which may be full, refused or shared with another tab. What cannot be
// kept stays in memory, and `trouble` says so.

import { revive } from "./tree.js";

const CONVERSATION = "walsh.conversation.";
const SETTINGS = "walsh.settings";

/** How much is kept: the oldest conversations go first. Browsers give a page five million characters or so. */
const MOST_CONVERSATIONS = 200;
const MOST_CHARACTERS = 4_000_000;

export class Store {
  #storage = null;
  #conversations = new Map();
  #sizes = new Map();
  /** What people should know of, or an empty string. */
  trouble = "";

  /** `open` gives the storage; that itself may be refused. */
  constructor(open = () => window.localStorage) {
    try {
      this.#storage = open();
      this.#read();
    } catch {
      this.#refused();
    }
  }

  #refused() {
    this.#storage = null;
    this.trouble = "This browser refuses to store conversations: they are gone when the page is closed.";
  }

  #read() {
    for (let index = 0; index < this.#storage.length; index += 1) {
      const name = this.#storage.key(index);
      if (name.startsWith(CONVERSATION)) this.#take(name, this.#storage.getItem(name));
    }
  }

  #take(name, text) {
    const conversation = revive(text);
    if (!conversation || name !== CONVERSATION + conversation.id) return null;
    this.#conversations.set(conversation.id, conversation);
    this.#sizes.set(conversation.id, text.length);
    return conversation;
  }

  /** All conversations, the newest first. */
  list() {
    return [...this.#conversations.values()].sort((a, b) => b.changed - a.changed);
  }

  get(id) {
    return this.#conversations.get(id) ?? null;
  }

  /** Keeps a conversation; gives those that had to go for it. */
  save(conversation) {
    const text = JSON.stringify(conversation);
    this.#conversations.set(conversation.id, conversation);
    this.#sizes.set(conversation.id, text.length);
    const gone = [];
    if (text.length > MOST_CHARACTERS) {
      // All others together would not make room for it.
      this.trouble = "This conversation is too long for the browser's storage: what is new in it is gone when the page is closed.";
      return gone;
    }
    while (this.#tooMuch()) {
      const oldest = this.#oldestBut(conversation);
      if (!oldest) break;
      gone.push(oldest);
      this.delete(oldest.id);
    }
    // Others at this address may have filled it: as long as there is something of ours to give up, it is tried again.
    while (this.#storage) {
      try {
        this.#storage.setItem(CONVERSATION + conversation.id, text);
        this.trouble = "";
        break;
      } catch (error) {
        if (error.name !== "QuotaExceededError") this.#refused();
        const oldest = this.#storage && this.#oldestBut(conversation);
        if (!oldest) {
          this.trouble ||= "The browser's storage is full: this conversation is gone when the page is closed. Delete others to make room.";
          break;
        }
        gone.push(oldest);
        this.delete(oldest.id);
      }
    }
    return gone;
  }

  #tooMuch() {
    let sum = 0;
    for (const size of this.#sizes.values()) sum += Math.min(size, MOST_CHARACTERS);
    return this.#sizes.size > MOST_CONVERSATIONS || sum > MOST_CHARACTERS;
  }

  #oldestBut(conversation) {
    return this.list().findLast((other) => other.id !== conversation.id) ?? null;
  }

  delete(id) {
    this.#conversations.delete(id);
    this.#sizes.delete(id);
    try {
      this.#storage?.removeItem(CONVERSATION + id);
    } catch {
      this.#refused();
    }
  }

  /** Takes what another tab stored; gives the identifier of the conversation that it is about, or null. */
  follow({ key: name, newValue: text }) {
    if (!name?.startsWith(CONVERSATION)) return null;
    const id = name.slice(CONVERSATION.length);
    if (text === null) {
      this.#conversations.delete(id);
      this.#sizes.delete(id);
    } else if (!this.#take(name, text)) {
      return null;
    }
    return id;
  }

  settings() {
    try {
      const value = JSON.parse(this.#storage?.getItem(SETTINGS) ?? "{}");
      return typeof value === "object" && value !== null ? value : {};
    } catch {
      return {};
    }
  }

  saveSettings(settings) {
    try {
      this.#storage?.setItem(SETTINGS, JSON.stringify(settings));
    } catch {
      this.trouble ||= "The browser's storage is full or refused: settings are not kept.";
    }
  }
}
