// What is ticked and chosen.

import { html } from "../dom.js";

/** A box to tick; `chosen` hears whether it is. */
export const Check = ({ checked, disabled = false, chosen, children }) =>
  html`<label>
    <input
      type="checkbox"
      checked=${checked}
      disabled=${disabled}
      onChange=${(event) => chosen(event.target.checked)}
    />
    <span>${children}</span>
  </label>`;

/** One of a few. Args: `options` are pairs of a value and its text. */
export const Segments = ({ name, label, options, value, chosen }) =>
  html`<fieldset class="segments">
    <legend class="unseen">${label}</legend>
    ${options.map(
      ([each, text]) =>
        html`<label key=${each}>
          <input type="radio" name=${name} value=${each} checked=${each === value} onChange=${() => chosen(each)} />
          <span>${text}</span>
        </label>`,
    )}
  </fieldset>`;

/** One of many. Args: as above. */
export const Select = ({ label, options, value, chosen }) =>
  html`<label>
    ${label}
    <select value=${value} onChange=${(event) => chosen(event.target.value)}>
      ${options.map(([each, text]) => html`<option key=${each} value=${each}>${text}</option>`)}
    </select>
  </label>`;
