// Preact, and templates in which white space means what it means in HTML.

import { html as template } from "./preact.js";

export * from "./preact.js";

const read = new WeakMap();

/** A template of HTML. By itself, htm drops white space that has a line break in it, so that where a line is broken
 *  words run together; here that is a space, as in a page. */
export function html(strings, ...values) {
  let found = read.get(strings);
  if (!found) {
    const last = strings.length - 1;
    found = strings.map((text, place) => {
      const whole = text.replace(/\s*\n\s*/g, " ");
      return place === 0 ? (last ? whole.trimStart() : whole.trim()) : place === last ? whole.trimEnd() : whole;
    });
    read.set(strings, found);
  }
  return template(found, ...values);
}
