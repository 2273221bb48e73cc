// What stands on top of every page about one class.

import { html } from "../dom.js";
import { addressOf, useAnswer } from "../api.js";
import { useChoice } from "../choice.js";
import { count, percent } from "../text.js";
import { to } from "../url.js";
import { Chip, Chips } from "./chips.js";
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
  const file = (kind) => addressOf(`/figure3.${kind}`, { index: choice.index, class: name });
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
        ${pages.map(
          ([where, title]) =>
            html`<a key=${where} href=${to(where, { class: name })} aria-current=${where === page ? "page" : undefined}
              >${title}</a
            >`,
        )}
      </nav>
      <p class="faint">
        Figure 3 as
        ${FILES.map(
          (kind) => html`<a key=${kind} href=${file(kind)} download=${`figure3.${kind}`}>${kind.toUpperCase()}</a> `,
        )}
        · <a href=${addressOf("/report.html", { index: choice.index, class: name })} target="_blank">report</a>
      </p>
    </div>
  </div>`;
}

/** How often the model is right, and what it takes for what. */
function Numbers({ matrix, place }) {
  const own = matrix.classes[place];
  const right = own.images && percent(own.correct / own.images);
  const others = (images) =>
    matrix.classes
      .map((each, at) => ({ name: each.class, images: at === place ? 0 : images(at) }))
      .filter((each) => each.images)
      .sort((one, two) => two.images - one.images)
      .slice(0, MIXED_UP);
  return html`<p>
      ${
        own.images
          ? `${count(own.images, "image")}; the model recognises ${own.correct} (${right}).`
          : "No image has this label."
      }
    </p>
    <${Mixed}
      title=${`${own.class} taken for`}
      pairs=${others((at) => matrix.counts[place][at])}
      href=${(name) => to("/confusions", { label: own.class, predicted: name })}
    />
    <${Mixed}
      title=${`taken for ${own.class}`}
      pairs=${others((at) => matrix.counts[at][place])}
      href=${(name) => to("/confusions", { label: name, predicted: own.class })}
    />`;
}

const Mixed = ({ title, pairs, href }) =>
  pairs.length > 0 &&
  html`<${Chips} title=${title}>
    ${pairs.map((each) => html`<${Chip} key=${each.name} href=${href(each.name)} number=${each.images}>${each.name}<//>`)}
  <//>`;
