// Elements without HTML in strings, and what several parts of the page need of the browser.

/** Makes an element. Attributes that are null or false are left out; children are nodes, text, or arrays of them. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  // One by one: there may be more than a call takes arguments.
  for (const child of children.flat()) element.append(child);
  return element;
}

/** A drawing of index.html's templates. It says nothing: the button around it has a label. */
export function icon(name) {
  return document.getElementById(`icon-${name}`).content.firstElementChild.cloneNode(true);
}

/** A button with a drawing. Without `text`, the label is its name and its tip. */
export function button({ label, image, text, kind = "quiet" }, action) {
  const attributes = { type: "button", class: kind, title: text ? null : label, "aria-label": text ? null : label };
  const element = el("button", attributes, ...(image ? [icon(image)] : []), ...(text ? [text] : []));
  element.addEventListener("click", action);
  return element;
}

/** Tells those who cannot see it. The text is taken away again, so that it is not read twice when somebody goes through the page. */
export function announce(text) {
  const region = document.getElementById("announcer");
  region.textContent = text;
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => { region.textContent = ""; }, 10_000);
}

/** Copies a text and shows at the button whether that went well. */
export async function copyText(text, control) {
  let worked = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers give the clipboard to pages of this machine and of https alone; others have the older way.
    worked = copyBySelection(text);
  }
  announce(worked ? "Copied" : "The browser does not let this page copy");
  const drawing = control.querySelector("svg");
  const shown = icon(worked ? "done" : "failed");
  drawing.replaceWith(shown);
  setTimeout(() => shown.replaceWith(drawing), 1500);
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const area = el("textarea", { class: "offscreen", readonly: true });
  area.value = text;
  document.body.append(area);
  area.select();
  const worked = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return worked;
}

/** A number for people: thousands set apart. */
export const count = (number) => number.toLocaleString("en");

/** Lets a text area be as high as its text, up to the style's limit. */
export function fit(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}
