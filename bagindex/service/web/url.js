// What the page shows is what its address says: state is read here, and changed here, and nowhere else.

import { useEffect, useState } from "./dom.js";

const OURS = new Set(["/", "/class", "/confusions", "/words", "/map", "/sql", "/picture"]);
// Which index and model are looked at goes from page to page with every link.
const CARRIED = ["index", "model"];
const listeners = new Set();
let scrollTo = null;

history.scrollRestoration = "manual";

/** The present address: `path`, and `query` as URLSearchParams. */
export function address() {
  return { path: location.pathname, query: new URLSearchParams(location.search) };
}

/** The present address, and a new drawing when it changes. */
export function useAddress() {
  const [, redraw] = useState(0);
  useEffect(() => {
    const listener = () => redraw((count) => count + 1);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return address();
}

function written(path, query) {
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** Put values into a query. Nothing, "" and false take one away; a list is put value by value. */
export function put(query, values) {
  for (const [name, value] of Object.entries(values)) {
    query.delete(name);
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "" && each !== false) query.append(name, String(each));
    }
  }
  return query;
}

/** The address of a page, with the index and the model that are looked at. */
export function to(path, values = {}) {
  const present = address().query;
  const query = new URLSearchParams();
  for (const name of CARRIED) if (present.has(name)) query.set(name, present.get(name));
  return written(path, put(query, values));
}

/** The present address with some values changed; null takes one away. */
export function changed(values) {
  const { path, query } = address();
  return written(path, put(query, values));
}

/** Go to an address. */
export function go(href, { replace = false } = {}) {
  const before = location.pathname;
  history.replaceState({ y: scrollY }, "");
  history[replace ? "replaceState" : "pushState"]({}, "", href);
  if (location.pathname !== before) scrollTo = 0;
  tell();
}

/** Change some values of the present address. */
export function change(values, options) {
  go(changed(values), options);
}

/** Scroll to where the page was, or to its top, once what was asked for is drawn. */
export function settleScroll() {
  if (scrollTo === null) return;
  window.scrollTo(0, scrollTo);
  scrollTo = null;
}

function tell() {
  for (const listener of listeners) listener();
}

/** Follow links within the page without loading it anew. */
export function install() {
  addEventListener("popstate", (event) => {
    scrollTo = event.state?.y ?? 0;
    tell();
  });
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest?.("a[href]");
    if (!anchor || event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (anchor.target || anchor.hasAttribute("download") || anchor.origin !== location.origin) return;
    if (!OURS.has(anchor.pathname)) return;
    event.preventDefault();
    go(anchor.href);
  });
}
