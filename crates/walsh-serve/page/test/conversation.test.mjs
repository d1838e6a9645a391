// Conversations on the page, in a browser, with a server that says what it is told.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { answers, pageTest, questions, said, send, settled } from "./browser.mjs";

pageTest("a conversation", {}, async ({ page, mock }) => {
  await send(page, "Hello\nthere");
  await settled(page);
  assert.deepEqual(await said(page), ["Hello\nthere", "You said: Hellothere"]);
  await send(page, "Again");
  await settled(page);
  const [, second] = mock.requests;
  assert.deepEqual(second.messages, [
    { role: "user", content: "Hello\nthere" }, { role: "assistant", content: "You said: Hello\nthere" }, { role: "user", content: "Again" },
  ]);
  assert.equal(second.stream, true);
  assert.deepEqual(second.stream_options, { include_usage: true });
  assert.equal(second.model, "smollm2-135m");
  // What is left empty is the server's to decide.
  for (const name of ["temperature", "top_p", "min_p", "seed", "max_completion_tokens"]) assert.ok(!(name in second), name);
  const line = await answers(page).last().locator(".costs").textContent();
  assert.match(line, /^50\.0 tokens\/s · \d+ tokens · first after 123 ms · prompt: 20 read, 10 reused · smollm2-135m$/);
  assert.match(await page.locator("#usage").textContent(), /^\d+ of 8,192 tokens of context$/);
  assert.equal(await page.title(), "Hello – Walsh");
  assert.match(await page.locator("#announcer").textContent(), /^Answer finished\. You said: Again$/);
});

pageTest("Shift+Enter begins a line, and nothing empty is sent", {}, async ({ page, mock }) => {
  const input = page.getByRole("textbox", { name: "Message", exact: true });
  await input.press("Enter");
  await input.fill("   ");
  await input.press("Enter");
  assert.equal(mock.requests.length, 0);
  await input.fill("a");
  await input.press("Shift+Enter");
  await input.pressSequentially("b");
  await input.press("Enter");
  await settled(page);
  assert.equal(mock.requests[0].messages[0].content, "a\nb");
});

pageTest("what is sent before the models are known waits for them", {
  prepare: ({ mock }) => {
    mock.slow = new Promise((resolve) => { mock.go = resolve; });
  },
}, async ({ page, mock }) => {
  await send(page, "early");
  await page.waitForTimeout(100);
  assert.equal(mock.requests.length, 0);
  mock.go();
  await answers(page).getByText("You said: early").waitFor();
  assert.equal(mock.requests.length, 1);
  assert.equal(await page.locator("#notices").innerText(), "");
});

pageTest("an answer grows without what is there being touched", {}, async ({ page, mock }) => {
  const example = await readFile(new URL("example.md", import.meta.url), "utf8");
  let go;
  const more = new Promise((resolve) => { go = resolve; });
  const half = example.indexOf("| South");
  mock.script = async (request, answer) => {
    await answer.say(example.slice(0, half), { every: 0, size: 7 });
    await more;
    await answer.say(example.slice(half), { size: 3 });
    answer.end();
  };
  await send(page, "Show me");
  const body = answers(page).locator(".markdown");
  await body.locator("td", { hasText: "North rock" }).waitFor();
  assert.equal(await answers(page).getAttribute("aria-busy"), "true");
  // Elements of blocks that are done, and the table that still grows.
  await body.evaluate((element) => {
    window.kept = [...element.children, ...element.querySelectorAll("td, pre, li")];
    window.changed = 0;
    const before = [...element.children].slice(0, -1);
    new MutationObserver((records) => { window.changed += records.length; }).observe(before[0], { subtree: true, childList: true, characterData: true });
    const selection = getSelection();
    selection.selectAllChildren(element.querySelector("li"));
    window.selected = selection.toString();
  });
  go();
  await settled(page);
  assert.equal(await page.evaluate(() => window.kept.filter((element) => !element.isConnected).length), 0);
  assert.equal(await page.evaluate(() => window.changed), 0);
  assert.ok(await page.evaluate(() => getSelection().toString() === window.selected && window.selected.length > 5));
  assert.equal(await answers(page).getAttribute("aria-busy"), "false");
  // What grew is what comes of the whole at once.
  const grown = await body.innerHTML();
  await page.reload();
  await page.locator("#conversations .open").click();
  assert.equal(await body.innerHTML(), grown);
  assert.deepEqual(await body.locator("> *").evaluateAll((all) => all.map((one) => one.tagName)), ["H4", "P", "OL", "DIV", "DIV", "BLOCKQUOTE", "UL"]);
});

pageTest("the first words are shown at once, however soon after another answer's end they come", {}, async ({ page, mock }) => {
  let number = 0;
  mock.script = async (request, answer) => {
    number += 1;
    answer.delta({ content: `words ${number}` });
    // The second one says no more, so that nothing else makes the page look again.
    if (number > 1) await answer.gone;
    else answer.end();
  };
  await page.locator("#serves dd").first().waitFor();
  // Within one task, as no person could: the second message is sent when the first answer ends.
  await page.evaluate(() => {
    const input = document.getElementById("input");
    const form = document.getElementById("composer");
    const say = () => { input.value = "q"; form.requestSubmit(); };
    new MutationObserver((_, observer) => {
      if (document.querySelector("#announcer").textContent) { observer.disconnect(); say(); }
    }).observe(document.getElementById("announcer"), { childList: true });
    say();
  });
  await answers(page).last().getByText("words 2").waitFor({ timeout: 2000 });
  await page.keyboard.press("Escape");
  await settled(page);
});

pageTest("an answer is stopped by the button and by Escape", {}, async ({ page, mock }) => {
  let gone = 0;
  mock.script = async (request, answer) => {
    answer.gone.then(() => { gone += 1; });
    await answer.say("word ".repeat(5000), { every: 2 });
    answer.end();
  };
  for (const stop of [() => page.getByRole("button", { name: "Stop", exact: true }).click(), () => page.keyboard.press("Escape")]) {
    const before = gone;
    await send(page, "Go on and on");
    await answers(page).last().getByText("word word word").waitFor();
    await stop();
    await settled(page);
    const [last] = (await said(page)).slice(-1);
    assert.match(last, /^word /);
    assert.equal(await answers(page).last().locator(".trouble").textContent(), "Stopped.");
    assert.ok(await page.locator("#input").evaluate((input) => input === document.activeElement));
    for (let wait = 0; gone === before && wait < 50; wait += 1) await page.waitForTimeout(20);
    assert.equal(gone, before + 1, "the request is aborted");
    await page.waitForTimeout(150);
    assert.deepEqual((await said(page)).slice(-1), [last], "nothing comes after a stop");
  }
});

pageTest("a message is edited, which makes a branch", {}, async ({ page, mock }) => {
  for (const text of ["one", "two"]) {
    await send(page, text);
    await settled(page);
  }
  await page.getByRole("button", { name: "Edit this message" }).first().click();
  const area = page.getByRole("textbox", { name: "Edited message" });
  assert.equal(await area.inputValue(), "one");
  await area.fill("nothing");
  await area.press("Escape");
  assert.ok(await page.getByRole("button", { name: "Edit this message" }).first().evaluate((button) => button === document.activeElement));
  assert.equal((await said(page))[0], "one");
  await page.getByRole("button", { name: "Edit this message" }).first().click();
  await area.fill("uno");
  await area.press("Enter");
  await settled(page);
  assert.deepEqual(await said(page), ["uno", "You said: uno"]);
  assert.deepEqual(mock.requests.at(-1).messages, [{ role: "user", content: "uno" }]);
  assert.match(await questions(page).first().locator(".branches").textContent(), /2\/2/);
  await page.getByRole("button", { name: "Previous version" }).click();
  assert.deepEqual(await said(page), ["one", "You said: one", "two", "You said: two"]);
  // Focus is not lost with the message that is replaced.
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Next version");
  await page.keyboard.press("Enter");
  assert.deepEqual(await said(page), ["uno", "You said: uno"]);
});

pageTest("an answer is asked for again, which makes a branch", {}, async ({ page, mock }) => {
  let number = 0;
  mock.script = async (request, answer) => {
    number += 1;
    await answer.say(`answer ${number}`);
    answer.end();
  };
  await send(page, "q");
  await settled(page);
  for (let times = 0; times < 2; times += 1) {
    await page.getByRole("button", { name: "Answer again" }).click();
    await settled(page);
  }
  assert.deepEqual(await said(page), ["q", "answer 3"]);
  assert.deepEqual(mock.requests[2].messages, mock.requests[0].messages);
  const branches = answers(page).locator(".branches");
  assert.match(await branches.textContent(), /Version 3 of 3/);
  assert.ok(await page.getByRole("button", { name: "Next version" }).isDisabled());
  await page.getByRole("button", { name: "Previous version" }).click();
  await send(page, "on");
  await settled(page);
  assert.deepEqual(mock.requests[3].messages.map((message) => message.content), ["q", "answer 2", "on"]);
  // All of it is there after the page is opened anew.
  await page.reload();
  await page.locator("#conversations .open").click();
  assert.deepEqual(await said(page), ["q", "answer 2", "on", "answer 4"]);
  await page.getByRole("button", { name: "Previous version" }).click();
  assert.deepEqual(await said(page), ["q", "answer 1"]);
});

pageTest("conversations are listed, renamed, deleted and taken back", {}, async ({ page }) => {
  for (const text of ["first", "second"]) {
    await page.getByRole("button", { name: "New conversation" }).click();
    await send(page, text);
    await settled(page);
  }
  const names = () => page.locator("#conversations .open").allTextContents();
  assert.deepEqual(await names(), ["second", "first"]);
  await page.getByRole("button", { name: "Rename “first”" }).click();
  await page.getByRole("textbox", { name: "Name of the conversation" }).fill("renamed");
  await page.keyboard.press("Enter");
  assert.deepEqual(await names(), ["second", "renamed"]);
  await page.locator("#conversations .open", { hasText: "renamed" }).click();
  assert.deepEqual(await said(page), ["first", "You said: first"]);
  assert.equal(await page.locator("h1").textContent(), "renamed");
  await page.getByRole("button", { name: "Delete “renamed”" }).click();
  assert.deepEqual(await names(), ["second"]);
  assert.deepEqual(await said(page), []);
  assert.ok(await page.locator("#conversations .open").evaluate((button) => button === document.activeElement));
  await page.getByRole("button", { name: "Undo" }).click();
  assert.deepEqual(await said(page), ["first", "You said: first"]);
  await page.getByRole("button", { name: "Delete “second”" }).click();
  await page.reload();
  assert.deepEqual(await names(), ["renamed"]);
});

pageTest("an answer goes on while another conversation is looked at", {}, async ({ page, mock }) => {
  let go;
  const more = new Promise((resolve) => { go = resolve; });
  mock.script = async (request, answer) => {
    await answer.say("begun ");
    if (request.messages[0].content === "slow") await more;
    await answer.say("and done");
    answer.end();
  };
  await send(page, "slow");
  await answers(page).getByText("begun").waitFor();
  await page.getByRole("button", { name: "New conversation" }).click();
  await send(page, "fast");
  await answers(page).getByText("begun and done").waitFor();
  const slow = page.locator("#conversations .open", { hasText: "slow" });
  assert.equal(await slow.locator(".dot").count(), 1);
  go();
  await slow.locator(".dot").waitFor({ state: "detached" });
  assert.deepEqual(await said(page), ["fast", "begun and done"]);
  await slow.click();
  assert.deepEqual(await said(page), ["slow", "begun and done"]);
});

pageTest("thoughts and calls of tools are parts that open", {}, async ({ page, mock }) => {
  mock.script = async (request, answer) => {
    for (const piece of ["I **thi", "nk** so"]) answer.delta({ reasoning_content: piece });
    answer.delta({ tool_calls: [{ index: 0, id: "c", type: "function", function: { name: "weather", arguments: "" } }] });
    for (const piece of ['{"place":', '"<b>Kiel</b>"}']) answer.delta({ tool_calls: [{ index: 0, function: { arguments: piece } }] });
    answer.end("tool_calls");
  };
  await send(page, "q");
  await settled(page);
  const thoughts = page.locator("details", { hasText: "Thoughts" });
  assert.equal(await thoughts.locator(".thought").isVisible(), false);
  await thoughts.locator("summary").press("Enter");
  assert.equal(await thoughts.locator("strong").textContent(), "think");
  const call = page.locator("details.call");
  assert.equal(await call.locator("summary").textContent(), "Calls weather");
  await call.locator("summary").click();
  assert.equal(await call.locator("pre").textContent(), '{\n  "place": "<b>Kiel</b>"\n}');
  assert.equal(await answers(page).locator(".trouble").textContent(), "");
});

pageTest("settings are sent, kept, and refused where they cannot be", {}, async ({ page, mock }) => {
  const panel = page.getByRole("complementary", { name: "Settings and cache" });
  await panel.getByText("Slots").waitFor();
  assert.equal(await panel.locator("#serves").innerText(), "KV cache\ntq4;recent=32:q8_0\nContext\n8,192 tokens\nDevice\ncpu:threads=2\nSlots\n4");
  assert.equal(await panel.getByLabel("Temperature").getAttribute("placeholder"), "0.8");
  await panel.getByLabel("Model").selectOption("qwen2.5-coder-1.5b");
  await panel.getByLabel("System prompt").fill("Be brief.");
  for (const [name, value] of [["Temperature", "0,5"], ["Top p", "0.9"], ["Min p", "0.1"], ["Max tokens", "64"], ["Seed", "7"]]) await panel.getByLabel(name).fill(value);
  await page.reload();
  await send(page, "q");
  await settled(page);
  const { messages, stream, stream_options, ...rest } = mock.requests[0];
  assert.deepEqual(rest, { model: "qwen2.5-coder-1.5b", temperature: 0.5, top_p: 0.9, min_p: 0.1, max_completion_tokens: 64, seed: 7 });
  assert.deepEqual(messages, [{ role: "system", content: "Be brief." }, { role: "user", content: "q" }]);
  assert.match(await page.locator("#serving").textContent(), /^qwen2\.5-coder-1\.5b · cpu:threads=2 · KV tq4/);
  await panel.getByLabel("Top p").fill("2");
  assert.match(await page.getByRole("alert").textContent(), /Top p is a number from 0 to 1, not “2”/);
  await send(page, "again");
  assert.equal(mock.requests.length, 1);
  assert.equal(await page.locator("#input").inputValue(), "again");
  assert.ok(await panel.getByLabel("Top p").evaluate((field) => field === document.activeElement));
  await panel.getByRole("button", { name: "Use the server's values" }).click();
  await page.locator("#input").press("Enter");
  await settled(page);
  assert.ok(!("top_p" in mock.requests[1]));
});

pageTest("the cache is shown, every two seconds, for as long as it can be seen", {}, async ({ page, mock }) => {
  const bar = page.getByRole("img", { name: "Pages: 12 used, 30 kept for prefixes, 86 free, of 128" });
  await bar.waitFor();
  const widths = await bar.evaluate((element) => [...element.children].map((part) => part.style.width));
  assert.deepEqual(widths, ["9.375%", "23.4375%"]);
  assert.match(await page.locator("#counts").innerText(), /Requests running\n0\nRequests waiting\n2\nTokens read\n567\nTokens reused\n89/);
  mock.pages = { used: 64, kept: 0, free: 64, total: 128 };
  await page.getByRole("img", { name: /^Pages: 64 used/ }).waitFor();
  await page.getByRole("button", { name: "Settings and cache" }).click();
  await page.waitForTimeout(200);
  const looks = mock.looks;
  await page.waitForTimeout(2500);
  assert.equal(mock.looks, looks);
  await page.getByRole("button", { name: "Settings and cache" }).click();
  await page.waitForTimeout(200);
  assert.equal(mock.looks, looks + 1);
});

pageTest("an answer and code are copied", { permissions: ["clipboard-read", "clipboard-write"] }, async ({ page, mock }) => {
  const text = "Say *this*:\n\n```js\nlet a = '<b>';\n```\n";
  mock.script = async (request, answer) => {
    await answer.say(text);
    answer.end();
  };
  await send(page, "q");
  await settled(page);
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  await page.getByRole("button", { name: "Copy this code" }).click();
  assert.equal(await clipboard(), "let a = '<b>';");
  await page.getByRole("button", { name: "Copy this answer" }).click();
  assert.equal(await clipboard(), text);
  assert.equal(await page.locator("#announcer").textContent(), "Copied");
  // As on a page that comes over the network without encryption.
  await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined, configurable: true }));
  await page.getByRole("button", { name: "Copy this message" }).click();
  await page.evaluate(() => delete navigator.clipboard);
  assert.equal(await clipboard(), "q");
});

pageTest("everything is done with the keyboard alone", {}, async ({ page }) => {
  const focused = () => page.evaluate(() => {
    const element = document.activeElement;
    return element.getAttribute("aria-label") || element.id || element.textContent.trim();
  });
  const tabTo = async (name, key = "Tab") => {
    for (let steps = 0; steps < 60; steps += 1) {
      if ((await focused()) === name) return;
      await page.keyboard.press(key);
    }
    assert.fail(`${name} is not reached with ${key}`);
  };
  assert.equal(await focused(), "input");
  await page.keyboard.type("one");
  await page.keyboard.press("Enter");
  await settled(page);
  await tabTo("Answer again", "Shift+Tab");
  await page.keyboard.press("Space");
  await settled(page);
  await tabTo("Previous version", "Shift+Tab");
  await page.keyboard.press("Enter");
  assert.equal(await focused(), "Next version");
  await tabTo("Edit this message", "Shift+Tab");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("two");
  await page.keyboard.press("Enter");
  await settled(page);
  assert.deepEqual(await said(page), ["two", "You said: two"]);
  await tabTo("Rename “one”", "Shift+Tab");
  await page.keyboard.press("Enter");
  await page.keyboard.type("three");
  await page.keyboard.press("Enter");
  assert.equal(await focused(), "Rename “three”");
  await tabTo("Delete “three”");
  await page.keyboard.press("Enter");
  assert.deepEqual(await said(page), []);
  await tabTo("temperature");
  await page.keyboard.type("0");
  await tabTo("Settings and cache", "Shift+Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#panel").isVisible(), false);
  // The first stop of the page leads past everything.
  await tabTo("To the message field", "Shift+Tab");
  assert.equal(await page.evaluate(() => document.querySelector("a, button, input, textarea").className), "skip");
  await page.keyboard.press("Enter");
  await page.keyboard.type("x");
  assert.equal(await page.locator("#input").inputValue(), "x");
});

pageTest("two tabs have the same conversations", {}, async ({ page, mock, context }) => {
  const other = await context.newPage();
  await other.goto(mock.url);
  await send(page, "from here");
  await settled(page);
  await other.locator("#conversations .open", { hasText: "from here" }).click();
  await other.locator("article.assistant").getByText("You said: from here").waitFor();
  await page.getByRole("button", { name: "Delete “from here”" }).click();
  await other.locator("article").first().waitFor({ state: "detached" });
  assert.equal(await other.locator("#conversations li").count(), 0);
});

pageTest("the end is followed, unless somebody reads further up", {}, async ({ page, mock }) => {
  let go;
  const more = new Promise((resolve) => { go = resolve; });
  mock.script = async (request, answer) => {
    await answer.say("line\n\n".repeat(60), { every: 0 });
    await more;
    await answer.say("line\n\n".repeat(60), { every: 0 });
    answer.end();
  };
  await send(page, "q");
  await page.waitForFunction(() => document.querySelectorAll(".markdown p").length === 60);
  const rest = () => page.locator("#scroller").evaluate((element) => Math.round(element.scrollHeight - element.scrollTop - element.clientHeight));
  assert.ok((await rest()) <= 1);
  await page.locator("#scroller").evaluate((element) => element.scrollTo(0, 100));
  await page.getByRole("button", { name: "To the end" }).waitFor();
  go();
  await settled(page);
  assert.equal(await page.locator("#scroller").evaluate((element) => element.scrollTop), 100);
  await page.getByRole("button", { name: "To the end" }).click();
  assert.ok((await rest()) <= 1);
  await page.getByRole("button", { name: "To the end" }).waitFor({ state: "hidden" });
});
