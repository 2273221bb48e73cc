// What is said where there is nothing to show: yet, at all, or because something is wrong.

import { html } from "../dom.js";

/** Something went wrong, and what to do. */
export const Problem = ({ error }) => html`<p class="problem" role="alert">${error.message}</p>`;

/** An answer is awaited. */
export const Waiting = ({ children = "Looking…" }) => html`<p class="faint" role="status">${children}</p>`;

/** There is none. */
export const Nothing = ({ children }) => html`<p class="faint nothing">${children}</p>`;
