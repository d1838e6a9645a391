// The browser for tests: `page` opens the page of a server, and what the browser complains of fails the test.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, test } from "node:test";
import { parseArgs } from "node:util";
import { startMock } from "./mock.mjs";

export const { values: options } = parseArgs({
  options: { tools: { type: "string" }, chromium: { type: "string" }, server: { type: "string" }, shots: { type: "string", default: "" } },
});
if (!options.tools || !options.chromium) throw new Error("this test is run by .ci/page, which says where the browser is");
const { chromium } = createRequire(path.join(options.tools, "package.json"))("playwright-core");

export const state = { browser: null };

before(async () => {
  state.browser = await chromium.launch({
    executablePath: options.chromium,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
});
after(() => state.browser?.close());

/** A test with a page of a mock: `run({ page, mock, context, complaints })`. What it says it `expects` is no complaint. */
export function pageTest(name, { expects = [], prepare = null, ...settings }, run) {
  test(name, { timeout: 60_000 }, async () => {
    const mock = await startMock();
    const context = await state.browser.newContext({ viewport: { width: 1280, height: 800 }, ...settings });
    context.setDefaultTimeout(10_000);
    const complaints = watch(context);
    try {
      await prepare?.({ mock, context });
      const page = await context.newPage();
      await page.goto(mock.url);
      await run({ page, mock, context });
      const left = complaints.filter((text) => !expects.some((pattern) => pattern.test(text)));
      assert.deepEqual(left, [], "the browser complains");
    } finally {
      await context.close();
      await mock.close();
    }
  });
}

/** Errors on the console, exceptions, and breaches of the content security policy, which the console names. */
export function watch(context) {
  const complaints = [];
  context.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  context.on("weberror", (error) => complaints.push(String(error.error())));
  return complaints;
}

/** Writes a message and sends it. */
export async function send(page, text) {
  await page.getByRole("textbox", { name: "Message", exact: true }).fill(text);
  await page.keyboard.press("Enter");
}

export const answers = (page) => page.locator("article.assistant");
export const questions = (page) => page.locator("article.user");

/** Waits until no answer is being written. */
export const settled = (page) => page.locator("#stop").waitFor({ state: "hidden" });

/** The text of all messages on show. */
export async function said(page) {
  return page.locator("article .content").evaluateAll((all) => all.map((content) => (content.querySelector(".markdown") ?? content).textContent));
}

export async function shot(page, name) {
  if (options.shots) await page.screenshot({ path: path.join(options.shots, `${name}.png`) });
}
