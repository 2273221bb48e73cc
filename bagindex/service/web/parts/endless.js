// Lists that go on as one scrolls.

import { html, useEffect, useRef, useState } from "../dom.js";
import { addressOf, ask } from "../api.js";

const lists = new Map();
const KEPT = 60;

/** The pages of an answer so far, put together: `{items, first, done, waiting, error, more}`.
 *  What was loaded stays, so that one comes back to the same place; `path` null asks nothing.
 *  Args: `count` is the name of the parameter that says how many, `of` the answer's list. */
export function usePages(path, values, { size, count = "k", of }) {
  const key = path && addressOf(path, values) + `#${size}`;
  const [, redraw] = useState(0);
  if (key && !lists.has(key)) {
    lists.set(key, { items: [], first: null, done: false, waiting: false, error: null });
    if (lists.size > KEPT) lists.delete(lists.keys().next().value);
  }
  const list = key ? lists.get(key) : { items: [], first: null, done: true, waiting: false, error: null };
  const shown = useRef(null);
  shown.current = list;
  const more = () => {
    if (list.done || list.waiting) return;
    list.waiting = true;
    list.error = null;
    const tell = () => shown.current === list && redraw((number) => number + 1);
    ask(path, { ...values, [count]: size, offset: list.items.length }).promise.then(
      (answer) => {
        const found = answer[of];
        list.first ??= answer;
        list.items = [...list.items, ...found];
        list.done = found.length < size;
        list.waiting = false;
        tell();
      },
      (error) => {
        Object.assign(list, { error, waiting: false, done: true });
        tell();
      },
    );
    tell();
  };
  useEffect(() => {
    if (list.error) Object.assign(list, { error: null, done: false }); // it may have passed
    if (key && !list.items.length) more();
  }, [key]);
  return { ...list, more };
}

/** Stands at the end of a list, and calls `reached` whenever it comes near. */
export function End({ reached, at }) {
  const place = useRef(null);
  const latest = useRef(reached);
  latest.current = reached;
  useEffect(() => {
    const watcher = new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && latest.current(), {
      rootMargin: "400px",
    });
    watcher.observe(place.current);
    return () => watcher.disconnect();
  }, [at]);
  return html`<div class="end" ref=${place} />`;
}

/** Whether an element has come near yet: `[ref, near]`. */
export function useNear() {
  const place = useRef(null);
  const [near, setNear] = useState(false);
  useEffect(() => {
    if (near || !place.current) return undefined;
    const watcher = new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && setNear(true), {
      rootMargin: "300px",
    });
    watcher.observe(place.current);
    return () => watcher.disconnect();
  }, [near]);
  return [place, near];
}
