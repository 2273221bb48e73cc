// Patches as pictures, in a list that arrow keys move through.

import { html, useRef, useState } from "../dom.js";
import { patchPicture } from "../api.js";
import { useChoice } from "../choice.js";
import { logit } from "../text.js";
import { address, changed } from "../url.js";

let opened = null;

/** Remember in which list a patch was opened: the one before it and the one after it are those of this list. */
export const remember = (event) => (opened = event.currentTarget.closest("[data-patches]"));

/** The patches before and after one in the list in which it was last opened, else in the first that shows it:
 *  `{before, after}`, null where none is. A list grows as one scrolls, so that it is asked, not kept. */
export function neighboursOf(id) {
  const lists = [...document.querySelectorAll("main [data-patches]")];
  for (const list of lists.includes(opened) ? [opened, ...lists] : lists) {
    const ids = [...list.querySelectorAll("[data-patch]")].map((each) => Number(each.dataset.patch));
    const place = ids.indexOf(id);
    if (place >= 0) return { before: ids[place - 1] ?? null, after: ids[place + 1] ?? null };
  }
  return { before: null, after: null };
}

/** The address that opens a patch beside what is shown. */
export const opening = (id, values = {}) => changed({ patch: id, image: null, show: null, ...values });

/** A patch's pixels. */
export function PatchPicture({ id, model, alt = "", eager = false }) {
  const choice = useChoice();
  if (!choice.pixels) return html`<span class="pixels none" aria-hidden="true" />`;
  return html`<img
    class="pixels"
    src=${patchPicture(choice, id, model)}
    alt=${alt}
    width="33"
    height="33"
    loading=${eager ? "eager" : "lazy"}
    fetchpriority=${eager ? "high" : "auto"}
    decoding="async"
  />`;
}

/** The label of a patch's image, and the prediction where it is another: “shorts”, “→ pants”. */
export function whose({ label_name, predicted_name }) {
  if (label_name === null) return [`→ ${predicted_name}`];
  return label_name === predicted_name ? [label_name] : [label_name, `→ ${predicted_name}`];
}

/** A list of patches.
 *  Args: `items` have `id`, `said` (a line below) and `more` (further ones), `name` (for those who do not see it);
 *  `values` go into the address beside the patch; `label` names the list; `model` if it is not the one looked at. */
export function Tiles({ items, label, values, model, eager = 0, size = "" }) {
  const list = useRef(null);
  const [active, setActive] = useState(null);
  const open = Number(address().query.get("patch") ?? NaN);
  const ids = items.map((each) => each.id);
  const stop = ids.includes(active) ? active : ids.includes(open) ? open : ids[0];

  const move = (event) => {
    const links = [...list.current.querySelectorAll("a")];
    const place = links.indexOf(document.activeElement);
    if (place < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = {
      ArrowRight: () => links[place + 1],
      ArrowLeft: () => links[place - 1],
      ArrowDown: () => beside(links, place, 1),
      ArrowUp: () => beside(links, place, -1),
      Home: () => links[0],
      End: () => links.at(-1),
    }[event.key]?.();
    if (!next) return;
    event.preventDefault();
    next.focus();
  };
  return html`<ul class=${`tiles ${size}`} aria-label=${label} ref=${list} onKeyDown=${move} data-patches>
    ${items.map(
      (each, place) =>
        html`<li key=${each.id}>
          <a
            class="tile"
            href=${opening(each.id, { ...values, ...each.values })}
            onClick=${remember}
            tabindex=${each.id === stop ? 0 : -1}
            onFocus=${() => setActive(each.id)}
            aria-current=${each.id === open ? "true" : undefined}
            aria-label=${each.name}
            data-patch=${each.id}
            title=${each.title}
          >
            <${PatchPicture} id=${each.id} model=${model} eager=${place < eager} />
            ${each.said && html`<span class="number">${each.said}</span>`}
            ${each.more?.map((line) => html`<span class="faint">${line}</span>`)}
          </a>
        </li>`,
    )}
  </ul>`;
}

/** The link nearest in the next row, or in the one before. */
function beside(links, place, way) {
  const from = links[place].getBoundingClientRect();
  let best = null;
  for (const link of way > 0 ? links.slice(place + 1) : links.slice(0, place).reverse()) {
    const box = link.getBoundingClientRect();
    if ((box.top - from.top) * way < from.height / 2) continue;
    if (best && Math.abs(box.top - best.top) > from.height / 2) break;
    const far = Math.abs(box.left - from.left);
    if (!best || far < best.far) best = { far, link, top: box.top };
  }
  return best?.link;
}

/** A patch without anything said about it. */
export const bareItem = (id) => ({ id, name: `Patch ${id}` });

/** A patch that is like another. */
export function likeItem(patch) {
  const said = patch.cosine.toFixed(3);
  return {
    id: patch.patch_id,
    said,
    more: whose(patch),
    title: `${patch.path} · cosine ${patch.cosine.toFixed(4)}`,
    name: `Cosine ${said}, ${whose(patch).join(" ")}`,
  };
}

/** A patch of an answer as an item of a list. */
export function patchItem(patch, { values } = {}) {
  const said = logit(patch.logit);
  return {
    id: patch.patch_id,
    said,
    more: whose(patch),
    title: `${patch.path} · row ${patch.row}, column ${patch.col}`,
    name: `Rank ${patch.rank}, logit ${said}, ${whose(patch).join(" ")}, ${patch.path}`,
    values,
  };
}
