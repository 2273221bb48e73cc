// What stands on top of every page: where one can go, what is looked at, and help.

import { html, useRef, useState } from "../dom.js";
import { useChoice } from "../choice.js";
import { address, change, go, to } from "../url.js";
import { keysOn, switchKeys, useKeys } from "./keys.js";
import { ClassSearch } from "./search.js";

const PLACES = [
  ["/", "Classes"],
  ["/confusions", "Confusions"],
  ["/words", "Words"],
  ["/map", "Map"],
  ["/picture", "Picture"],
  ["/sql", "SQL"],
];
const KEYS = [
  ["/", "search for a class"],
  ["← → ↑ ↓", "move through patches"],
  ["Enter", "open a patch"],
  ["n p", "next, previous patch"],
  ["h", "heatmap on and off"],
  ["c", "copy a link to what is shown"],
  ["Esc", "close"],
  ["?", "this help"],
];

export function Header({ path }) {
  const choice = useChoice();
  const help = useRef(null);
  const place = path === "/class" ? "/" : path;
  useKeys({
    "/": () => document.getElementById("search")?.focus(),
    "?": () => help.current.showModal(),
  });
  return html`<header>
    <a class="logo" href=${to("/")} aria-label="bagindex, all classes"><${Mark} /><b>bagindex</b></a>
    <nav aria-label="Pages">
      ${PLACES.filter(([where]) => usable(where, choice)).map(
        ([where, name]) =>
          html`<a key=${where} href=${to(where)} aria-current=${where === place ? "page" : undefined}>${name}</a>`,
      )}
    </nav>
    <span class="gap" />
    ${
      path !== "/" &&
      html`<${ClassSearch}
        key=${choice.index}
        id="search"
        label="Search for a class"
        hidden
        hint="Search for a class"
        chosen=${(name) => go(to("/class", { class: name }))}
      />`
    }
    <div class="which">
      ${
        choice.indexes.length > 1 &&
        html`<select
          aria-label="Index"
          value=${choice.index}
          onChange=${(event) => go(`/?${new URLSearchParams({ index: event.target.value })}`)}
        >
          ${choice.indexes.map((each) => html`<option key=${each.name}>${each.name}</option>`)}
        </select>`
      }
      ${
        choice.models.length > 1 &&
        html`<select
          aria-label="Model"
          value=${choice.model}
          onChange=${(event) => change({ model: event.target.value, ...whereNow(choice) })}
        >
          ${choice.models.map((each) => html`<option key=${each.name}>${each.name}</option>`)}
        </select>`
      }
    </div>
    <${Theme} />
    <button type="button" class="round" aria-label="Help" onClick=${() => help.current.showModal()}>?</button>
    <${Help} dialog=${help} />
  </header>`;
}

const usable = (where, choice) => !(where === "/sql" && !choice.sql) && !(where === "/confusions" && !choice.labelled);

/** A patch's number means another patch to another model: its image stays open. */
function whereNow(choice) {
  const patch = address().query.get("patch");
  return patch === null
    ? {}
    : { patch: null, image: Math.floor(Number(patch) / (choice.grid.rows * choice.grid.cols)) };
}

const CELLS = [0, 7, 14].flatMap((y) => [0, 7, 14].map((x) => [x, y]));

const Mark = () =>
  html`<svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">
    ${CELLS.map(
      ([x, y]) => html`<rect x=${x} y=${y} width="6" height="6" rx="1.2" class=${x === 7 && y === 7 ? "lit" : ""} />`,
    )}
  </svg>`;

const DARK = matchMedia("(prefers-color-scheme: dark)");

function Theme() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? "system");
  // The first press is seen to do something; the last gives the choice back to the system.
  const order = DARK.matches ? ["system", "light", "dark"] : ["system", "dark", "light"];
  const next = order[(order.indexOf(theme) + 1) % order.length];
  const turn = () => {
    setTheme(next);
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("bagindex-theme", next);
    } catch {
      // a browser that keeps nothing forgets it with the page
    }
  };
  return html`<button
    type="button"
    class="round"
    onClick=${turn}
    aria-label=${`Colours: ${theme}. Change to ${next}`}
    title=${`Colours: ${theme}`}
  >
    ${{ system: "◐", light: "☀", dark: "☾" }[theme]}
  </button>`;
}

function Help({ dialog }) {
  const choice = useChoice();
  const [on, setOn] = useState(keysOn());
  const size = choice.grid.receptive_field;
  return html`<dialog
    ref=${dialog}
    aria-labelledby="help-title"
    onClick=${(event) => event.target === dialog.current && dialog.current.close()}
  >
    <form method="dialog" class="toolbar">
      <h2 id="help-title">What is shown here</h2>
      <span class="gap" /><button aria-label="Close help">✕</button>
    </form>
    <p>
      A BagNet looks at an image through small windows of ${size} × ${size} pixels, the <b>patches</b>. From each it
      computes one number per class, the patch's <b>logit</b>: its evidence for the class, or against it if it is
      negative. The mean of all patches' logits <em>is</em> the image's logit, and the class with the largest one is the
      prediction. So nothing here is an estimate: what a decision rests on can be listed, patch by patch.
    </p>
    <dl>
      <dt class="right">images of the class</dt>
      <dd>images whose label is the class asked about</dd>
      <dt class="wrong">images of other classes</dt>
      <dd>images with another label: evidence found in the wrong place</dd>
      <dt>shorts → pants</dt>
      <dd>labelled shorts, taken for pants</dd>
      <dt>word</dt>
      <dd>a group of patches that look alike to the model; a class's Words also list possible shortcuts</dd>
    </dl>
    <h3>Keys</h3>
    <dl class="keys">
      ${KEYS.map(
        ([key, what]) =>
          html`<dt><kbd>${key}</kbd></dt>
            <dd>${what}</dd>`,
      )}
    </dl>
    <p>
      <label
        ><input
          type="checkbox"
          checked=${on}
          onChange=${(event) => {
            setOn(event.target.checked);
            switchKeys(event.target.checked);
          }}
        />
        single keys (/, n, p, h, c, ?)</label
      >
    </p>
    <p class="faint">
      ${choice.described.name}: ${choice.grid.rows} × ${choice.grid.cols} patches in each image. The same questions can
      be put to the <a href="/openapi.json" target="_blank">HTTP API</a>.
    </p>
  </dialog>`;
}
