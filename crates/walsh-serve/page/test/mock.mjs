// A server that says what it is told: the page's files as `walsh serve` gives them, and the API with answers by script.
// `node mock.mjs [PORT]` runs it alone, for work on the page.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

const FOLDER = new URL("../", import.meta.url);
const TYPES = { html: "text/html; charset=utf-8", css: "text/css; charset=utf-8", js: "text/javascript; charset=utf-8", svg: "image/svg+xml" };
export const POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** What a script writes an answer with. */
class Answer {
  constructor(response) {
    this.response = response;
    this.gone = new Promise((resolve) => response.on("close", resolve));
    this.tokens = 0;
  }

  raw(text) {
    this.response.write(text);
  }

  send(value) {
    this.raw(`data: ${JSON.stringify(value)}\n\n`);
  }

  delta(delta, finish = null) {
    this.tokens += 1;
    this.send({ object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason: finish }] });
  }

  /** Says a text in pieces of a few characters. */
  async say(text, { every = 1, size = 4 } = {}) {
    for (let at = 0; at < text.length && !this.response.destroyed; at += size) {
      this.delta({ content: text.slice(at, at + size) });
      if (every) await pause(every);
    }
  }

  end(finish = "stop", { prompt = 30, cached = 10 } = {}) {
    this.delta({}, finish);
    const { tokens } = this;
    this.send({
      choices: [],
      usage: { prompt_tokens: prompt, completion_tokens: tokens, total_tokens: prompt + tokens, prompt_tokens_details: { cached_tokens: cached } },
      timings: {
        prompt_n: prompt - cached, prompt_ms: 80, predicted_n: tokens, predicted_ms: 20 * tokens, prompt_per_second: 250,
        predicted_per_second: 50, cache_n: cached, first_token_ms: 123,
      },
    });
    this.raw("data: [DONE]\n\n");
    this.response.end();
  }

  /** As a server that is killed. */
  cut() {
    this.response.socket.destroy();
  }

  pause(milliseconds) {
    return pause(milliseconds);
  }
}

const refuse = (response, status, message, type) => {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify({ error: { message, type, code: null, param: null } }));
};

async function body(request) {
  let text = "";
  for await (const piece of request) text += piece;
  return JSON.parse(text);
}

export async function startMock({ port = 0 } = {}) {
  const mock = {
    requests: [],
    key: null,
    models: ["smollm2-135m", "qwen2.5-coder-1.5b"],
    pages: { used: 12, kept: 30, free: 86, total: 128 },
    /** How many looks at the numbers there were. */
    looks: 0,
    /** Writes an answer to a request. */
    script: async (request, answer) => {
      await answer.say(`You said: ${request.messages.at(-1).content}`);
      answer.end();
    },
    running: 0,
    generated: 0,
    /** What the list of models waits for. */
    slow: null,
    /** Answers instead of the API, where it gives true. */
    refuses: null,
  };

  async function serve(request, response) {
    const { pathname, searchParams } = new URL(request.url, "http://127.0.0.1");
    if (request.method === "GET" && (pathname === "/" || pathname.startsWith("/page/"))) {
      const name = pathname === "/" ? "index.html" : pathname.slice("/page/".length);
      if (!/^[a-z]+\.[a-z]+$/.test(name)) return refuse(response, 404, "no such page", "not_found");
      const content = await readFile(new URL(name, FOLDER)).catch(() => null);
      if (content === null) return refuse(response, 404, "no such page", "not_found");
      response.writeHead(200, { "content-type": TYPES[name.split(".")[1]], "content-security-policy": POLICY, "x-content-type-options": "nosniff" });
      return response.end(content);
    }
    if (mock.key && request.headers.authorization !== `Bearer ${mock.key}`) {
      return refuse(response, 401, "no valid API key was given", "authentication_error");
    }
    const json = (value) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify(value));
    };
    if (mock.refuses?.(pathname, response)) return undefined;
    switch (`${request.method} ${pathname}`) {
      case "GET /v1/models":
        await mock.slow;
        return json({ object: "list", data: mock.models.map((id) => ({ id, object: "model" })) });
      case "GET /props":
        return json({
          model: searchParams.get("model"), device: "cpu:threads=2", kv: "tq4;recent=32:q8_0", context: 8192, total_slots: 4,
          default_generation_settings: { temperature: 0.800000011920929, top_p: 0.95, top_k: 40, min_p: 0.05 },
        });
      case "GET /metrics.json":
        mock.looks += 1;
        return json({ models: mock.models.map((model) => ({ model, running: mock.running, waiting: 2, pages: mock.pages, generated: mock.generated, read: 567, reused: 89 })) });
      case "POST /v1/chat/completions": {
        const asked = await body(request);
        mock.requests.push(asked);
        response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
        const answer = new Answer(response);
        mock.running += 1;
        answer.gone.then(() => {
          mock.running -= 1;
          mock.generated += answer.tokens;
        });
        answer.delta({ role: "assistant", content: "" });
        return mock.script(asked, answer);
      }
      default:
        return refuse(response, 404, `nothing is at ${pathname}`, "not_found");
    }
  }

  const server = createServer((request, response) => {
    serve(request, response).catch((error) => {
      // A client that goes away in the middle is part of the tests.
      if (!response.destroyed) console.error(error);
      response.destroy();
    });
  });
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  mock.url = `http://127.0.0.1:${server.address().port}`;
  mock.close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return mock;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await startMock({ port: Number(process.argv[2] ?? 0) });
  const example = await readFile(new URL("example.md", import.meta.url), "utf8");
  mock.script = async (request, answer) => {
    answer.delta({ reasoning_content: "Somebody wants to see **what there is**.\n\n- so I show it" });
    await answer.say(example, { every: 15 });
    answer.end();
  };
  console.error(`listening on ${mock.url}`);
}
