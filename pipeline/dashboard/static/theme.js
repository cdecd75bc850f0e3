// Runs before the page is drawn, so that a chosen theme does not flash. What is not chosen is the system's.
"use strict";
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is blocked: the choice then lasts as long as the page.
}
