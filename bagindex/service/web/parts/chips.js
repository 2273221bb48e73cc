// Small links in a row: classes, words, and a number to each.

import { html } from "../dom.js";
import { useAnswer } from "../api.js";
import { useChoice } from "../choice.js";
import { logit, percent } from "../text.js";
import { change, changed, to } from "../url.js";
import { ClassSearch } from "./search.js";
import { PatchPicture } from "./tiles.js";

/** A link with a number. Args: `current` whether it is what is shown; `number` as text; `title` for a pointer. */
export const Chip = ({ href, current = false, number, title, children }) =>
  html`<a class="chip" href=${href} aria-current=${current ? "true" : undefined} title=${title}>
    <span>${children}</span>
    ${number !== undefined && html`<span class="number">${number}</span>`}
  </a>`;

/** A link to a visual word, with the patch that is most typical of it. Args: as above. */
export function WordChip({ word, number, title }) {
  const choice = useChoice();
  const answer = useAnswer(`/words/${word}`, { index: choice.index, model: choice.model, k: 1 });
  const typical = answer.data?.typical[0];
  return html`<${Chip} href=${to("/words", { word })} number=${number} title=${title}>
    ${typical !== undefined && html`<${PatchPicture} id=${typical} />`} word ${word}
  <//>`;
}

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
