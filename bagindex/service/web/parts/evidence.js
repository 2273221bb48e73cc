// What speaks for two classes in an image: the sum, its patches and its words.

import { html } from "../dom.js";
import { useChoice } from "../choice.js";
import { count, percent, signed } from "../text.js";
import { Chips, WordChip } from "./chips.js";
import { Tiles } from "./tiles.js";

/** The margin between two classes, part by part, as `/why` gives it.
 *  Args: `draw({parts, label})` draws patches; by default as those of the index. */
export function Account({ why, draw = Parts }) {
  const sides = [
    ["for", why.class],
    ["against", why.against ?? `not ${why.class}`],
  ];
  return html`<p>${why.said}</p>
    <p class="faint">Below each patch: what it adds to the difference of the two logits.</p>
    ${sides.map(
      ([side, name]) =>
        html`<section key=${side} class=${side}>
          <h4>For ${name}</h4>
          ${draw({ parts: parts(why, "patch", side), label: `Patches for ${name}` })}
          <${Words} parts=${parts(why, "word", side)} />
        </section>`,
    )}`;
}

const parts = (why, what, side) => why.parts.filter((part) => part.what === what && part.side === side);

/** A patch's or a word's part of a sum: what it adds to the mean, and which share of it that is. */
const worth = (part) =>
  `${signed(part.contribution, 3)}${Math.abs(part.share ?? 9) < 9 ? ` · ${percent(Math.abs(part.share))}` : ""}`;

const Parts = ({ parts: found, label }) =>
  found.length
    ? html`<${Tiles}
        label=${label}
        size="compact"
        items=${found.map((part) => ({
          id: part.patch_id,
          said: signed(part.contribution, 3),
          title: `adds ${worth(part)} of the margin · row ${part.row}, column ${part.col}`,
          name: `Row ${part.row}, column ${part.col}, adds ${signed(part.contribution, 3)}`,
        }))}
      />`
    : html`<p class="faint">No patch.</p>`;

function Words({ parts: found }) {
  const choice = useChoice();
  if (!found.length || !choice.described.words) return null;
  return html`<${Chips}>
    ${found.map(
      (part) =>
        html`<${WordChip}
          key=${part.word}
          word=${part.word}
          number=${signed(part.contribution, 3)}
          title=${`adds so much with ${count(part.patches, "patch", "patches")} of this image`}
        />`,
    )}
  <//>`;
}
