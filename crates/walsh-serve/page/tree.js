// A conversation is a tree: what is edited or asked for again becomes a branch, and nothing that was said is lost. Every
// node knows which of its children is looked at. No DOM and no storage here.

/** What a conversation is called by until it is renamed, in characters. */
const LONGEST_TITLE = 60;

let last = 0;

/** An identifier that differs from others of this and other tabs. */
function identifier() {
  last = Math.max(Date.now(), last + 1);
  return `${last.toString(36)}-${Math.floor(Math.random() * 2 ** 32).toString(36)}`;
}

/** A conversation without messages. `children` and `chosen` are the root's, which is no message. */
export function create(now = Date.now()) {
  return { id: identifier(), title: "", named: false, changed: now, nodes: {}, children: [], chosen: 0 };
}

const parentOf = (conversation, node) => (node.parent ? conversation.nodes[node.parent] : conversation);

/** The messages that are looked at, the first one first. */
export function path(conversation) {
  const nodes = [];
  let from = conversation;
  while (from.children.length) {
    from = conversation.nodes[from.children[from.chosen]];
    nodes.push(from);
  }
  return nodes;
}

/** Adds a message behind `parent` (null: at the beginning) and looks at it. */
export function append(conversation, parent, message) {
  const node = { id: identifier(), parent: parent?.id ?? null, children: [], chosen: 0, ...message };
  const above = parent ?? conversation;
  conversation.nodes[node.id] = node;
  above.chosen = above.children.push(node.id) - 1;
  conversation.changed = Date.now();
  if (!conversation.named && !conversation.title && node.role === "user") conversation.title = titleOf(node.content);
  return node;
}

/** Adds another version of a message and looks at it. */
export function branch(conversation, node, message) {
  const parent = node.parent ? conversation.nodes[node.parent] : null;
  return append(conversation, parent, message);
}

/** How many versions of a message there are, and which one it is, from 0. */
export function versions(conversation, node) {
  const { children } = parentOf(conversation, node);
  return { index: children.indexOf(node.id), total: children.length };
}

/** Looks at another version of a message; gives the node that is shown in its place. */
export function choose(conversation, node, index) {
  const parent = parentOf(conversation, node);
  parent.chosen = Math.min(Math.max(index, 0), parent.children.length - 1);
  return conversation.nodes[parent.children[parent.chosen]];
}

/** Takes a message and all behind it away. */
export function remove(conversation, node) {
  const parent = parentOf(conversation, node);
  const index = parent.children.indexOf(node.id);
  parent.children.splice(index, 1);
  if (parent.chosen >= index) parent.chosen = Math.max(0, parent.chosen - 1);
  const gone = [node];
  while (gone.length) {
    const next = gone.pop();
    gone.push(...next.children.map((id) => conversation.nodes[id]));
    delete conversation.nodes[next.id];
  }
}

/** The messages for a request, up to a node and with it. */
export function messagesFor(conversation, node, system) {
  const messages = [];
  for (let at = node; at; at = at.parent ? conversation.nodes[at.parent] : null) {
    const message = { role: at.role, content: at.content };
    if (at.calls?.length) {
      message.tool_calls = at.calls.map(({ id, name, text }) => ({ id, type: "function", function: { name, arguments: text } }));
    }
    messages.push(message);
  }
  if (system.trim()) messages.push({ role: "system", content: system });
  return messages.reverse();
}

/** An empty name changes nothing. */
export function rename(conversation, title) {
  const name = title.trim().slice(0, 200);
  if (!name) return;
  conversation.title = name;
  conversation.named = true;
}

function titleOf(text) {
  const line = text.trim().split("\n")[0];
  const characters = [...line];
  return characters.length > LONGEST_TITLE ? `${characters.slice(0, LONGEST_TITLE - 1).join("").trimEnd()}…` : line;
}

/** A conversation as it was stored, or null where that is none: storage is shared with whatever else runs at this address. */
export function revive(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  return sound(value) ? value : null;
}

function sound(value) {
  const isObject = (thing) => typeof thing === "object" && thing !== null && !Array.isArray(thing);
  if (!isObject(value) || typeof value.id !== "string" || typeof value.title !== "string") return false;
  if (!Number.isFinite(value.changed) || !isObject(value.nodes)) return false;
  const seen = new Set();
  const waiting = [[null, value]];
  while (waiting.length) {
    const [id, node] = waiting.pop();
    if (!isObject(node) || !Array.isArray(node.children) || !Number.isInteger(node.chosen)) return false;
    if (node.chosen < 0 || node.chosen >= Math.max(1, node.children.length)) return false;
    if (id !== null) {
      const known = (node.role === "user" || node.role === "assistant") && typeof node.content === "string";
      if (!known || node.id !== id) return false;
    }
    for (const child of node.children) {
      // Each node has one parent, which it names: a ring would be walked for ever.
      if (seen.has(child) || !Object.hasOwn(value.nodes, child) || value.nodes[child]?.parent !== id) return false;
      seen.add(child);
      waiting.push([child, value.nodes[child]]);
    }
  }
  return true;
}
