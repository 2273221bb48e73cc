// Runs before anything is drawn, so that a chosen theme does not flash the other one.
try {
  const chosen = localStorage.getItem("bagindex-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  /* a browser that keeps nothing has the system's theme */
}
