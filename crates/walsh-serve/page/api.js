// What the page asks of the server. Addresses are relative, so that it works behind a prefix as well.

const KEY = "walsh.key";

/** What went wrong, in words for people. `status` is HTTP's, or 0 where there was no answer. */
export class ApiError extends Error {
  constructor(message, { status = 0, type = "" } = {}) {
    super(message);
    this.status = status;
    this.type = type;
  }
}

let memoryKey = "";

/** The key lives as long as the tab: it is no setting, and others may use this machine. */
export const key = {
  get() {
    try {
      return sessionStorage.getItem(KEY) ?? memoryKey;
    } catch {
      return memoryKey;
    }
  },
  set(value) {
    memoryKey = value;
    try {
      sessionStorage.setItem(KEY, value);
    } catch {
      // A browser that refuses storage: the key lives as long as the page.
    }
  },
};

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached: is `walsh serve` still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let error;
  try {
    ({ error } = await response.json());
  } catch {
    // Something between the page and the server answers in its own words.
  }
  const message = typeof error?.message === "string" ? error.message : `The server answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(message, { status: response.status, type: error?.type ?? "" });
}

async function json(path, signal) {
  const response = await request(path, { signal });
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(`What the server answered at ${path} is not JSON`);
  }
}

/** The names of the models that are served. */
export async function models(signal) {
  const { data } = await json("v1/models", signal);
  return (Array.isArray(data) ? data : []).map((model) => String(model.id));
}

export const props = (model, signal) => json(`props?model=${encodeURIComponent(model)}`, signal);
export const metrics = (signal) => json("metrics.json", signal);

/** Asks for an answer and gives the chunks of its stream. Returning before `[DONE]` is an error: something cut it off. */
export async function* chat(body, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const events = new EventReader();
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) throw lost();
      for (const data of events.push(decoder.decode(value, { stream: true }))) {
        if (data === "[DONE]") return;
        yield chunkOf(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

const lost = () => new ApiError("The connection was lost before the answer's end.", { type: "connection" });

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw error.name === "AbortError" ? error : lost();
  }
}

function chunkOf(data) {
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    throw new ApiError("A part of the answer is not JSON: is this the server of this page?");
  }
  if (chunk?.error) throw new ApiError(String(chunk.error.message ?? "The server gave up"), { type: chunk.error.type ?? "" });
  return chunk;
}

/** Reads a stream of server-sent events in whatever pieces it comes; gives the data of events that are whole. */
export class EventReader {
  #rest = "";
  #data = [];

  push(text) {
    const events = [];
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    for (const ended of lines) {
      const line = ended.endsWith("\r") ? ended.slice(0, -1) : ended;
      if (line === "") {
        if (this.#data.length) events.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return events;
  }
}
