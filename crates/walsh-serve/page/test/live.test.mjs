// The page with a server that has a model: what is said is not known, so it is only looked at that and how it is said.

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";
import { answers, options, questions, said, send, settled, shot, state, watch } from "./browser.mjs";

const FOLDER = new URL("../", import.meta.url);

function liveTest(name, run) {
  test(name, { timeout: 180_000 }, async () => {
    const context = await state.browser.newContext({ viewport: { width: 1280, height: 800 } });
    context.setDefaultTimeout(90_000);
    const complaints = watch(context);
    try {
      const page = await context.newPage();
      await page.goto(options.server);
      await page.locator("#serves dd").first().waitFor();
      // A model that is built for debugging is slow.
      await page.getByLabel("Max tokens").fill("24");
      await run(page);
      assert.deepEqual(complaints, [], "the browser complains");
    } finally {
      await context.close();
    }
  });
}

test("the server gives the page's files as they are, under a strict policy", async () => {
  const entries = await readdir(FOLDER, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
  assert.ok(names.length > 10);
  for (const name of names) {
    const response = await fetch(`${options.server}/${name === "index.html" ? "" : `page/${name}`}`);
    assert.equal(response.status, 200, name);
    assert.equal(await response.text(), await readFile(new URL(name, FOLDER), "utf8"), name);
    const type = { html: "text/html", css: "text/css", js: "text/javascript", svg: "image/svg+xml" }[name.split(".")[1]];
    assert.ok(response.headers.get("content-type").startsWith(type), `${name}: ${response.headers.get("content-type")}`);
    const policy = response.headers.get("content-security-policy") ?? "";
    if (name === "index.html") {
      assert.match(policy, /default-src 'self'/);
      assert.doesNotMatch(policy, /unsafe|data:|\*/);
    }
  }
  assert.equal((await fetch(`${options.server}/page/nothing.js`)).status, 404);
});

liveTest("a conversation, another answer, and a branch", async (page) => {
  await send(page, "Hello, who are you?");
  await settled(page);
  assert.equal(await answers(page).locator(".trouble.error").count(), 0);
  assert.ok((await said(page))[1].length > 0);
  assert.match(await answers(page).locator(".costs").textContent(), /^[\d.,]+ tokens\/s · \d+ tokens? · first after .+ · prompt: [\d,]+ read, [\d,]+ reused · /);
  await send(page, "Say that again.");
  await settled(page);
  // The beginning of the conversation is kept.
  assert.match(await answers(page).last().locator(".costs").textContent(), /, [1-9][\d,]* reused/);
  await page.getByRole("button", { name: "Answer again" }).last().click();
  await settled(page);
  assert.match(await answers(page).last().locator(".branches").textContent(), /2\/2/);
  await page.getByRole("button", { name: "Edit this message" }).first().click();
  await page.getByRole("textbox", { name: "Edited message" }).fill("What is 2 + 2?");
  await page.keyboard.press("Enter");
  await settled(page);
  assert.equal((await said(page)).length, 2);
  await questions(page).first().getByRole("button", { name: "Previous version" }).click();
  assert.equal((await said(page)).length, 4);
  assert.match(await page.locator("#usage").textContent(), /^[\d,]+ of [\d,]+ tokens of context$/);
  await shot(page, "live");
});

liveTest("an answer is stopped, and the server is free for the next one", async (page) => {
  await page.getByLabel("Max tokens").fill("");
  // What the model says may be short: this answer has no end of its own.
  await page.route("**/v1/chat/completions", (route) =>
    route.continue({ postData: { ...route.request().postDataJSON(), ignore_eos: true } }),
  );
  await send(page, "Count from 1 to 1000, a number a line.");
  await page.waitForFunction(() => document.querySelector(".assistant .markdown")?.textContent.length > 8);
  await page.keyboard.press("Escape");
  await settled(page);
  assert.match(await answers(page).locator(".trouble").textContent(), /^Stopped/);
  await page.locator("#counts").getByText("Requests running").waitFor();
  await page.waitForFunction(() => /Requests running\s*0/.test(document.getElementById("counts").innerText));
});

liveTest("the cache is shown", async (page) => {
  const bar = page.getByRole("img", { name: /^Pages: [\d,]+ used, [\d,]+ kept for prefixes, [\d,]+ free, of [1-9]/ });
  await bar.waitFor();
  await send(page, "Hello");
  await settled(page);
  await page.waitForFunction(() => /Tokens written\s*[1-9]/.test(document.getElementById("counts").innerText));
});

