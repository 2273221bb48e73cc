// Small links in a row: classes, words, and a number to each.

import { html } from "../dom.js";
import { logit, percent } from "../text.js";
import { change, changed } from "../url.js";
import { ClassSearch } from "./search.js";

/** A link with a number. Args: `current` whether it is what is shown; `number` as text; `title` for a pointer. */
export const Chip = ({ href, current = false, number, title, children }) =>
  html`<a class="chip" href=${href} aria-current=${current ? "true" : undefined} title=${title}>
    <span>${children}</span>
    ${number !== undefined && html`<span class="number">${number}</span>`}
  </a>`;

/** Chips behind a word that says what they are. */
export const Chips = ({ title, children }) =>
  html`<p class="chips">${title && html`<span class="faint">${title}:</span>`} ${children}</p>`;

/** Choose the class whose evidence is shown.
 *  Args: `classes` have a `class`, and perhaps a `probability` and a `logit`; `name` is the one that is shown. */
export const ClassSwitch = ({ classes, name }) =>
  html`<div class="chips" role="group" aria-label="Show evidence for">
    ${classes.map(
      (each) =>
        html`<${Chip}
          key=${each.class}
          href=${changed({ show: each.class })}
          current=${each.class === name}
          number=${each.probability === undefined ? undefined : percent(each.probability)}
          title=${each.logit === undefined ? undefined : `logit ${logit(each.logit)}`}
        >
          ${each.class}
        <//>`,
    )}
    <${ClassSearch} label="Another class" hidden hint="another class…" chosen=${(show) => change({ show })} />
  </div>`;
