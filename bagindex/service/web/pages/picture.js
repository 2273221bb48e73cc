// A picture of one's own: what the model sees in it, and what in the index looks like it.

import { html, useEffect, useRef, useState } from "../dom.js";
import { sendPicture } from "../api.js";
import { useChoice } from "../choice.js";
import { percent, signed } from "../text.js";
import { changed } from "../url.js";
import { ClassSwitch } from "../parts/chips.js";
import { Account } from "../parts/evidence.js";
import { Legend, Picture } from "../parts/picture.js";
import { Answer, Problem, Waiting } from "../parts/said.js";
import { likeItem, Tiles } from "../parts/tiles.js";

const NEIGHBOURS = 12;
let held = null;
const hearers = new Set();

/** Take a picture that was dropped or pasted; it stays in the browser's memory, and is in no address. */
export function hold(file) {
  held = file;
  for (const hear of hearers) hear(file);
}

export function PicturePage({ query }) {
  const choice = useChoice();
  const [file, setFile] = useState(held);
  useEffect(() => {
    document.title = `Your picture · ${choice.index} · bagindex`;
  }, [choice.index]);
  useEffect(() => {
    hearers.add(setFile);
    return () => hearers.delete(setFile);
  }, []);
  const take = (event) => {
    if (event.target.files[0]) hold(event.target.files[0]);
    event.target.value = "";
  };
  return html`<h1 tabindex="-1">Your picture</h1>
    <p class=${file ? "" : "target"}>
      <label class="button"
        >Choose a picture<input type="file" accept="image/*" class="unseen" onChange=${take}
      /></label>
      <span class="faint"> or drop one anywhere, or paste it. It is looked at by this service and kept nowhere.</span>
    </p>
    ${file && html`<${Seen} key=${`${nameOf(file)} ${choice.model}`} file=${file} query=${query} />`}`;
}

const nameOf = (file) => `${file.name} ${file.size} ${file.lastModified}`;

/** The answer to a question about the picture: `{data, error}`. */
function useSent(path, values, file, read) {
  const [state, setState] = useState({});
  const key = path && JSON.stringify([path, values]);
  useEffect(() => {
    if (!key) return undefined;
    let wanted = true;
    sendPicture(path, values, file)
      .then(read)
      .then(
        (data) => wanted && setState({ key, data }),
        (error) => wanted && setState({ key, error }),
      );
    return () => (wanted = false);
  }, [key, file]);
  return state;
}

const asJson = (response) => response.json();
const asAddress = async (response) => URL.createObjectURL(await response.blob());

function Seen({ file, query }) {
  const choice = useChoice();
  const about = { index: choice.index, model: choice.model };
  const input = useSent("/input.png", about, file, asAddress);
  const first = useSent("/heatmap", about, file, asJson);
  const name = query.get("show") ?? first.data?.predicted;
  const other = useSent(
    first.data && name !== first.data.predicted ? "/heatmap" : null,
    { ...about, class: name },
    file,
    asJson,
  );
  const [heat, setHeat] = useState(true);
  const [cell, setCell] = useState(null);
  useEffect(() => () => input.data && URL.revokeObjectURL(input.data), [input.data]);
  const error = input.error ?? first.error ?? other.error;
  if (error) return html`<${Problem} error=${error} />`;
  if (!first.data || !input.data) return html`<${Waiting}>The model looks at it…</${Waiting}>`;
  const seen = first.data;
  const map = name === seen.predicted ? seen.maps[0] : other.data?.maps[0]?.class === name ? other.data.maps[0] : null;
  const runner = seen.top.find((each) => each.class !== seen.predicted);
  const against = name === seen.predicted ? runner : { class: name, class_id: map?.class_id };
  const { grid } = seen;
  const box = cell && boxAt(grid, choice.input, cell);
  return html`<div class="seen">
    <div class="picture-side">
      <${Picture}
        src=${input.data}
        ...${choice.input}
        grid=${grid}
        map=${heat ? map : null}
        box=${box}
        alt=${`${file.name}, as the model sees it`}
        picked=${(row, col) => setCell({ row, col })}
      />
      <${Legend} name=${name} map=${map} on=${heat} turn=${setHeat} />
    </div>
    <div class="grow">
      ${
        seen.image_id !== null &&
        html`<p>
          This very picture is in the index:
          <a href=${changed({ image: seen.image_id, patch: null })}>${seen.image}</a>.
        </p>`
      }
      <p class="faint">
        ${file.name || "picture"}: the model sees the middle of it, ${choice.input.width} × ${choice.input.height}
        pixels.
      </p>
      <h2>${seen.predicted} <span class="number faint">${percent(seen.top[0].probability)}</span></h2>
      <${ClassSwitch} classes=${seen.top} name=${name} />
      ${
        map &&
        against?.class_id !== undefined &&
        html`<${Reasons}
          key=${against.class_id}
          file=${file}
          about=${about}
          first=${seen.top[0]}
          second=${against}
          src=${input.data}
          pick=${setCell}
        />`
      }
      ${
        cell
          ? html`<${Alike}
              key=${`${cell.row} ${cell.col}`}
              file=${file}
              about=${about}
              at=${inFile(seen.source_box, choice.input, box)}
              name=${name}
            />`
          : html`<p class="faint">
              Click on the picture, or on a patch, to see what in the index looks like that place.
            </p>`
      }
    </div>
  </div>`;
}

/** The box of a patch; one that reaches beyond the input ends where that does. */
const boxAt = (grid, { height, width }, { row, col }) => {
  const [x, y] = [col, row].map((each) => grid.offset + each * grid.stride);
  return [
    Math.max(x, 0),
    Math.max(y, 0),
    Math.min(x + grid.receptive_field, width),
    Math.min(y + grid.receptive_field, height),
  ];
};

function Reasons({ file, about, first, second, src, pick }) {
  const answer = useSent("/why", { ...about, vs: [first.class, second.class], k: 4 }, file, asJson);
  const crops = ({ parts }) =>
    html`<ul class="tiles compact">
      ${parts.map(
        (part) =>
          html`<li key=${`${part.row} ${part.col}`}>
            <button
              type="button"
              class="tile"
              onClick=${() => pick(part)}
              aria-label=${`Row ${part.row}, column ${part.col}, adds ${signed(part.contribution, 3)}`}
            >
              <${Crop} src=${src} box=${part.box} />
              <span class="number">${signed(part.contribution, 3)}</span>
            </button>
          </li>`,
      )}
    </ul>`;
  const flip = useSent("/flip", about, file, asJson);
  return html`<section>
    <h3>Why ${first.class} and not ${second.class}?</h3>
    <${Answer} of=${answer} draw=${(data) => html`<${Account} why=${data} draw=${crops} />`} />
    ${
      flip.data &&
      html`<h4>What would it take?</h4>
        <p>${flip.data.said}</p>`
    }
  </section>`;
}

/** A box of a picture that is in no index. */
function Crop({ src, box }) {
  const canvas = useRef(null);
  const [x0, y0, x1, y1] = box;
  useEffect(() => {
    const image = new Image();
    image.onload = () =>
      canvas.current?.getContext("2d").drawImage(image, x0, y0, x1 - x0, y1 - y0, 0, 0, x1 - x0, y1 - y0);
    image.src = src;
  }, [src, x0, y0]);
  return html`<canvas class="pixels" ref=${canvas} width=${x1 - x0} height=${y1 - y0} aria-hidden="true" />`;
}

/** The middle of a box of the model's input as a point of the file, which is what the service asks for. */
function inFile([left, top, right, bottom], { width, height }, [x0, y0, x1, y1]) {
  return [left + (((x0 + x1) / 2) * (right - left)) / width, top + (((y0 + y1) / 2) * (bottom - top)) / height];
}

/** What in the index looks like a place in the picture. */
function Alike({ file, about, at, name }) {
  const answer = useSent("/similar", { ...about, at: at.join(","), k: NEIGHBOURS }, file, asJson);
  return html`<section>
    <h3>What in the index looks like this to the model?</h3>
    <${Answer}
      of=${answer}
      draw=${(data) => html`<${Tiles} label="Similar patches" size="compact" items=${data.patches.map(likeItem)} values=${{ show: name }} />`}
    />
  </section>`;
}
