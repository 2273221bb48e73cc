// What is known of one patch and its image, beside the page that one came from.

import { html, useEffect, useRef, useState } from "./dom.js";
import { imagePicture, useAnswer } from "./api.js";
import { useChoice } from "./choice.js";
import { count, fileName, logit, percent } from "./text.js";
import { address, change, changed, to } from "./url.js";
import { ClassSwitch } from "./parts/chips.js";
import { Check } from "./parts/controls.js";
import { Account } from "./parts/evidence.js";
import { useNear } from "./parts/endless.js";
import { useKeys } from "./parts/keys.js";
import { Legend, Picture } from "./parts/picture.js";
import { Answer, Problem } from "./parts/said.js";
import { Share } from "./parts/share.js";
import { likeItem, neighboursOf, PatchPicture, Tiles } from "./parts/tiles.js";

const CLOSED = { patch: null, image: null, show: null, against: null };
const NEIGHBOURS = 12;
const MORE = 8;

/** The panel, for the patch or the image that the address names. */
export function Inspector({ patch, image }) {
  const choice = useChoice();
  const asked = address().query;
  const about = { index: choice.index, model: choice.model };
  const found = useAnswer(patch === null ? null : `/patches/${patch}`, {
    ...about,
    class: asked.getAll("class").slice(0, 1),
  });
  const known = found.data && found.data.patch_id === patch ? found.data : null;
  const id = patch === null ? image : Math.floor(patch / (choice.grid.rows * choice.grid.cols));
  const described = useAnswer(`/images/${id}`, about);
  const error = found.error ?? described.error;
  const panel = useRef(null);
  const beside = (way) => {
    const next = neighboursOf(patch)[way];
    if (next !== null) change({ patch: next });
  };
  const close = () => {
    change(CLOSED);
    // Back to the patch that was opened, or a keyboard begins at the top again.
    document.querySelector(`a.tile[href*="patch=${patch}"]`)?.focus();
  };
  useEffect(() => panel.current.focus({ preventScroll: true }), []);
  useEffect(() => {
    panel.current.scrollTop = 0;
  }, [id]);
  useKeys({
    Escape: close,
    n: () => beside("after"),
    p: () => beside("before"),
  });
  return html`<aside class="inspector" aria-label=${patch === null ? "Image" : "Patch"} tabindex="-1" ref=${panel}>
    <div class="toolbar">
      ${
        patch !== null &&
        html`<button type="button" onClick=${() => beside("before")} aria-label="Previous patch">‹</button>
          <button type="button" onClick=${() => beside("after")} aria-label="Next patch">›</button>`
      }
      <span class="gap" />
      <${Share} keyed />
      <button type="button" onClick=${close} aria-label="Close">✕</button>
    </div>
    <${Answer}
      of=${{ error, data: described.data }}
      draw=${(data) =>
        html`<${Opened}
          image=${data}
          patch=${known}
          asked=${patch}
          shown=${asked.get("show")}
          of=${asked.get("class")}
        />`}
    />
  </aside>`;
}

function Opened({ image, patch, asked, shown, of }) {
  const choice = useChoice();
  const about = { index: choice.index, model: choice.model };
  const [heat, setHeat] = useState(true);
  const [marked, setMarked] = useState([]);
  const name = shown ?? of ?? image.predicted_name;
  const answer = useAnswer("/heatmap", { ...about, image: image.image_id, class: name });
  const map = answer.data?.image_id === image.image_id ? answer.data.maps[0] : null;
  useKeys({ h: () => setHeat(!heat) });
  const pick = (row, col) =>
    change(
      { patch: image.image_id * choice.grid.rows * choice.grid.cols + row * choice.grid.cols + col, image: null },
      { replace: asked !== null },
    );
  const box = patch?.box ?? null;
  return html`
    <h2 class="path" title=${image.path}>${fileName(image.path)}</h2>
    <p class="verdict">
      ${image.label_name !== null && html`<span>label <b>${image.label_name}</b></span>`}
      <span class=${image.correct === null ? "" : image.correct ? "good" : "bad"}>
        ${image.correct === null ? "" : image.correct ? "✓ " : "✗ "}predicted <b>${image.predicted_name}</b>
        <span class="number">${percent(image.probability)}</span></span
      >
    </p>
    <${Picture}
      src=${choice.pixels ? imagePicture(choice, image.image_id) : null}
      ...${choice.input}
      grid=${choice.grid}
      map=${heat ? map : null}
      box=${box}
      marks=${marked}
      picked=${pick}
      alt=${`${image.path}, as the model saw it${box ? `, with a box around row ${patch.row}, column ${patch.col}` : ""}`}
    />
    <${Legend} name=${name} map=${map} on=${heat} turn=${setHeat} />
    ${answer.error && html`<${Problem} error=${answer.error} />`}
    <${ClassSwitch} classes=${choices(image, name, of)} name=${name} />
    ${
      asked === null
        ? html`<p class="faint">Click on the picture to open the patch there.</p>`
        : patch && html`<${ThePatch} patch=${patch} name=${name} />`
    }
    ${asked !== null && patch && html`<${Neighbours} key=${asked} patch=${patch} name=${name} />`}
    <${Why} key=${image.image_id} image=${image} marked=${marked} mark=${setMarked} />
    <${Models} image=${image} name=${name} box=${box} />
  `;
}

/** The classes one may want to see the evidence for: those found probable, the label, and the page's own. */
function choices(image, name, of) {
  const found = image.top.map((each) => ({ class: each.class, probability: each.probability, logit: each.logit }));
  for (const extra of [image.label_name, of, name]) {
    if (extra !== null && !found.some((each) => each.class === extra)) found.push({ class: extra });
  }
  return found;
}

/** The patch alone: what it says, and which word it is. */
function ThePatch({ patch, name }) {
  const [x0, y0, x1, y1] = patch.box;
  const most = Math.max(...patch.logits.map((each) => Math.abs(each.logit)), 1e-9);
  return html`<section>
    <h3>This patch</h3>
    <div class="one">
      <${PatchPicture} id=${patch.patch_id} alt="The patch" eager />
      <div>
        <table class="bars">
          <caption class="faint">
            Its largest logits
          </caption>
          <tbody>
            ${patch.logits.map(
              (each) =>
                html`<tr key=${each.class_id} class=${each.class === name ? "chosen" : ""}>
                  <th scope="row"><a href=${changed({ show: each.class })}>${each.class}</a></th>
                  <td>
                    <span
                      class=${`bar ${each.logit < 0 ? "minus" : ""}`}
                      style=${{ "--share": Math.abs(each.logit) / most }}
                    />
                  </td>
                  <td class="number">${logit(each.logit)}</td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>
    </div>
    <p class="faint">
      Patch <span class="number">${patch.patch_id}</span>: row ${patch.row}, column ${patch.col}; it sees pixels
      ${x0}–${x1 - 1} across and ${y0}–${y1 - 1} down.
      ${
        patch.word !== null &&
        html` It is one of ${count(patch.word_patches, "patch", "patches")} of
          <a href=${to("/words", { word: patch.word, patch: patch.patch_id })}>word ${patch.word}</a>.`
      }
    </p>
  </section>`;
}

/** What else looks like it. */
function Neighbours({ patch, name }) {
  const choice = useChoice();
  const [place, near] = useNear();
  const [others, setOthers] = useState(true);
  const [more, setMore] = useState(1);
  const values = {
    index: choice.index,
    model: choice.model,
    patch: patch.patch_id,
    k: NEIGHBOURS * more,
    other_images: others,
  };
  const answer = useAnswer(near ? "/similar" : null, values);
  const draw = (data) =>
    html`<${Tiles}
        label="Similar patches"
        size="compact"
        items=${data.patches.map(likeItem)}
        values=${{ show: name }}
      />
      <p class="faint" title=${data.how}>
        Below each: the cosine of its feature and this one's.
        ${data.exact ? "All patches were compared." : "Found by the index of neighbours, which may miss one now and then."}
        ${
          data.patches.length === values.k &&
          more < MORE &&
          html`<button type="button" class="plain" onClick=${() => setMore(2 * more)}>More</button>`
        }
      </p>`;
  return html`<section ref=${place}>
    <h3>What else looks like this to the model?</h3>
    <p><${Check} checked=${others} chosen=${setOthers}>in other images only<//></p>
    <${Answer} of=${answer} draw=${draw} />
  </section>`;
}

/** Why the prediction, and not another class. */
function Why({ image, marked, mark }) {
  const choice = useChoice();
  const [place, near] = useNear();
  const other = address().query.get("against") ?? (image.correct === false ? image.label_name : image.top[1]?.class);
  // One by one: a class's name may have a comma in it, and its id may be the name of another.
  const vs = other && other !== image.predicted_name ? [image.predicted_name, other] : null;
  const about = { index: choice.index, model: choice.model, image: image.image_id };
  const answer = useAnswer(near && vs ? "/why" : null, { ...about, vs, k: 4 });
  const flip = useAnswer(near ? "/flip" : null, about);
  if (!vs) return null;
  return html`<section ref=${place}>
    <h3>Why ${image.predicted_name} and not ${other}?</h3>
    <${Answer} of=${answer} draw=${(data) => html`<${Account} why=${data} />`} />
    ${
      flip.data &&
      html`<h4>What would it take?</h4>
        <p>
          ${flip.data.said}
          ${
            flip.data.patches.length > 0 &&
            html`<button
              type="button"
              class="plain"
              onClick=${() => mark(marked.length ? [] : flip.data.patches.map((each) => each.box))}
            >
              ${marked.length ? "Do not show them" : "Show them in the picture"}
            </button>`
          }
        </p>`
    }
  </section>`;
}

/** The same class through every model's eyes. */
function Models({ image, name, box }) {
  const choice = useChoice();
  if (choice.models.length < 2) return null;
  return html`<section>
    <h3>Models side by side</h3>
    <div class="side">
      ${choice.models.map(
        (each) =>
          html`<${OneModel}
            key=${each.name}
            model=${each}
            image=${image}
            name=${name}
            box=${each.name === choice.model ? box : null}
          />`,
      )}
    </div>
  </section>`;
}

function OneModel({ model, image, name, box }) {
  const choice = useChoice();
  const about = { index: choice.index, model: model.name };
  const found = useAnswer(`/images/${image.image_id}`, about);
  const answer = useAnswer("/heatmap", { ...about, image: image.image_id, class: name });
  const map = answer.data?.image_id === image.image_id ? answer.data.maps[0] : null;
  return html`<figure>
    <${Picture}
      small
      src=${choice.pixels ? imagePicture(choice, image.image_id) : null}
      ...${choice.input}
      grid=${model.grid}
      map=${map}
      box=${box}
      alt=${`Evidence for ${name}, ${model.name}`}
    />
    <figcaption>
      <a href=${changed({ model: model.name, patch: null, image: image.image_id })}>${model.name}</a><br />
      ${answer.error?.message}
      ${
        found.data &&
        html`<span>${found.data.predicted_name} <span class="number">${percent(found.data.probability)}</span></span>`
      }
      ${map && html`<br /><span class="faint">${name}: ${logit(map.logit)}</span>`}
    </figcaption>
  </figure>`;
}
