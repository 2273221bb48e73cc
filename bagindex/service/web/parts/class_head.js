// What stands on top of every page about one class.

import { html } from "../dom.js";
import { addressOf, useAnswer } from "../api.js";
import { useChoice } from "../choice.js";
import { count, percent } from "../text.js";
import { to } from "../url.js";
import { Problem } from "./said.js";

const MIXED_UP = 5;
const FILES = ["png", "svg", "pdf"];

/** The class's name, how often the model gets it right, what it is mixed up with, and its pages. */
export function ClassHead({ name, page }) {
  const choice = useChoice();
  const about = { index: choice.index, model: choice.model };
  const answer = useAnswer(choice.labelled ? "/confusion-matrix" : null, { ...about, class: name, k: 12 });
  const matrix = answer.data;
  const place = matrix?.classes.findIndex((each) => each.class === name) ?? -1;
  const pages = [
    ["/class", "Patches"],
    ["/words", "Words"],
    ...(choice.labelled ? [["/confusions", "Confusions"]] : []),
  ];
  return html`<div class="class-head">
    <h1 tabindex="-1">${name}</h1>
    ${answer.error && html`<${Problem} error=${answer.error} />`}
    ${place >= 0 && html`<${Numbers} matrix=${matrix} place=${place} />`}
    <div class="under-head">
      <nav class="tabs" aria-label=${`About ${name}`}>
        ${pages.map(([where, title]) => html`<a key=${where} href=${to(where, { class: name })} aria-current=${where === page ? "page" : undefined}>${title}</a>`)}
      </nav>
      <p class="faint">
        Figure 3 as
        ${FILES.map((kind) => html` <a key=${kind} href=${addressOf(`/figure3.${kind}`, { index: choice.index, class: name })} download=${`figure3.${kind}`}>${kind.toUpperCase()}</a>`)}
        · <a href=${addressOf("/report.html", { index: choice.index, class: name })} target="_blank">report</a>
      </p>
    </div>
  </div>`;
}

function Numbers({ matrix, place }) {
  const own = matrix.classes[place];
  const others = (pairs) =>
    pairs
      .filter((each) => each.images)
      .sort((one, two) => two.images - one.images)
      .slice(0, MIXED_UP);
  const takenFor = others(
    matrix.classes.map((each, at) => ({ name: each.class, images: at === place ? 0 : matrix.counts[place][at] })),
  );
  const mistaken = others(
    matrix.classes.map((each, at) => ({ name: each.class, images: at === place ? 0 : matrix.counts[at][place] })),
  );
  return html`<p>
      ${own.images ? `${count(own.images, "image")}; the model recognises ${own.correct} (${percent(own.correct / own.images)}).` : "No image has this label."}
    </p>
    <${Chips}
      title=${`${own.class} taken for`}
      pairs=${takenFor}
      href=${(each) => to("/confusions", { label: own.class, predicted: each.name })}
    />
    <${Chips}
      title=${`taken for ${own.class}`}
      pairs=${mistaken}
      href=${(each) => to("/confusions", { label: each.name, predicted: own.class })}
    />`;
}

const Chips = ({ title, pairs, href }) =>
  pairs.length > 0 &&
  html`<p class="mixed">
    <span class="faint">${title}:</span>
    ${pairs.map((each) => html`<a key=${each.name} class="chip" href=${href(each)}>${each.name} <span class="number">${each.images}</span></a>`)}
  </p>`;
