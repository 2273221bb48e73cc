// Choosing a class by typing a part of its name.

import { html, useEffect, useId, useRef, useState } from "../dom.js";
import { ask } from "../api.js";
import { useChoice } from "../choice.js";
import { count } from "../text.js";

const SHOWN = 8;
const PAUSE = 25;
const LONGEST = 200; // of what the service looks for

/** A combobox of classes (ARIA's pattern: the focus stays in the field).
 *  Args: `label` names it (`hidden`: to those who do not see it only); `value` is the class that is chosen, where one
 *  stays so; `chosen` hears of another, and of null where the field may be emptied (`clear`); `hint` stands in the empty
 *  field. */
export function ClassSearch({ label, value: given, chosen, hint, clear = false, id, hidden = false }) {
  const choice = useChoice();
  const lasting = given !== undefined; // else the field is empty again once a class was chosen
  const value = given ?? "";
  const made = useId();
  const field = id ?? made;
  const [text, setText] = useState(value);
  const [found, setFound] = useState(null);
  const [active, setActive] = useState(0);
  const [open, setOpen] = useState(false);
  const latest = useRef("");

  useEffect(() => setText(value), [value]);

  const look = (wanted) => {
    latest.current = wanted;
    const question = { index: choice.index, model: choice.model, search: wanted.slice(0, LONGEST), limit: SHOWN };
    setTimeout(() => {
      if (latest.current !== wanted) return;
      ask("/classes", question).promise.then(
        (answer) => {
          if (latest.current !== wanted) return;
          setFound(answer);
          setActive(0);
        },
        () => setFound({ classes: [], total: 0 }),
      );
    }, PAUSE);
  };
  const show = () => {
    setOpen(true);
    look(text === value ? "" : text.trim());
  };
  const hide = () => {
    setOpen(false);
    latest.current = null;
  };
  const take = (name) => {
    hide();
    setText(lasting ? (name ?? "") : "");
    chosen(name);
  };
  const options = (open && found?.classes) || [];
  const none = open && found && !found.total ? "No class has that in its name." : "";
  const key = (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!open) show();
      else if (options.length)
        setActive((active + (event.key === "ArrowDown" ? 1 : options.length - 1)) % options.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (clear && !text.trim()) take(null);
      else enter();
    } else if (event.key === "Escape" && open) {
      event.stopPropagation();
      hide();
      setText(value);
    }
  };
  // Enter may come before the suggestions do: what was typed then decides.
  const enter = async () => {
    const wanted = text.trim();
    if (
      open &&
      options.length &&
      latest.current === wanted &&
      found ===
        ask("/classes", { index: choice.index, model: choice.model, search: wanted.slice(0, LONGEST), limit: SHOWN })
          .data
    ) {
      take(options[active].name);
      return;
    }
    const answer = await ask("/classes", {
      index: choice.index,
      model: choice.model,
      search: wanted.slice(0, LONGEST),
      limit: SHOWN,
    }).promise.catch(() => null);
    if (answer?.classes.length) take(answer.classes[0].name);
    else setOpen(true);
  };
  const blur = () => {
    hide();
    if (clear && !text.trim() && value) chosen(null);
    else setText(value);
  };
  return html`<div class="search">
    <label for=${field} class=${hidden ? "unseen" : ""}>${label}</label>
    <input
      id=${field}
      type="text"
      role="combobox"
      autocomplete="off"
      spellcheck=${false}
      placeholder=${hint}
      aria-expanded=${open && options.length > 0}
      aria-controls=${`${field}-list`}
      aria-autocomplete="list"
      aria-activedescendant=${open && options.length ? `${field}-${active}` : undefined}
      value=${text}
      onFocus=${(event) => {
        event.target.select();
        show();
      }}
      onClick=${() => !open && show()}
      onInput=${(event) => {
        setText(event.target.value);
        setOpen(true);
        look(event.target.value.trim());
      }}
      onKeyDown=${key}
      onBlur=${blur}
    />
    <ul class="options" id=${`${field}-list`} role="listbox" aria-label=${label} hidden=${!open || !options.length}>
      ${options.map(
        (each, place) =>
          html`<li
            key=${each.class_id}
            id=${`${field}-${place}`}
            role="option"
            aria-selected=${place === active}
            onMouseDown=${(event) => {
              event.preventDefault(); // or the field loses the focus before the click
              take(each.name);
            }}
            onMouseMove=${() => setActive(place)}
          >
            <span>${each.name}</span
            ><span class="faint"
              >${choice.labelled ? count(each.images, "image") : `${count(each.predicted, "image")} taken for it`}</span
            >
          </li>`,
      )}
      ${
        found &&
        found.total > options.length &&
        html`<li class="faint more" role="presentation">
          ${count(found.total - options.length, "more class", "more classes")}: type on
        </li>`
      }
    </ul>
    <div class="unseen" role="status">${none}</div>
    ${none && html`<div class="options faint none" aria-hidden="true">${none}</div>`}
  </div>`;
}
