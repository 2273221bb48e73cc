// What is taken for what: a matrix whose cells open the images, and the patches that decide them.

import { html, useEffect, useMemo } from "../dom.js";
import { imagePicture, useAnswer } from "../api.js";
import { useChoice } from "../choice.js";
import { count, logit, percent, whole } from "../text.js";
import { change, changed, to } from "../url.js";
import { ClassHead } from "../parts/class_head.js";
import { End, usePages } from "../parts/endless.js";
import { Picture } from "../parts/picture.js";
import { Nothing, Problem, Waiting } from "../parts/said.js";
import { ClassSearch } from "../parts/search.js";
import { Tiles } from "../parts/tiles.js";

const SIZES = [10, 20, 40];
const LISTED = 15;
const IMAGES = 6;
const PATCHES = 4;

export function ConfusionsPage({ query }) {
  const label = query.get("label");
  const predicted = query.get("predicted");
  return label !== null && predicted !== null
    ? html`<${Pair} key=${`${label} ${predicted}`} label=${label} predicted=${predicted} />`
    : html`<${Matrix} query=${query} />`;
}

function Matrix({ query }) {
  const choice = useChoice();
  const around = query.get("class");
  const k = SIZES.includes(Number(query.get("k"))) ? Number(query.get("k")) : 20;
  const answer = useAnswer("/confusion-matrix", { index: choice.index, model: choice.model, class: around, k });
  useEffect(() => {
    document.title = `Confusions${around === null ? "" : ` of ${around}`} · ${choice.index} · bagindex`;
  }, [around, choice.index]);
  const found = answer.data;
  return html`${
      around === null
        ? html`<h1 tabindex="-1">What is taken for what</h1>`
        : html`<${ClassHead} name=${around} page="/confusions" />`
    }
    <div class="filters">
      <${ClassSearch}
        label="Around the class"
        value=${around ?? ""}
        clear
        hint="all classes"
        chosen=${(name) => change({ class: name }, { replace: true })}
      />
      ${
        choice.classes > SIZES[0] &&
        html`<label
          >Classes shown
          <select value=${k} onChange=${(event) => change({ k: event.target.value }, { replace: true })}>
            ${SIZES.map((each) => html`<option key=${each}>${each}</option>`)}
          </select></label
        >`
      }
    </div>
    ${answer.error && html`<${Problem} error=${answer.error} />`}
    ${
      found
        ? html`<p>
              ${count(found.wrong, "image")} of the index ${found.wrong === 1 ? "is" : "are"} classified wrong; the
              cells off the diagonal show ${whole(found.shown)} of them. A cell opens its images and the patches that
              decide them.
            </p>
            <div class="beside">
              <${Cells} of=${found} />
              <section>
                <h2>The most frequent</h2>
                <${Frequent} of=${found} />
              </section>
            </div>`
        : !answer.error && html`<${Waiting} />`
    }`;
}

function Cells({ of }) {
  const names = of.classes.map((each) => each.class);
  const strength = (row, column) => Math.sqrt(of.counts[row][column] / Math.max(1, of.classes[row].images));
  return html`<div class="wide" tabindex="0" role="region" aria-label="Confusion matrix, scrolls sideways">
    <table class="matrix">
      <caption class="unseen">
        How many images with the label of the row are predicted as the class of the column
      </caption>
      <thead>
        <tr>
          <th scope="col" class="corner"><span>label ↓</span> <span>predicted →</span></th>
          ${names.map((name) => html`<th key=${name} scope="col"><span>${name}</span></th>`)}
          ${of.others.some(Boolean) && html`<th scope="col"><span class="faint">another</span></th>`}
        </tr>
      </thead>
      <tbody>
        ${of.classes.map(
          (each, row) =>
            html`<tr key=${each.class}>
              <th scope="row">
                <a href=${to("/class", { class: each.class })}>${each.class}</a>
                <span class="faint number">${each.images}</span>
              </th>
              ${names.map((name, column) => {
                const images = of.counts[row][column];
                const kind = row === column ? "same" : "other";
                return html`<td
                  key=${name}
                  class=${images ? kind : ""}
                  style=${{ "--strength": strength(row, column) }}
                >
                  ${
                    images
                      ? html`<a
                          href=${row === column ? to("/class", { class: name, images: "right_class", predicted_as: name }) : to("/confusions", { label: each.class, predicted: name })}
                          aria-label=${`${count(images, "image")} of ${each.class} predicted as ${name}`}
                          >${images}</a
                        >`
                      : html`<span class="faint">·</span>`
                  }
                </td>`;
              })}
              ${of.others.some(Boolean) && html`<td><span class="faint">${of.others[row] || "·"}</span></td>`}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function Frequent({ of }) {
  const pairs = of.classes
    .flatMap((label, row) =>
      of.classes.map((predicted, column) => ({
        label,
        predicted,
        images: row === column ? 0 : of.counts[row][column],
      })),
    )
    .filter((each) => each.images)
    .sort((one, two) => two.images - one.images)
    .slice(0, LISTED);
  return pairs.length
    ? html`<ol class="plain-list">
        ${pairs.map(
          ({ label, predicted, images }) =>
            html`<li>
              <a href=${to("/confusions", { label: label.class, predicted: predicted.class })}
                >${label.class} → ${predicted.class}</a
              >
              <span class="faint">${count(images, "image")}, ${percent(images / label.images)} of ${label.class}</span>
            </li>`,
        )}
      </ol>`
    : html`<${Nothing}>None of these is taken for another.</${Nothing}>`;
}

/** The images of one class that are taken for another. */
function Pair({ label, predicted }) {
  const choice = useChoice();
  const about = { index: choice.index, model: choice.model };
  const list = usePages(
    "/explain/confused",
    { ...about, label, predicted, patches: PATCHES },
    { size: IMAGES, of: "explanations" },
  );
  const matrix = useAnswer("/confusion-matrix", { ...about, class: label, k: 2 });
  const decided = useAnswer(choice.described.words ? "/confusions" : null, { ...about, k: 1000 });
  const pair = decided.data?.confusions.find((each) => each.label === label && each.predicted === predicted);
  const own = matrix.data?.classes.find((each) => each.class === label);
  useEffect(() => {
    document.title = `${label} taken for ${predicted} · ${choice.index} · bagindex`;
  }, [label, predicted, choice.index]);
  return html`<h1 tabindex="-1">
      <a href=${to("/class", { class: label })}>${label}</a> taken for
      <a href=${to("/class", { class: predicted })}>${predicted}</a>
    </h1>
    ${pair && html`<p>${count(pair.images, "image")}${own ? `, ${percent(pair.share)} of the ${whole(own.images)} of ${label}` : ""}. Those come first of which the model is most sure.</p>`}
    ${
      pair?.typical.length > 0 &&
      html`<section>
        <h2>Patches that decide most of them</h2>
        <p class="faint">
          Of the words that add most to the lead of ${predicted}:
          ${pair.words.map((word, place) => html` <a key=${word} class="chip" href=${to("/words", { word })}>word ${word} <span class="number">${percent(pair.margin_shares[place])}</span></a>`)}
        </p>
        <${Tiles}
          label=${`Patches that decide for ${predicted}`}
          values=${{ show: predicted }}
          items=${pair.typical.map((id) => ({ id, name: `Patch ${id}` }))}
        />
      </section>`
    }
    <p>
      <a href=${to("/class", { class: predicted, images: "wrong_class", label, predicted_as: predicted })}
        >All patches for ${predicted} in these images, the strongest first</a
      >
    </p>
    <h2>The images</h2>
    <p class="faint">Red is where ${predicted} leads over ${label}, blue where ${label} leads.</p>
    <div class="explained">${list.items.map((each) => html`<${Explained} key=${each.image_id} of=${each} />`)}</div>
    ${list.error ? html`<${Problem} error=${list.error} />` : list.waiting ? html`<${Waiting} />` : list.done && !list.items.length && html`<${Nothing}>No image of ${label} is taken for ${predicted}.</${Nothing}>`}
    ${!list.done && list.items.length > 0 && html`<${End} reached=${list.more} at=${list.items.length} />`}`;
}

function Explained({ of }) {
  const choice = useChoice();
  const sides = [of.predicted, of.label];
  const at = of.classes.indexOf(of.predicted);
  const lead = useMemo(() => difference(of.values[at], of.values[1 - at]), [of]);
  return html`<article class="line top">
    <a
      href=${changed({ image: of.image_id, patch: null, show: of.predicted, against: of.label })}
      aria-label=${`Open ${of.image}`}
    >
      <${Picture}
        small
        src=${choice.pixels ? imagePicture(choice, of.image_id) : null}
        ...${choice.input}
        grid=${choice.grid}
        map=${lead}
        alt=${`${of.image}: where ${of.predicted} leads over ${of.label}`}
      />
    </a>
    <div class="grow">
      ${sides.map(
        (name) =>
          html`<div key=${name}>
            <h3>
              For ${name}
              <span class="faint number"
                >logit ${logit(of.logits[of.classes.indexOf(name)])},
                ${percent(of.probabilities[of.classes.indexOf(name)])}</span
              >
            </h3>
            <${Tiles}
              label=${`Patches for ${name}`}
              size="compact"
              values=${{ show: name, against: of.label }}
              items=${of.patches
                .filter((patch) => patch.for === name)
                .map((patch) => ({
                  id: patch.patch_id,
                  said: logit(name === of.classes[0] ? patch.logit_first : patch.logit_second),
                  name: `Row ${patch.row}, column ${patch.col}, logit ${logit(name === of.classes[0] ? patch.logit_first : patch.logit_second)}`,
                }))}
            />
          </div>`,
      )}
      <details>
        <summary>${of.predicted} leads by ${logit(of.margin)}</summary>
        <p>${of.words}</p>
      </details>
    </div>
  </article>`;
}

/** Where one class leads over another, as a map; the colours end where 99 of 100 values do. */
function difference(first, second) {
  const values = first.map((row, i) => row.map((value, j) => value - second[i][j]));
  const sizes = values
    .flat()
    .map(Math.abs)
    .sort((one, two) => one - two);
  return { values, colours_end: sizes[Math.floor(0.99 * (sizes.length - 1))] };
}
