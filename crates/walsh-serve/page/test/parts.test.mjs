// The parts of the page that need no browser: streams, conversations, storage, settings, numbers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { costs, take } from "../answers.js";
import { EventReader } from "../api.js";
import { summary } from "../cache.js";
import { FieldError, numberOf } from "../settings.js";
import { Store } from "../store.js";
import { append, branch, choose, create, messagesFor, path, remove, rename, revive, versions } from "../tree.js";

test("events are read in whatever pieces they come", () => {
  const stream = ': a comment\r\ndata: {"a":"é"}\r\n\r\nevent: x\ndata:b\ndata: c\n\n\n\ndata: [DONE]\n\ndata: not whole';
  const expected = ['{"a":"é"}', "b\nc", "[DONE]"];
  for (let first = 0; first <= stream.length; first += 1) {
    for (const size of [1, 2, 7, stream.length]) {
      const reader = new EventReader();
      const events = reader.push(stream.slice(0, first));
      for (let at = first; at < stream.length; at += size) events.push(...reader.push(stream.slice(at, at + size)));
      assert.deepEqual(events, expected);
    }
  }
});

const user = (content) => ({ role: "user", content });
const assistant = (content) => ({ role: "assistant", content, reasoning: "", calls: [], state: "done" });
const texts = (conversation) => path(conversation).map((node) => node.content).join(" ");

test("what is edited or asked for again is a branch, and older ones stay", () => {
  const conversation = create();
  const q1 = append(conversation, null, user("q1"));
  const a1 = append(conversation, q1, assistant("a1"));
  const q2 = append(conversation, a1, user("q2"));
  append(conversation, q2, assistant("a2"));
  const a1b = branch(conversation, a1, assistant("a1b"));
  assert.equal(texts(conversation), "q1 a1b");
  assert.deepEqual(versions(conversation, a1b), { index: 1, total: 2 });
  assert.equal(choose(conversation, a1b, 0), a1);
  assert.equal(texts(conversation), "q1 a1 q2 a2");
  const other = branch(conversation, q1, user("Q1"));
  append(conversation, other, assistant("A1"));
  assert.equal(texts(conversation), "Q1 A1");
  assert.equal(choose(conversation, other, -5), q1);
  assert.equal(texts(conversation), "q1 a1 q2 a2");
  assert.deepEqual(messagesFor(conversation, q2, "  s "), [{ role: "system", content: "  s " }, user("q1"), { role: "assistant", content: "a1" }, user("q2")]);
  assert.deepEqual(messagesFor(conversation, q1, " "), [user("q1")]);
  remove(conversation, a1);
  assert.equal(texts(conversation), "q1 a1b");
  remove(conversation, q1);
  assert.equal(texts(conversation), "Q1 A1");
  assert.equal(Object.keys(conversation.nodes).length, 2);
  remove(conversation, other);
  assert.equal(texts(conversation), "");
});

test("a conversation is called by its first line until it is renamed", () => {
  const conversation = create();
  const first = append(conversation, null, user(`  ${"é".repeat(100)}\nx`));
  assert.equal(conversation.title, `${"é".repeat(59)}…`);
  branch(conversation, first, user("y"));
  assert.equal(conversation.title, `${"é".repeat(59)}…`);
  rename(conversation, " z ");
  rename(conversation, "  ");
  assert.equal(conversation.title, "z");
});

test("calls of tools go back to the server as they came", () => {
  const conversation = create();
  const question = append(conversation, null, user("q"));
  const node = append(conversation, question, assistant(""));
  const chunk = (call) => take(node, { choices: [{ delta: { tool_calls: [call] } }] });
  chunk({ index: 0, id: "c1", type: "function", function: { name: "add", arguments: "" } });
  chunk({ index: 0, function: { arguments: '{"a":' } });
  chunk({ index: 0, function: { arguments: "1}" } });
  chunk({ index: 1, id: "c2", function: { name: "stop", arguments: "{}" } });
  assert.deepEqual(messagesFor(conversation, node, "")[1].tool_calls, [
    { id: "c1", type: "function", function: { name: "add", arguments: '{"a":1}' } },
    { id: "c2", type: "function", function: { name: "stop", arguments: "{}" } },
  ]);
});

test("chunks are taken whatever they have", () => {
  const node = { content: "", reasoning: "", calls: [] };
  for (const chunk of [{}, { choices: [] }, { choices: [{}] }, { choices: [{ delta: { content: null, reasoning_content: "r" } }] }, { choices: [{ delta: { content: "c" }, finish_reason: "length" }] }]) take(node, chunk);
  assert.deepEqual(node, { content: "c", reasoning: "r", calls: [], finish: "length" });
});

test("what an answer cost", () => {
  const usage = { prompt_tokens: 1412, completion_tokens: 1, total_tokens: 1413, prompt_tokens_details: { cached_tokens: 1380 } };
  const timings = { prompt_n: 32, cache_n: 1380, predicted_per_second: 41.26, first_token_ms: 1234 };
  assert.deepEqual(costs({ usage, timings, model: "m" }), ["41.3 tokens/s", "1 token", "first after 1.2 s", "prompt: 32 read, 1,380 reused", "m"]);
  assert.deepEqual(costs({ usage }), ["1 token", "prompt: 32 read, 1,380 reused"]);
  assert.deepEqual(costs({ model: "m" }), []);
});

test("what is stored is read again, and nothing else", () => {
  const conversation = create();
  const question = append(conversation, null, user("q"));
  append(conversation, question, assistant("a"));
  assert.deepEqual(revive(JSON.stringify(conversation)), conversation);
  const damaged = (change) => {
    const copy = structuredClone(conversation);
    change(copy, copy.nodes[question.id]);
    return JSON.stringify(copy);
  };
  const bad = [
    "", "null", "[]", "{}", "{", '"x"',
    damaged((all) => { all.chosen = 5; }),
    damaged((all) => { all.children.push("nobody"); }),
    damaged((all) => { all.children = ["__proto__"]; }),
    damaged((all) => { all.title = 3; }),
    damaged((all) => { all.changed = "now"; }),
    damaged((all, node) => { node.children.push(node.id); }),
    damaged((all, node) => { node.role = "system"; }),
    damaged((all, node) => { node.content = { toString: 1 }; }),
    damaged((all, node) => { node.id = "x"; }),
    damaged((all, node) => { node.chosen = 0.5; }),
    damaged((all, node) => { node.children.push(node.children[0]); }),
  ];
  for (const text of bad) assert.equal(revive(text), null, text);
});

/** A storage of a size that may refuse. */
class FakeStorage {
  items = new Map();
  constructor(room = Infinity) {
    this.room = room;
  }
  get length() {
    return this.items.size;
  }
  key(index) {
    return [...this.items.keys()][index] ?? null;
  }
  getItem(name) {
    return this.items.get(name) ?? null;
  }
  setItem(name, text) {
    const others = [...this.items].reduce((sum, [other, value]) => sum + (other === name ? 0 : value.length), 0);
    if (others + text.length > this.room) throw new DOMException("full", "QuotaExceededError");
    this.items.set(name, text);
  }
  removeItem(name) {
    this.items.delete(name);
  }
}

function conversationOf(text, changed) {
  const conversation = create();
  append(conversation, null, user(text));
  conversation.changed = changed;
  return conversation;
}

test("conversations are kept, the newest first", () => {
  const storage = new FakeStorage();
  storage.setItem("somebody's", "{}");
  storage.setItem("walsh.conversation.x", '{"id":"y"}');
  const store = new Store(() => storage);
  const [a, b] = [conversationOf("a", 1), conversationOf("b", 2)];
  assert.deepEqual([...store.save(a), ...store.save(b)], []);
  const again = new Store(() => storage);
  assert.deepEqual(again.list(), [b, a]);
  again.delete(b.id);
  assert.deepEqual(new Store(() => storage).list(), [a]);
  assert.equal(storage.getItem("somebody's"), "{}");
});

test("a full storage gives up the oldest conversations, and says so", () => {
  const storage = new FakeStorage(5000);
  const store = new Store(() => storage);
  const all = [1, 2, 3, 4].map((age) => conversationOf("x".repeat(1200), age));
  const gone = all.flatMap((conversation) => store.save(conversation));
  assert.deepEqual(gone, [all[0]]);
  assert.equal(store.trouble, "");
  const large = conversationOf("x".repeat(6000), 5);
  store.save(large);
  assert.match(store.trouble, /full/);
  assert.deepEqual(store.list(), [large]);
});

test("how much is kept is bounded, and one that is too long costs no other", () => {
  const store = new Store(() => new FakeStorage());
  const first = conversationOf("first", 1);
  store.save(first);
  for (let index = 2; index <= 200; index += 1) assert.deepEqual(store.save(conversationOf("x", index)), []);
  const long = conversationOf("x".repeat(4_100_000), 500);
  assert.deepEqual(store.save(long), []);
  assert.match(store.trouble, /too long/);
  store.delete(long.id);
  assert.deepEqual(store.save(conversationOf("x", 501)), [first]);
  assert.equal(store.list().length, 200);
});

test("a storage that is refused is said, and the page works", () => {
  for (const open of [() => { throw new DOMException("no", "SecurityError"); }, () => null]) {
    const store = new Store(open);
    assert.match(store.trouble, /refuses/);
    const conversation = conversationOf("a", 1);
    assert.deepEqual(store.save(conversation), []);
    store.saveSettings({ a: 1 });
    assert.deepEqual(store.settings(), {});
    assert.deepEqual(store.list(), [conversation]);
    store.delete(conversation.id);
    assert.match(store.trouble, /refuses/);
  }
});

test("another tab's doings are followed", () => {
  const store = new Store(() => new FakeStorage());
  const conversation = conversationOf("a", 1);
  const name = `walsh.conversation.${conversation.id}`;
  assert.equal(store.follow({ key: name, newValue: JSON.stringify(conversation) }), conversation.id);
  assert.deepEqual(store.list(), [conversation]);
  assert.equal(store.follow({ key: name, newValue: "{}" }), null);
  assert.equal(store.follow({ key: "walsh.settings", newValue: "{}" }), null);
  assert.equal(store.follow({ key: null, newValue: null }), null);
  assert.equal(store.follow({ key: name, newValue: null }), conversation.id);
  assert.deepEqual(store.list(), []);
});

test("settings are numbers within bounds, or not sent", () => {
  assert.equal(numberOf("temperature", " 0,7 "), 0.7);
  assert.equal(numberOf("temperature", "0"), 0);
  assert.equal(numberOf("top_p", ""), undefined);
  assert.equal(numberOf("seed", "9007199254740991"), 9007199254740991);
  const bad = [["temperature", "-1"], ["temperature", "warm"], ["temperature", "NaN"], ["top_p", "1.1"], ["min_p", "Infinity"], ["max_completion_tokens", "0"], ["max_completion_tokens", "1.5"], ["seed", "9007199254740993"], ["seed", "-1"]];
  for (const [name, text] of bad) assert.throws(() => numberOf(name, text), (error) => error instanceof FieldError && error.field === name && error.message.includes(text));
});

test("the cache's numbers in words, and none where there are none", () => {
  const shown = summary({ pages: { used: 64, kept: 32, free: 1184, total: 1280 }, running: 1, waiting: 0, read: 5000, reused: 0 });
  assert.equal(shown.label, "Pages: 64 used, 32 kept for prefixes, 1,184 free, of 1,280");
  assert.deepEqual([shown.used, shown.kept], [5, 2.5]);
  assert.deepEqual(shown.rows.find(([, name]) => name === "Tokens read"), ["", "Tokens read", "5,000"]);
  assert.deepEqual(shown.rows.find(([, name]) => name === "Tokens written"), ["", "Tokens written", "?"]);
  for (const model of [undefined, {}, { pages: null }, { pages: { used: 1, kept: "2", free: 3, total: 6 } }]) assert.equal(summary(model), null);
  assert.equal(summary({ pages: { used: 0, kept: 0, free: 0, total: 0 } }).used, 0);
});
