// An image as the model saw it, with its evidence laid over it and a box around a patch.

import { html, useLayoutEffect, useRef } from "../dom.js";
import { signed } from "../text.js";
import { Check } from "./controls.js";

const FOR = [178, 24, 43];
const AGAINST = [33, 102, 172];

/** Evidence as pixels: red for the class, blue against it, and the more opaque the more. */
function paint(canvas, values, end) {
  const rows = values.length;
  const cols = values[0].length;
  canvas.width = cols;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(cols, rows);
  values.flat().forEach((value, place) => {
    const strength = Math.min(1, Math.abs(value) / (end || 1));
    pixels.data.set([...(value > 0 ? FOR : AGAINST), Math.round(235 * strength)], 4 * place);
  });
  context.putImageData(pixels, 0, 0);
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** The picture.
 *  Args: `src` of the model's input; `height`, `width` of it in pixels; `grid` of the model; `map` as the service gives
 *  it, or null; `box` [x0, y0, x1, y1], or null; `marks` are further boxes; `picked(row, col)` hears of a click, and of
 *  arrow keys; `alt`. */
export function Picture({ src, width, height, grid, map, box, marks = [], picked, alt, small = false }) {
  const canvas = useRef(null);
  useLayoutEffect(() => {
    if (map && canvas.current) paint(canvas.current, map.values, map.colours_end);
  }, [map]);
  const cell = (event) => {
    const frame = event.currentTarget.getBoundingClientRect();
    const at = (value, size, cells) =>
      Math.max(
        0,
        Math.min(cells - 1, Math.round((value * size - grid.offset - grid.receptive_field / 2) / grid.stride)),
      );
    picked(
      at((event.clientY - frame.top) / frame.height, height, grid.rows),
      at((event.clientX - frame.left) / frame.width, width, grid.cols),
    );
  };
  const step = (event) => {
    const [down, right] = STEPS[event.key] ?? [0, 0];
    if ((!down && !right) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const within = (place, cells) => Math.max(0, Math.min(cells - 1, place));
    // A box that begins where the picture does may begin before it: its end says where it is.
    const at = (begin, end) =>
      Math.round(((begin > 0 ? begin : end - grid.receptive_field) - grid.offset) / grid.stride);
    const from = box
      ? [at(box[1], box[3]), at(box[0], box[2])]
      : [Math.floor(grid.rows / 2), Math.floor(grid.cols / 2)];
    picked(within(from[0] + down, grid.rows), within(from[1] + right, grid.cols));
  };
  // A patch's value stands where the middle of its box is, as large as the step to the next.
  const inset = grid.offset + (grid.receptive_field - grid.stride) / 2;
  const place = {
    left: `${(100 * inset) / width}%`,
    top: `${(100 * inset) / height}%`,
    width: `${(100 * grid.cols * grid.stride) / width}%`,
    height: `${(100 * grid.rows * grid.stride) / height}%`,
  };
  return html`<div
    class=${`picture ${picked ? "live" : ""} ${small ? "small" : ""}`}
    style=${{ aspectRatio: `${width} / ${height}` }}
    onClick=${picked && cell}
    onKeyDown=${picked && step}
    tabindex=${picked ? 0 : undefined}
    role=${picked ? "group" : undefined}
    aria-label=${picked ? "Picture: arrow keys move the box" : undefined}
  >
    ${
      src
        ? html`<img src=${src} alt=${alt} width=${width} height=${height} decoding="async" />`
        : html`<span class="blank" role="img" aria-label=${alt} />`
    }
    ${map && html`<canvas ref=${canvas} style=${place} aria-hidden="true" />`}
    ${
      (box || marks.length > 0) &&
      html`<svg viewBox=${`0 0 ${width} ${height}`} aria-hidden="true">
        ${marks.map((each) => html`<rect class="mark" ...${frame(each)} />`)}
        ${box && html`<rect class="halo" ...${frame(box)} /><rect class="box" ...${frame(box)} />`}
      </svg>`
    }
  </div>`;
}

const frame = ([x0, y0, x1, y1]) => ({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 });

/** Whose evidence is laid over a picture, whether it is, and what its colours mean. */
export const Legend = ({ name, map, on, turn }) =>
  html`<div class="under">
    <${Check} checked=${on} chosen=${turn}>evidence for<//>
    <b>${name}</b>
    ${map && html`<${Scale} end=${map.colours_end} />`}
  </div>`;

/** The colours end before the largest values do, or one patch would leave all others pale. */
const Scale = ({ end }) =>
  html`<div
    class="scale"
    role="img"
    aria-label=${`Colours: blue is evidence against, red for; full at ${signed(end, 1)} and beyond`}
    title="Beyond these the colours stay the same"
  >
    <span class="number">≤ −${end.toFixed(1)}</span>
    <span class="colours" />
    <span class="number">≥ +${end.toFixed(1)}</span>
  </div>`;
