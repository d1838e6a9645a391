// What goes wrong, and what is hostile, on the page, in a browser.

import assert from "node:assert/strict";
import { answers, pageTest, said, send, settled } from "./browser.mjs";

const FAILED = /Failed to load resource/;

pageTest("hostile texts stay texts", {}, async ({ page, mock }) => {
  const hostile = [
    "<script>window.hurt = 1</script>",
    '<img src=x onerror="window.hurt = 1">',
    "[x](javascript:window.hurt=1) [y](JAVASCRIPT:window.hurt=1) ![z](javascript:window.hurt=1) <javascript:window.hurt=1>",
    "[d](data:text/html,<script>parent.hurt=1</script>)",
    '[q](https://example.com/"onmouseover="window.hurt=1)',
    "```\"><script>window.hurt = 1</script>\n</code></pre><script>window.hurt = 1</script>\n```",
    "`<b onclick=window.hurt=1>`",
    "| <iframe src=javascript:parent.hurt=1> |\n|---|\n| <svg onload=window.hurt=1> |",
    "&lt;script&gt;window.hurt = 1&lt;/script&gt;",
    "\u202etxet \u0000 \ud800 \ufeff",
  ].join("\n\n");
  mock.script = async (request, answer) => {
    answer.delta({ reasoning_content: hostile });
    await answer.say(hostile, { every: 0, size: 5 });
    answer.delta({ tool_calls: [{ index: 0, id: "c", type: "function", function: { name: "<script>window.hurt=1</script>", arguments: "<b>" } }] });
    answer.end();
  };
  await send(page, hostile);
  await settled(page);
  await page.getByRole("button", { name: /^Rename/ }).click();
  await page.keyboard.press("Enter");
  for (const link of await answers(page).getByRole("link").all()) {
    const [href, rel] = [await link.getAttribute("href"), await link.getAttribute("rel")];
    assert.match(href, /^https?:\/\//);
    assert.equal(rel, "noopener noreferrer");
  }
  assert.equal(await page.evaluate(() => window.hurt), undefined);
  const foreign = await page.locator("#log, #sidebar").evaluateAll((all) => all.flatMap((one) => [...one.querySelectorAll("script, iframe, object, embed, style, b, [onclick], [onerror], [onload], [onmouseover]")]).length);
  assert.equal(foreign, 0);
  assert.match(await answers(page).locator(".markdown").textContent(), /<script>window\.hurt = 1<\/script><img src=x onerror="window\.hurt = 1">/);
  // All of it again from the storage, and names that are no names of objects' parts.
  await page.reload();
  await page.locator("#conversations .open").click();
  assert.equal(await page.evaluate(() => window.hurt), undefined);
});

pageTest("links lead out of the page alone", {}, async ({ page, mock }) => {
  mock.script = async (request, answer) => {
    await answer.say("[home](https://example.com/a) and https://example.com/b.");
    answer.end();
  };
  await send(page, "q");
  await settled(page);
  const links = await answers(page).getByRole("link").evaluateAll((all) => all.map((link) => [link.textContent, link.href, link.rel, link.target, link.title]));
  const rest = ["noopener noreferrer", "_blank"];
  assert.deepEqual(links, [
    ["home", "https://example.com/a", ...rest, "https://example.com/a"],
    ["https://example.com/b", "https://example.com/b", ...rest, "https://example.com/b"],
  ]);
});

pageTest("a storage that is refused", {
  expects: [FAILED],
  prepare: ({ context }) => context.addInitScript(() => {
    for (const name of ["localStorage", "sessionStorage"]) {
      Object.defineProperty(window, name, { get() { throw new DOMException("refused", "SecurityError"); } });
    }
  }),
}, async ({ page, mock }) => {
  await page.locator("#notices").getByText("refuses to store").waitFor();
  mock.key = "secret";
  await send(page, "hello");
  await page.getByLabel("API key").fill("secret");
  await page.keyboard.press("Enter");
  await answers(page).getByText("You said: hello").waitFor();
  await page.getByRole("radio", { name: "Dark" }).check();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
  await page.getByRole("button", { name: "New conversation" }).click();
  assert.deepEqual(await page.locator("#conversations .open").allTextContents(), ["hello"]);
});

pageTest("a storage that is full", {
  prepare: ({ context }) => context.addInitScript(() => {
    const set = Storage.prototype.setItem;
    Storage.prototype.setItem = function (name, value) {
      if (window.full && name.startsWith("walsh.conversation.")) throw new DOMException("full", "QuotaExceededError");
      return set.call(this, name, value);
    };
  }),
}, async ({ page }) => {
  await page.evaluate(() => { window.full = true; });
  await send(page, "hello");
  await settled(page);
  await page.locator("#notices").getByText("storage is full").waitFor();
  assert.deepEqual(await said(page), ["hello", "You said: hello"]);
  await page.evaluate(() => { window.full = false; });
  await send(page, "again");
  await settled(page);
  assert.equal(await page.locator("#notices").getByText("storage is full").count(), 0);
  await page.reload();
  assert.equal(await page.locator("#conversations li").count(), 1);
});

pageTest("what is damaged in the storage is passed over", {
  prepare: ({ context }) => context.addInitScript(() => {
    // A page before it is at an address has no storage.
    if (location.protocol !== "http:") return;
    localStorage.setItem("walsh.conversation.a", "{");
    localStorage.setItem("walsh.conversation.b", '{"id":"b","title":"b","changed":1,"nodes":{},"children":["x"],"chosen":0}');
    localStorage.setItem("walsh.settings", "[1");
    localStorage.setItem("walsh.theme", "<b>");
  }),
}, async ({ page }) => {
  assert.equal(await page.locator("#conversations li").count(), 0);
  await send(page, "hello");
  await settled(page);
  assert.deepEqual(await said(page), ["hello", "You said: hello"]);
});

pageTest("a server that asks for a key", { expects: [FAILED], prepare: ({ mock }) => { mock.key = "secret"; } }, async ({ page, mock, context }) => {
  const field = page.getByLabel("API key");
  await field.waitFor();
  assert.ok(await field.evaluate((element) => element === document.activeElement));
  await field.fill("wrong");
  await page.keyboard.press("Enter");
  await page.getByText("does not take this key").waitFor();
  await field.fill("secret");
  await page.getByRole("button", { name: "Use it" }).click();
  await field.waitFor({ state: "hidden" });
  await page.locator("#serving").getByText("smollm2-135m").waitFor();
  await page.getByRole("img", { name: /^Pages: 12 used/ }).waitFor();
  await send(page, "hello");
  await settled(page);
  assert.deepEqual(await said(page), ["hello", "You said: hello"]);
  // It is kept for the tab, and not where it outlives it.
  await page.reload();
  await page.locator("#serving").getByText("smollm2-135m").waitFor();
  assert.equal(await field.isVisible(), false);
  assert.equal(await page.evaluate(() => JSON.stringify(localStorage).includes("secret")), false);
  const other = await context.newPage();
  await other.goto(mock.url);
  await other.getByLabel("API key").waitFor();
});

pageTest("a key that is asked for in the middle: what was refused is done", { expects: [FAILED] }, async ({ page, mock }) => {
  await page.locator("#serving").getByText("smollm2-135m").waitFor();
  mock.key = "secret";
  await send(page, "hello");
  await page.getByLabel("API key").fill("secret");
  await page.keyboard.press("Enter");
  await answers(page).getByText("You said: hello").waitFor();
  assert.equal(await page.locator(".branches button").count(), 0);
});

pageTest("a server that goes away in the middle of an answer", { expects: [FAILED, /ERR_/] }, async ({ page, mock }) => {
  let cut;
  mock.script = async (request, answer) => {
    await answer.say("as far as **this");
    if (cut) answer.end();
    else cut = () => answer.cut();
  };
  await send(page, "q");
  await answers(page).locator("strong", { hasText: "this" }).waitFor();
  cut();
  await settled(page);
  assert.deepEqual(await said(page), ["q", "as far as **this"]);
  const trouble = answers(page).locator(".trouble");
  assert.match(await trouble.textContent(), /^The connection was lost before the answer's end\. What came is kept\./);
  assert.match(await page.locator("#announcer").textContent(), /connection was lost/);
  await page.reload();
  await page.locator("#conversations .open").click();
  assert.match(await trouble.textContent(), /What came is kept/);
  await trouble.getByRole("button", { name: "Try again" }).click();
  await settled(page);
  assert.equal(await trouble.textContent(), "");
  assert.match(await answers(page).locator(".branches").textContent(), /2\/2/);
});

pageTest("a stream that ends without its end, and one that is none", {}, async ({ page, mock }) => {
  const scripts = [
    [(answer) => answer.response.end(), /^The connection was lost/],
    [(answer) => answer.raw("data: <html>\n\n"), /not JSON/],
    [(answer) => answer.send({ error: { message: "the context is full: 8192 tokens", type: "server_error", code: null } }), /^the context is full: 8192 tokens What came/],
  ];
  for (const [end, expected] of scripts) {
    mock.script = async (request, answer) => {
      await answer.say("some");
      end(answer);
    };
    await send(page, "q");
    await settled(page);
    assert.equal((await said(page)).at(-1), "some");
    assert.match(await answers(page).last().locator(".trouble").textContent(), expected);
  }
});

pageTest("a request that is refused is said where it failed, and tried again there", { expects: [FAILED] }, async ({ page, mock }) => {
  const problem = { error: { message: "temperature is 0 to 2, not 5", type: "invalid_request_error", code: null, param: "temperature" } };
  mock.refuses = (path, response) => {
    if (path !== "/v1/chat/completions") return false;
    response.writeHead(400, { "content-type": "application/json" });
    response.end(JSON.stringify(problem));
    return true;
  };
  await send(page, "q");
  await settled(page);
  assert.match(await answers(page).locator(".trouble.error").textContent(), /^temperature is 0 to 2, not 5/);
  mock.refuses = (path, response) => {
    if (path !== "/v1/chat/completions") return false;
    response.writeHead(502, { "content-type": "text/html" });
    response.end("<h1>Bad gateway</h1>");
    return true;
  };
  await page.getByRole("button", { name: "Try again" }).click();
  await settled(page);
  assert.match(await answers(page).locator(".trouble.error").textContent(), /^The server answered 502 Bad Gateway/);
  mock.refuses = null;
  await page.getByRole("button", { name: "Try again" }).click();
  await settled(page);
  assert.deepEqual(await said(page), ["q", "You said: q"]);
  // What failed and was empty is no version.
  assert.equal(await page.locator(".branches button").count(), 0);
});

pageTest("a server that is not there yet", {
  expects: [FAILED, /ERR_/],
  prepare: ({ mock }) => {
    mock.refuses = (path, response) => {
      if (!path.startsWith("/v1/models")) return false;
      response.socket.destroy();
      return true;
    };
  },
}, async ({ page, mock }) => {
  await page.locator("#notices").getByText("cannot be reached").waitFor();
  await send(page, "hello");
  assert.equal(await page.locator("#input").inputValue(), "hello");
  assert.equal(await page.locator("article").count(), 0);
  mock.refuses = null;
  await page.locator("#notices").getByRole("button", { name: "Try again" }).click();
  await page.locator("#serving").getByText("smollm2-135m").waitFor();
  assert.equal(await page.locator("#notices").innerText(), "");
  await page.locator("#input").press("Enter");
  await answers(page).getByText("You said: hello").waitFor();
});

pageTest("a page that was closed in the middle of an answer", {}, async ({ page, mock }) => {
  mock.script = async (request, answer) => {
    await answer.say("begun");
    await answer.gone;
  };
  await send(page, "q");
  await answers(page).getByText("begun").waitFor();
  await page.reload();
  await page.locator("#conversations .open").click();
  assert.deepEqual(await said(page), ["q", "begun"]);
  assert.match(await answers(page).locator(".trouble").textContent(), /^The page was closed before the answer's end\. What came is kept\./);
});

pageTest("an answer that is cut off, and one that is empty", {}, async ({ page, mock }) => {
  mock.script = async (request, answer) => {
    await answer.say("some");
    answer.end("length");
  };
  await send(page, "q");
  await settled(page);
  assert.match(await answers(page).locator(".trouble").textContent(), /^Cut off/);
  mock.script = async (request, answer) => answer.end();
  await page.getByRole("button", { name: "Answer again" }).click();
  await settled(page);
  assert.match(await answers(page).locator(".trouble").textContent(), /^The answer is empty/);
});
