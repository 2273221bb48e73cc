// Preact, and templates in which white space means what it means in HTML.

import { html as template } from "./preact.js";

export * from "./preact.js";

const read = new WeakMap();

/** A template of HTML. By itself, htm drops white space that has a line break in it, so that words run together where
 *  a line is broken; here that is a space, as in a page, except at the template's ends. */
export function html(strings, ...values) {
  let found = read.get(strings);
  if (!found) {
    const last = strings.length - 1;
    found = strings.map((text, place) => {
      const begun = place === 0 ? text.replace(/^\s*\n\s*/, "") : text;
      const ended = place === last ? begun.replace(/\s*\n\s*$/, "") : begun;
      return ended.replace(/\s*\n\s*/g, " ");
    });
    read.set(strings, found);
  }
  return template(found, ...values);
}
