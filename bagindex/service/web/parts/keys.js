// Single keys that do something, where no field has the focus. They can be switched off: whoever speaks to the machine
// says letters by accident (WCAG 2.1.4).

import { useEffect, useRef } from "../dom.js";

const STORED = "bagindex-keys";
// Where letters are written, or choose something; a box that is ticked has no use for them.
const TYPED = 'input:not([type="checkbox"], [type="radio"]), select, textarea, [contenteditable]';

export function keysOn() {
  try {
    return localStorage.getItem(STORED) !== "off";
  } catch {
    return true;
  }
}

export function switchKeys(on) {
  try {
    localStorage.setItem(STORED, on ? "on" : "off");
  } catch {
    // a browser that keeps nothing has them on
  }
}

/** Do something on a key: `{key: function}`. Escape works everywhere. */
export function useKeys(actions) {
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    const pressed = (event) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      const action = latest.current[event.key];
      if (!action || document.querySelector("dialog[open]")) return;
      if (event.key !== "Escape" && (!keysOn() || event.target.closest?.(TYPED))) return;
      event.preventDefault();
      action();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
}
