// A link to what is shown.

import { html, useRef, useState } from "../dom.js";
import { useKeys } from "./keys.js";

/** Copies the present address; where a browser forbids that, shows it to be copied. */
export function Share({ children = "Copy link", keyed = false }) {
  const [said, setSaid] = useState("");
  const dialog = useRef(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      setSaid("Copied");
      setTimeout(() => setSaid(""), 2000);
    } catch {
      dialog.current.showModal();
      dialog.current.querySelector("input").select();
    }
  };
  useKeys(keyed ? { c: copy } : {});
  return html`<button type="button" onClick=${copy}>${said || children}</button>
    <span class="unseen" role="status">${said && "The link is copied."}</span>
    <dialog ref=${dialog} aria-label="Link to this view">
      <form method="dialog">
        <label>Link to this view<input type="text" readonly value=${location.href} /></label>
        <button>Close</button>
      </form>
    </dialog>`;
}
