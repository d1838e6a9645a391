// Answers that are being written: one for each conversation at most, and they go on while another one is looked at.

import { chat } from "./api.js";
import { append, messagesFor } from "./tree.js";

/** How often what has come is stored while more comes, in milliseconds. */
const SAVE_EVERY = 3000;
/** Why a request is given up that nobody stopped. */
const LEAVING = new DOMException("the page is closed", "AbortError");

/** Takes a chunk of the stream into the answer that it belongs to. */
export function take(node, chunk) {
  const [choice] = chunk.choices ?? [];
  const delta = choice?.delta ?? {};
  if (typeof delta.content === "string") node.content += delta.content;
  if (typeof delta.reasoning_content === "string") node.reasoning += delta.reasoning_content;
  for (const part of Array.isArray(delta.tool_calls) ? delta.tool_calls : []) {
    const index = Number.isInteger(part.index) ? part.index : node.calls.length;
    // Calls come in order: a larger number is one more.
    const call = node.calls[index] ?? (node.calls[node.calls.length] = { id: "", name: "", text: "" });
    call.id ||= part.id ?? "";
    call.name += part.function?.name ?? "";
    call.text += part.function?.arguments ?? "";
  }
  if (choice?.finish_reason) node.finish = choice.finish_reason;
  if (chunk.usage) node.usage = chunk.usage;
  if (chunk.timings) node.timings = chunk.timings;
}

/** What an answer cost, as parts of one line. */
export function costs({ usage, timings, model }) {
  const parts = [];
  const say = (number, text) => {
    if (Number.isFinite(number)) parts.push(text(number));
  };
  const whole = (number) => Math.round(number).toLocaleString("en");
  say(timings?.predicted_per_second, (n) => `${n.toFixed(n < 100 ? 1 : 0)} tokens/s`);
  say(usage?.completion_tokens, (n) => `${whole(n)} ${n === 1 ? "token" : "tokens"}`);
  say(timings?.first_token_ms, (n) => `first after ${n < 1000 ? `${whole(n)} ms` : `${(n / 1000).toFixed(1)} s`}`);
  const reused = timings?.cache_n ?? usage?.prompt_tokens_details?.cached_tokens;
  const read = timings?.prompt_n ?? usage?.prompt_tokens - (reused ?? 0);
  say(read, (n) => `prompt: ${whole(n)} read${Number.isFinite(reused) ? `, ${whole(reused)} reused` : ""}`);
  if (parts.length && model) parts.push(model);
  return parts;
}

export class Answers {
  #running = new Map();

  /** `changed(conversation, node)` is called for every piece; `ended(conversation, node)` when no more comes. */
  constructor({ store, settings, changed, ended }) {
    Object.assign(this, { store, settings, changed, ended });
  }

  isRunning(conversation) {
    return this.#running.has(conversation?.id);
  }

  /** Whether this very answer is being written. One that claims to be may come from a page that was closed. */
  writes(node) {
    return [...this.#running.values()].some((run) => run.node === node);
  }

  stop(conversation) {
    this.#running.get(conversation?.id)?.controller.abort();
  }

  /** Keeps what has come: the page goes away, and requests that break off with it are no errors of the server. */
  leave() {
    for (const { conversation, controller } of this.#running.values()) {
      this.store.save(conversation);
      controller.abort(LEAVING);
    }
    this.#running.clear();
  }

  /** Begins an answer to a user's message with the settings' parameters, and gives its node. */
  start(conversation, user, parameters) {
    const messages = messagesFor(conversation, user, this.settings.system);
    const node = append(conversation, user, {
      role: "assistant", content: "", reasoning: "", calls: [], model: parameters.model, state: "running",
    });
    const run = { conversation, node, controller: new AbortController() };
    this.#running.set(conversation.id, run);
    this.#write(conversation, run, { ...parameters, messages });
    return node;
  }

  async #write(conversation, { node, controller }, body) {
    let saved = Date.now();
    try {
      for await (const chunk of chat(body, controller.signal)) {
        take(node, chunk);
        this.changed(conversation, node);
        if (Date.now() - saved > SAVE_EVERY) {
          saved = Date.now();
          this.store.save(conversation);
        }
      }
      node.state = "done";
    } catch (error) {
      if (controller.signal.reason === LEAVING) return;
      node.state = error.name === "AbortError" ? "stopped" : "failed";
      if (node.state === "failed") Object.assign(node, { error: error.message, status: error.status ?? 0 });
    }
    this.#running.delete(conversation.id);
    this.ended(conversation, node);
  }
}
