// A map of patches, or of visual words: those lie together that look alike to the model.

import { html, useEffect, useMemo, useRef, useState } from "../dom.js";
import { useAnswer } from "../api.js";
import { useChoice } from "../choice.js";
import { logit, signed, whole } from "../text.js";
import { change, go, to } from "../url.js";
import { Chip, Chips } from "../parts/chips.js";
import { Segments } from "../parts/controls.js";
import { Answer, Nothing } from "../parts/said.js";
import { ClassSearch } from "../parts/search.js";
import { opening, PatchPicture } from "../parts/tiles.js";

const SIDE = 1000;
const MARGIN = 24;
const NEAR = 40; // how far from a point the pointer may be, in the drawing's units
const COLOURS = [
  ..."#0072b2 #d55e00 #009e73 #cc79a7 #e69f00 #56b4e9".split(" "), // Okabe and Ito's
  ..."#7f3c8d #a5aa29 #8c564b #607d8b".split(" "),
];
const OTHERS = "#9a9aa3";
const FOR = "#b2182b";
const AGAINST = "#2166ac";
const AHEAD = {
  ArrowLeft: (x, y) => [-x, y],
  ArrowRight: (x, y) => [x, y],
  ArrowUp: (x, y) => [-y, x],
  ArrowDown: (x, y) => [y, x],
};

export function MapPage({ query }) {
  const choice = useChoice();
  const kinds = choice.described.maps;
  const words = kinds.includes("words") && (query.get("of") === "words" || !kinds.includes("patches"));
  const name = query.get("class") || null;
  const answer = useAnswer(kinds.length ? "/map" : null, { index: choice.index, model: choice.model, class: name, words });
  useEffect(() => {
    document.title = `Map · ${choice.index} · bagindex`;
  }, [choice.index]);
  if (!kinds.length)
    return html`<h1 tabindex="-1">Map</h1>
      <${Nothing}>
        No map was made for ${choice.model} yet: run <code>bagindex map -i ${choice.index}</code>, then load this page
        again.
      <//>`;
  return html`<h1 tabindex="-1">Map</h1>
    <p>
      ${words ? "Visual words, each as its most typical patch," : "Patches"} laid out so that those lie together that
      look alike to the model. Distances between groups, and their sizes, mean little.
    </p>
    <div class="filters">
      <${ClassSearch}
        label="Evidence for the class"
        value=${name ?? ""}
        clear
        hint="what each speaks most for"
        chosen=${(chosen) => change({ class: chosen }, { replace: true })}
      />
      ${
        kinds.length > 1 &&
        html`<${Segments}
          name="of"
          label="Points of the map"
          options=${[
            ["patches", "patches"],
            ["words", "visual words"],
          ]}
          value=${words ? "words" : "patches"}
          chosen=${(value) => change({ of: value === "words" ? value : null }, { replace: true })}
        />`
      }
    </div>
    <${Answer} of=${answer} draw=${(found) => html`<${Drawing} key=${found.title} of=${found} />`} />`;
}

/** The points. The pointer shows the one that it is near to, arrow keys go to the next, and both open its patch. */
function Drawing({ of }) {
  const svg = useRef(null);
  const [at, setAt] = useState(null);
  const places = useMemo(() => placed(of), [of]);
  const colours = useMemo(() => palette(of), [of]);
  const radius = Math.max(4, Math.min(12, 260 / Math.sqrt(places.length)));
  // Thousands of circles are drawn once, however often another one is pointed at.
  const circles = useMemo(
    () =>
      places.map(
        ([x, y], i) =>
          html`<circle key=${i} cx=${x} cy=${y} r=${radius} fill=${colour(of, colours, i)}
            fill-opacity=${of.class === null ? 1 : strength(of, i)} />`,
      ),
    [of],
  );
  const open = (i) =>
    go(of.words === null ? opening(of.patches[i], { show: of.classes[i] }) : to("/words", { word: of.words[i] }));
  const near = (event) => {
    const frame = svg.current.getBoundingClientRect();
    const x = ((event.clientX - frame.left) / frame.width) * SIDE;
    const y = ((event.clientY - frame.top) / frame.height) * SIDE;
    const found = closest(places, ([px, py]) => Math.hypot(px - x, py - y));
    return found !== null && Math.hypot(places[found][0] - x, places[found][1] - y) < NEAR ? found : null;
  };
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" && at !== null) {
      event.preventDefault();
      open(at);
    }
    const turn = AHEAD[event.key];
    if (!turn) return;
    event.preventDefault();
    if (at === null) return setAt(closest(places, ([x, y]) => Math.hypot(x - SIDE / 2, y - SIDE / 2)));
    const next = closest(places, ([x, y]) => {
      const [forward, aside] = turn(x - places[at][0], y - places[at][1]);
      return forward > 0 ? forward + 2 * Math.abs(aside) : Infinity;
    });
    if (next !== null) setAt(next);
  };
  return html`<div class="map">
    <svg
      ref=${svg}
      class="points"
      viewBox=${`0 0 ${SIDE} ${SIDE}`}
      tabindex="0"
      role="application"
      aria-label=${`${of.title}. Arrow keys go from point to point, Enter opens one.`}
      onMouseMove=${(event) => setAt(near(event) ?? at)}
      onClick=${(event) => {
        const i = near(event);
        if (i !== null) open(i);
      }}
      onKeyDown=${press}
    >
      <rect width=${SIDE} height=${SIDE} fill="none" pointer-events="all" />
      ${circles}
      ${
        at !== null &&
        html`<circle class="at" cx=${places[at][0]} cy=${places[at][1]} r=${radius + 5} fill="none" />`
      }
    </svg>
    <aside aria-label="The point">
      ${
        at === null
          ? html`<p class="faint">Point at one, or go from one to the next with the arrow keys; ${whole(places.length)} are shown.</p>`
          : html`<a class="tile" href=${of.words === null ? opening(of.patches[at], { show: of.classes[at] }) : to("/words", { word: of.words[at] })}>
              <${PatchPicture} id=${of.patches[at]} eager alt=${`Patch ${of.patches[at]}`} />
            </a>`
      }
      <p role="status">${at !== null && said(of, at)}</p>
      <${Key} of=${of} colours=${colours} />
      <p class="faint">${of.said}</p>
    </aside>
  </div>`;
}

/** What the colours mean. */
const Key = ({ of, colours }) =>
  of.class === null
    ? html`<${Chips} title="speak most for">
        ${[...colours].map(
          ([name, shade]) =>
            html`<${Chip} key=${name} href=${to("/class", { class: name })}>
              <i class="swatch" style=${{ background: shade }}></i> ${name}
            <//>`,
        )}
        ${of.classes.some((name) => !colours.has(name)) && html`<span class="faint">and others, in grey</span>`}
      <//>`
    : html`<p>
        <i class="swatch" style=${{ background: FOR }}></i> speaks for ${of.class},
        <i class="swatch" style=${{ background: AGAINST }}></i> against it; colours end at ${logit(of.colours_end)}.
      </p>`;

function said(of, i) {
  const word = of.words === null ? "" : `word ${of.words[i]}, `;
  return `${word}${signed(of.logits[i])} for ${of.classes[i]}, in an image ${of.labels[i] === null ? "without a label" : `of ${of.labels[i]}`}`;
}

/** Points on the drawing, y downwards. */
function placed({ x, y }) {
  const [left, right, low, high] = [Math.min(...x), Math.max(...x), Math.min(...y), Math.max(...y)];
  const scale = (SIDE - 2 * MARGIN) / (Math.max(right - left, high - low) || 1);
  return x.map((each, i) => [
    SIDE / 2 + (each - (left + right) / 2) * scale,
    SIDE / 2 - (y[i] - (low + high) / 2) * scale,
  ]);
}

/** A colour for each of the classes that most points speak for. */
function palette({ classes }) {
  const counts = new Map();
  for (const name of classes) counts.set(name, (counts.get(name) ?? 0) + 1);
  const ranked = [...counts].sort(([one, many], [other, few]) => few - many || (one < other ? -1 : 1));
  return new Map(ranked.slice(0, COLOURS.length).map(([name], i) => [name, COLOURS[i]]));
}

const colour = (of, colours, i) =>
  of.class === null ? (colours.get(of.classes[i]) ?? OTHERS) : of.logits[i] > 0 ? FOR : AGAINST;

const strength = (of, i) => 0.12 + 0.88 * Math.min(1, Math.abs(of.logits[i]) / (of.colours_end || 1));

/** Which place is least far by some measure; null where all are infinitely far. */
function closest(places, far) {
  let [best, least] = [null, Infinity];
  places.forEach((place, i) => {
    const each = far(place);
    if (each < least) [best, least] = [i, each];
  });
  return best;
}
