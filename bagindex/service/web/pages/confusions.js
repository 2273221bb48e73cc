// What is taken for what: a matrix whose cells open the images, and the patches that decide them.

import { html, useEffect, useMemo } from "../dom.js";
import { imagePicture, useAnswer } from "../api.js";
import { useChoice } from "../choice.js";
import { count, logit, percent, whole } from "../text.js";
import { change, changed, to } from "../url.js";
import { WordChip } from "../parts/chips.js";
import { AboutClass } from "../parts/class_head.js";
import { Select } from "../parts/controls.js";
import { End, usePages } from "../parts/endless.js";
import { Picture } from "../parts/picture.js";
import { Answer, Foot, Nothing } from "../parts/said.js";
import { ClassSearch } from "../parts/search.js";
import { bareItem, Tiles } from "../parts/tiles.js";

const SIZES = [10, 20, 40];
const LISTED = 15;
const IMAGES = 6;
const PATCHES = 4;
const MOST = 1000;

export function ConfusionsPage({ query }) {
  const label = query.get("label");
  const predicted = query.get("predicted");
  return label !== null && predicted !== null && label !== predicted
    ? html`<${Pair} key=${`${label} ${predicted}`} label=${label} predicted=${predicted} />`
    : html`<${Matrix} query=${query} />`;
}

function Matrix({ query }) {
  const choice = useChoice();
  const around = query.get("class") || null;
  const k = SIZES.includes(Number(query.get("k"))) ? Number(query.get("k")) : 20;
  const answer = useAnswer("/confusion-matrix", { index: choice.index, model: choice.model, class: around, k });
  useEffect(() => {
    document.title = `Confusions${around === null ? "" : ` of ${around}`} · ${choice.index} · bagindex`;
  }, [around, choice.index]);
  const body = html`<div class="filters">
      <${ClassSearch}
        label="Only around the class"
        value=${around ?? ""}
        clear
        hint="all classes"
        chosen=${(name) => change({ class: name }, { replace: true })}
      />
      ${
        choice.classes > SIZES[0] &&
        html`<${Select}
          label="Classes shown"
          options=${SIZES.map((each) => [each, each])}
          value=${k}
          chosen=${(value) => change({ k: value }, { replace: true })}
        />`
      }
    </div>
    <${Answer} of=${answer} draw=${(found) => html`<${Found} of=${found} around=${around} />`} />`;
  return around === null
    ? html`<h1 tabindex="-1">What is taken for what</h1>
        ${body}`
    : html`<${AboutClass} name=${around} page="/confusions">${body}<//>`;
}

const Found = ({ of, around }) =>
  html`<p>
      ${count(of.wrong, "image")} of the index ${of.wrong === 1 ? "is" : "are"} classified
      wrong${of.shown < of.wrong && `; ${whole(of.shown)} of them are shown here`}. A cell opens its images, and the
      patches that speak for what they are taken for.
    </p>
    <div class="beside">
      <${Cells} of=${of} />
      <section>
        <h2>The most frequent</h2>
        <${Frequent} of=${of} around=${around} />
      </section>
    </div>`;

const pair = (label, predicted) => to("/confusions", { label, predicted });
const recognised = (name) => to("/class", { class: name, images: "right_class", predicted_as: name });

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
                          href=${row === column ? recognised(name) : pair(each.class, name)}
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

function Frequent({ of, around }) {
  const pairs = of.classes
    .flatMap((label, row) =>
      of.classes.map((predicted, column) => ({
        label,
        predicted,
        images: row === column ? 0 : of.counts[row][column],
      })),
    )
    .filter((each) => each.images && (around === null || [each.label.class, each.predicted.class].includes(around)))
    .sort((one, two) => two.images - one.images)
    .slice(0, LISTED);
  return pairs.length
    ? html`<ol class="plain-list">
        ${pairs.map(
          ({ label, predicted, images }) =>
            html`<li>
              <a href=${pair(label.class, predicted.class)}>${label.class} → ${predicted.class}</a>
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
  const all = useAnswer("/images", { ...about, label, limit: 1 });
  const confused = useAnswer("/images", { ...about, label, predicted, limit: 1 });
  const images = confused.data?.total;
  const list = usePages(
    images > 0 ? "/explain/confused" : null,
    { ...about, label, predicted, patches: PATCHES },
    { size: IMAGES, of: "explanations" },
  );
  const decided = useAnswer(choice.described.words ? "/confusions" : null, { ...about, k: MOST });
  const found = decided.data?.confusions.find((each) => each.label === label && each.predicted === predicted);
  useEffect(() => {
    document.title = `${label} taken for ${predicted} · ${choice.index} · bagindex`;
  }, [label, predicted, choice.index]);
  return html`<h1 tabindex="-1">
      <a href=${to("/class", { class: label })}>${label}</a> taken for
      <a href=${to("/class", { class: predicted })}>${predicted}</a>
    </h1>
    ${
      images > 0 &&
      all.data &&
      html`<p>
        ${count(images, "image")}, ${percent(images / all.data.total)} of the ${whole(all.data.total)} of ${label}.
        Those come first of which the model is most sure.
      </p>`
    }
    ${
      found?.typical.length > 0 &&
      html`<section>
        <h2>Patches that speak most for ${predicted} in them</h2>
        <p class="faint">
          They are of the words that add most to its lead:
          ${found.words.map(
            (word, place) =>
              html`<${WordChip} key=${word} word=${word} number=${percent(found.margin_shares[place])} /> `,
          )}
        </p>
        <${Tiles}
          label=${`Patches that decide for ${predicted}`}
          values=${{ show: predicted }}
          items=${found.typical.map(bareItem)}
        />
      </section>`
    }
    ${
      images > 0 &&
      html`<p>
          <a href=${to("/class", { class: predicted, images: "wrong_class", label, predicted_as: predicted })}
            >All patches for ${predicted} in these images, the strongest first</a
          >
        </p>
        <h2>The images</h2>
        <p class="faint">Red is where ${predicted} leads over ${label}, blue where ${label} leads.</p>
        <div class="explained">
          ${list.items.map((each) => html`<${Explained} key=${each.image_id} of=${each} />`)}
        </div>`
    }
    ${
      images > 0
        ? html`<${Foot} of=${list} />`
        : html`<${Answer}
            of=${confused}
            draw=${() => html`<${Nothing}>No image of ${label} is taken for ${predicted}.<//>`}
          />`
    }
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
              items=${of.patches.filter((patch) => patch.for === name).map((patch) => placed(patch, of.classes, name))}
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

/** A patch that speaks for one of two classes, with its logit for that one. */
function placed(patch, classes, name) {
  const said = logit(name === classes[0] ? patch.logit_first : patch.logit_second);
  return { id: patch.patch_id, said, name: `Row ${patch.row}, column ${patch.col}, logit ${said}` };
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
