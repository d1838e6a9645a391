// How the page looks, and what it is to those who cannot see it, in a browser.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { answers, pageTest, send, settled, shot } from "./browser.mjs";

const example = await readFile(new URL("example.md", import.meta.url), "utf8");

/** A conversation with all that there is to see. */
async function fill({ page, mock }) {
  mock.script = async (request, answer) => {
    if (/unbroken/.test(request.messages.at(-1).content)) {
      await answer.say(`${"x".repeat(300)} https://example.com/${"y".repeat(200)} \`${"z".repeat(200)}\``, { every: 0, size: 50 });
      // What has come is to be read before the connection breaks.
      await answer.pause(300);
      return answer.cut();
    }
    answer.delta({ reasoning_content: "They ask about **lighthouses**.\n\n- A table would help" });
    answer.delta({ tool_calls: [{ index: 0, id: "c", type: "function", function: { name: "lights_near", arguments: '{"place":"Kiel","within_miles":20}' } }] });
    await answer.say(example, { every: 0, size: 40 });
    return answer.end("length");
  };
  await send(page, "What is a lighthouse for?");
  await settled(page);
  await page.getByRole("button", { name: "Answer again" }).click();
  await settled(page);
}

/** The contrast of every text on show with what is behind it, the lowest first. */
const contrasts = (page) => page.evaluate(() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, index) => value * a + below[index] * (1 - a));
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), rgba("Canvas").slice(0, 3));
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const take = (element, colour, text) => {
    const paper = behind(element);
    const [dark, light] = [luminance(over(rgba(colour), paper)), luminance(paper)].sort((a, b) => a - b);
    found.push({ ratio: Math.round(((light + 0.05) / (dark + 0.05)) * 100) / 100, text: text.trim().slice(0, 40) });
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const visible = element.checkVisibility({ visibilityProperty: true }) && !element.closest(".offscreen, template, :disabled");
    if (visible && walker.currentNode.data.trim()) take(element, getComputedStyle(element).color, walker.currentNode.data);
  }
  for (const field of document.querySelectorAll("input, textarea")) {
    if (field.placeholder) take(field, getComputedStyle(field, "::placeholder").color, `placeholder ${field.placeholder}`);
    if (field.type !== "radio") take(field, getComputedStyle(field).color, `field ${field.id}`);
  }
  for (const drawing of document.querySelectorAll("button:enabled svg")) {
    if (drawing.checkVisibility()) take(drawing, getComputedStyle(drawing).stroke, `drawing of ${drawing.parentElement.getAttribute("aria-label")}`);
  }
  return found.sort((a, b) => a.ratio - b.ratio);
});

for (const scheme of ["light", "dark"]) {
  pageTest(`texts can be read in ${scheme}`, { colorScheme: scheme, expects: [/ERR_/] }, async (all) => {
    const { page } = all;
    await shot(page, `${scheme}-welcome`);
    await fill(all);
    for (const summary of await page.locator("summary").all()) await summary.click();
    await page.locator("#top_p").fill("2");
    await page.getByRole("alert").getByText("Top p").waitFor();
    await page.locator("#scroller").evaluate((element) => element.scrollTo(0, 0));
    await page.mouse.move(400, 400);
    await shot(page, `${scheme}-top`);
    const low = (await contrasts(page)).filter(({ ratio }) => ratio < 4.5);
    assert.deepEqual(low, []);
    await page.locator("#top_p").fill("");
    await send(page, "Something unbroken, please");
    await settled(page);
    await page.getByRole("button", { name: /^Delete/ }).waitFor();
    const seen = await contrasts(page);
    assert.ok(seen.length > 60, `${seen.length} texts are looked at`);
    assert.deepEqual(seen.filter(({ ratio }) => ratio < 4.5), []);
    await shot(page, `${scheme}-end`);
  });
}

pageTest("the switch decides, also before the first paint", { colorScheme: "light" }, async ({ page }) => {
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await paper();
  await page.getByRole("radio", { name: "Light" }).focus();
  await page.keyboard.press("ArrowRight");
  const dark = await paper();
  assert.notEqual(dark, light);
  await page.reload({ waitUntil: "commit" });
  await page.waitForFunction(() => document.body);
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
  assert.equal(await paper(), dark);
  await page.getByRole("radio", { name: "System" }).check();
  assert.equal(await paper(), light);
});

const overflow = (page) => page.evaluate(() => {
  const width = document.documentElement.clientWidth;
  // What lies in a part that scrolls by itself may be wider.
  const wide = [...document.querySelectorAll("body *")].filter((element) => {
    const box = element.getBoundingClientRect();
    const visible = element.checkVisibility() && box.width > 0 && !element.matches(".offscreen, .skip");
    return visible && (box.right > width + 0.5 || box.left < -0.5) && !element.parentElement.closest("pre, .table");
  });
  const scroller = document.getElementById("scroller");
  const sideways = document.documentElement.scrollWidth > width || scroller.scrollWidth > scroller.clientWidth;
  return { sideways, wide: wide.map((element) => `${element.tagName}.${element.className}`) };
});

for (const width of [320, 390, 800]) {
  pageTest(`nothing scrolls sideways at a width of ${width}`, { viewport: { width, height: 640 }, hasTouch: width < 500, expects: [/ERR_/] }, async (all) => {
    const { page } = all;
    const none = { sideways: false, wide: [] };
    assert.deepEqual(await overflow(page), none);
    await fill(all);
    for (const summary of await page.locator("summary").all()) await summary.click();
    assert.deepEqual(await overflow(page), none);
    await page.locator("#scroller").evaluate((element) => element.scrollTo(0, 0));
    await shot(page, `${width}-top`);
    await send(page, `An unbroken ${"word".repeat(60)}`);
    await settled(page);
    assert.deepEqual(await overflow(page), none);
    await page.getByRole("button", { name: "Edit this message" }).last().click();
    assert.deepEqual(await overflow(page), none);
    await page.keyboard.press("Escape");
    await shot(page, `${width}-end`);
    for (const name of ["Settings and cache", "Conversations"]) {
      await page.getByRole("button", { name, exact: true }).click();
      assert.deepEqual(await overflow(page), none);
      await shot(page, `${width}-${name.split(" ")[0].toLowerCase()}`);
      // What lies under a drawer cannot be reached, and Escape leads back to the button that opened it.
      assert.ok(await page.locator("#main").evaluate((main) => main.inert));
      assert.equal(await page.evaluate(() => document.activeElement.closest("nav, aside") !== null), true);
      await page.keyboard.press("Escape");
      assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), name);
    }
    await page.getByRole("button", { name: "Conversations", exact: true }).click();
    await page.locator("#conversations .open").click();
    assert.equal(await page.locator("#sidebar").isVisible(), false);
  });
}

pageTest("who wants no motion sees none", { reducedMotion: "reduce" }, async ({ page, mock }) => {
  mock.script = async (request, answer) => {
    await answer.pause(800);
    answer.end();
  };
  await send(page, "q");
  await page.locator("article.waits").waitFor();
  const moving = await page.evaluate(() => document.getAnimations().length);
  assert.equal(moving, 0);
});

pageTest("everything has a name and a place", {}, async (all) => {
  const { page } = all;
  await fill(all);
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input, textarea, select, a, summary, [role]")].filter((element) => {
    const labels = element.labels?.length ? element.labels[0].textContent : "";
    const live = element.matches("[role=status], [role=alert]");
    return !live && !(element.getAttribute("aria-label") || element.getAttribute("aria-labelledby") || labels || element.textContent).trim();
  }).map((element) => element.outerHTML));
  assert.deepEqual(nameless, []);
  for (const [role, name] of [["main", undefined], ["navigation", "Conversations"], ["complementary", "Settings and cache"], ["region", "Messages"]]) {
    assert.equal(await page.getByRole(role, name ? { name } : {}).count(), 1, role);
  }
  assert.deepEqual(await page.locator("h1").allTextContents(), ["What is a lighthouse for?"]);
  assert.deepEqual(await page.locator("#log h2").allTextContents(), ["You", "Answer"]);
  const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map((element) => element.id));
  assert.equal(new Set(ids).size, ids.length);
  for (const name of await page.locator("[aria-controls], [aria-describedby], [aria-labelledby]").evaluateAll((found) => found.flatMap((element) => ["aria-controls", "aria-describedby", "aria-labelledby"].map((key) => element.getAttribute(key)).filter(Boolean)))) {
    assert.ok(ids.includes(name), name);
  }
  assert.equal(await answers(page).getByRole("table").count(), 1);
  // Where focus is, is seen, whatever has it.
  const unseen = [];
  for (const control of await page.locator("button:visible:enabled, input:visible, select:visible, textarea:visible, summary:visible, a:visible").all()) {
    await control.focus();
    await page.keyboard.press("Shift");
    const seen = await control.evaluate((element) => {
      const shown = (one) => one && (getComputedStyle(one).outlineStyle !== "none" || getComputedStyle(one).boxShadow !== "none");
      return shown(element) || shown(element.nextElementSibling) || shown(element.closest("#composer"));
    });
    if (!seen) unseen.push(await control.evaluate((element) => element.outerHTML));
  }
  assert.deepEqual(unseen, []);
});

pageTest("a conversation as somebody sees it", { viewport: { width: 1360, height: 860 } }, async (all) => {
  const { page, mock } = all;
  await fill(all);
  mock.script = async (request, answer) => {
    await answer.say("Up to **21 nautical miles**, where the air is clear: the ", { every: 0 });
    await answer.gone;
  };
  await send(page, "How far is its light seen?");
  await answers(page).last().getByText("where the air").waitFor();
  await shot(page, "writing");
  await page.keyboard.press("Escape");
  await settled(page);
});
