// What stands on top of every page about one class.

import { html } from "../dom.js";
import { addressOf, useAnswer } from "../api.js";
import { useChoice } from "../choice.js";
import { count, percent } from "../text.js";
import { to } from "../url.js";
import { Chip, Chips } from "./chips.js";
import { Problem } from "./said.js";

const MIXED_UP = 5;
const KNOWN = 40;
const FILES = ["png", "svg", "pdf"];

/** A page about a class: its name, how often the model gets it right, what it is mixed up with, its pages, and what is
 *  in this one; of a class that there is not, only that. */
export function AboutClass({ name, page, children }) {
  const choice = useChoice();
  const about = { index: choice.index, model: choice.model };
  const answer = useAnswer(choice.labelled ? "/confusion-matrix" : null, { ...about, class: name, k: KNOWN });
  const matrix = answer.data;
  const place = matrix ? placeOf(name, matrix.classes) : -1;
  const file = (kind) => addressOf(`/figure3.${kind}`, { index: choice.index, class: name });
  const pages = [
    ["/class", "Patches"],
    // Both are about images of the class, and of others.
    ...(choice.labelled
      ? [
          ["/words", "Words"],
          ["/confusions", "Confusions"],
        ]
      : []),
  ];
  if (answer.error) {
    return html`<h1 tabindex="-1">${name}</h1>
      <${Problem} error=${answer.error} />
      <p><a href=${to("/")}>All classes</a></p>`;
  }
  return html`<div class="class-head">
      <h1 tabindex="-1">${place < 0 ? name : matrix.classes[place].class}</h1>
      ${place >= 0 && html`<${Numbers} matrix=${matrix} place=${place} />`}
      <div class="under-head">
        <nav class="tabs" aria-label=${`About ${name}`}>
          ${pages.map(
            ([where, title]) =>
              html`<a
                key=${where}
                href=${to(where, { class: name })}
                aria-current=${where === page ? "page" : undefined}
                >${title}</a
              >`,
          )}
        </nav>
        <p class="faint">
          This as a figure:
          ${FILES.map(
            (kind) =>
              html`<a key=${kind} href=${file(kind)} download=${`${plain(`${name} ${choice.index}`)}.${kind}`}
                >${kind.toUpperCase()}</a
              > `,
          )}
          · <a href=${addressOf("/report.html", { index: choice.index, class: name })} target="_blank">report</a>
        </p>
      </div>
    </div>
    ${children}`;
}

/** Where a class stands in a list; its name may be in capitals, or be its number. */
function placeOf(name, classes) {
  const fits = [
    (each) => each.class === name,
    (each) => each.class.toLowerCase() === name.toLowerCase(),
    (each) => String(each.class_id) === name,
  ];
  return fits.reduce((place, fit) => (place < 0 ? classes.findIndex(fit) : place), -1);
}

/** How often the model is right, and what it takes for what. */
function Numbers({ matrix, place }) {
  const own = matrix.classes[place];
  const right = own.images && percent(own.correct / own.images);
  const others = (images) =>
    matrix.classes
      .map((each, at) => ({ name: each.class, images: at === place ? 0 : images(at) }))
      .filter((each) => each.images)
      .sort((one, two) => two.images - one.images);
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
      more=${to("/confusions", { class: own.class })}
    />
    <${Mixed}
      title=${`taken for ${own.class}`}
      pairs=${others((at) => matrix.counts[at][place])}
      href=${(name) => to("/confusions", { label: name, predicted: own.class })}
      more=${to("/confusions", { class: own.class })}
    />`;
}

const Mixed = ({ title, pairs, href, more }) =>
  pairs.length > 0 &&
  html`<${Chips} title=${title}>
    ${pairs
      .slice(0, MIXED_UP)
      .map((each) => html`<${Chip} key=${each.name} href=${href(each.name)} number=${each.images}>${each.name}<//>`)}
    ${pairs.length > MIXED_UP && html`<a class="faint" href=${more}>and ${pairs.length - MIXED_UP} more</a>`}
  <//>`;

/** A name that any file system takes. */
const plain = (text) => text.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 80);
