// What is said where there is nothing to show: yet, at all, or because something is wrong.

import { html } from "../dom.js";

/** Something went wrong, and what to do. */
export const Problem = ({ error }) => html`<p class="problem" role="alert">${error.message}</p>`;

/** An answer is awaited. */
export const Waiting = ({ children }) => html`<p class="faint" role="status">${children ?? "Looking…"}</p>`;

/** There is none. */
export const Nothing = ({ children }) => html`<p class="faint nothing">${children}</p>`;

/** What is drawn of an answer (see `useAnswer`): the problem, that it is awaited, or what `draw` makes of its data. */
export function Answer({ of, draw, waiting }) {
  if (of.error) return html`<${Problem} error=${of.error} />`;
  return of.data ? draw(of.data) : html`<${Waiting}>${waiting}<//>`;
}

/** What stands below an endless list (see `usePages`): a problem, that more is awaited, that there is none. */
export function Foot({ of, none }) {
  if (of.error) return html`<${Problem} error=${of.error} />`;
  if (of.waiting) return html`<${Waiting} />`;
  return of.done && !of.items.length && html`<${Nothing}>${none}<//>`;
}
