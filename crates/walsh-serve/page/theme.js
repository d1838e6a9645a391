// Not a module: it runs before the first paint, so that a page that is set to dark does not flash.
"use strict";
{
  let chosen = "auto";
  try {
    chosen = localStorage.getItem("walsh.theme") ?? "auto";
  } catch {
    // Storage is refused: the system's scheme it is.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
