// The paper's Figure 3 for one class: its strongest patches in images of the class, and in images of others.

import { html, useEffect } from "../dom.js";
import { useChoice } from "../choice.js";
import { change } from "../url.js";
import { ClassHead } from "../parts/class_head.js";
import { End, usePages } from "../parts/endless.js";
import { Nothing, Problem, Waiting } from "../parts/said.js";
import { ClassSearch } from "../parts/search.js";
import { patchItem, Tiles } from "../parts/tiles.js";
import { StartPage } from "./start.js";

const SIZE = 24;
const SIDES = {
  right_class: { mark: "right", title: (name) => `In images of ${name}`, about: (name) => `labelled ${name}` },
  wrong_class: { mark: "wrong", title: () => "In images of other classes", about: () => "labelled otherwise" },
  any: { mark: "any", title: () => "In all images", about: () => "whatever their label" },
};
const SHOWN = [
  ["both", "Both"],
  ["right_class", "Of the class"],
  ["wrong_class", "Of others"],
  ["any", "All"],
];
const PER_IMAGE = [1, 2, 3, 5, 10];

export function ClassPage({ query }) {
  const choice = useChoice();
  const name = query.get("class");
  useEffect(() => {
    document.title = `${name} · ${choice.index} · bagindex`;
  }, [name, choice.index]);
  if (name === null) return html`<${StartPage} query=${query} />`;
  const wanted = query.get("images");
  const shown = !choice.labelled ? "any" : SIDES[wanted] ? wanted : "both";
  const sides = shown === "both" ? ["right_class", "wrong_class"] : [shown];
  const models = [
    choice.model,
    ...query
      .getAll("with")
      .filter((each) => each !== choice.model && choice.models.some((model) => model.name === each)),
  ];
  return html`<${ClassHead} name=${name} page="/class" />
    <${Filters} query=${query} shown=${shown} models=${models} />
    <div class="groups" style=${{ "--groups": models.length }}>
      ${models.map(
        (model) =>
          html`<section key=${model} class="group" aria-label=${model}>
            ${models.length > 1 && html`<h2>${model}</h2>`}
            <div class="columns" style=${{ "--columns": sides.length }}>
              ${sides.map(
                (side) =>
                  html`<${Side}
                    key=${side}
                    name=${name}
                    side=${side}
                    model=${model}
                    query=${query}
                    Heading=${models.length > 1 ? "h3" : "h2"}
                  />`,
              )}
            </div>
          </section>`,
      )}
    </div>`;
}

/** The values of the address that narrow down which images are meant, as the service takes them. */
const narrowing = (query) => ({
  label: query.get("label"),
  predicted_as: query.get("predicted_as"),
  misclassified: query.get("misclassified") === "true",
  per_image: query.get("per_image"),
  overlap: query.get("overlap") === "true",
  where: query.get("where"),
});

function Side({ name, side, model, query, Heading }) {
  const choice = useChoice();
  const values = { index: choice.index, model, class: name, images: side, ...narrowing(query) };
  const list = usePages("/top-patches", values, { size: SIZE, of: "patches" });
  const items = list.items.map((patch) => patchItem(patch));
  const other = model === choice.model ? {} : { model };
  return html`<section class=${`side-of ${SIDES[side].mark}`}>
    <${Heading}>${SIDES[side].title(name)}</${Heading}>
    <p class="faint">${SIDES[side].about(name)}</p>
    ${items.length > 0 && html`<${Tiles} label=${`${SIDES[side].title(name)}, ${model}`} items=${items} model=${model} values=${other} eager=${12} />`}
    ${
      list.error
        ? html`<${Problem} error=${list.error} />`
        : list.waiting
          ? html`<${Waiting} />`
          : list.done &&
            (items.length ? html`<p class="faint">That is all.</p>` : html`<${Nothing}>No image fits.</${Nothing}>`)
    }
    ${!list.done && items.length > 0 && html`<${End} reached=${list.more} at=${items.length} />`}
  </section>`;
}

function Filters({ query, shown, models }) {
  const choice = useChoice();
  const set = (values) => change({ ...values, patch: null, image: null }, { replace: true });
  const perImage = query.get("per_image") ?? "1";
  const others = choice.models.filter((each) => each.name !== choice.model);
  const more = ["where", "label", "overlap"].some((name) => query.get(name)) || perImage !== "1";
  return html`<div class="filters" role="group" aria-label="Which patches">
    ${
      choice.labelled &&
      html`<fieldset class="segments">
        <legend class="unseen">Images</legend>
        ${SHOWN.map(
          ([value, title]) =>
            html`<label key=${value}
              ><input
                type="radio"
                name="images"
                value=${value}
                checked=${shown === value}
                onChange=${() => set({ images: value === "both" ? null : value })}
              /><span>${title}</span></label
            >`,
        )}
      </fieldset>`
    }
    <${ClassSearch}
      label="Predicted as"
      value=${query.get("predicted_as") ?? ""}
      clear
      hint="any class"
      chosen=${(name) => set({ predicted_as: name })}
    />
    ${choice.labelled && html`<label><input type="checkbox" checked=${query.get("misclassified") === "true"} onChange=${(event) => set({ misclassified: event.target.checked || null })} /> only misclassified</label>`}
    ${others.map(
      (each) =>
        html`<label key=${each.name}
          ><input
            type="checkbox"
            checked=${models.includes(each.name)}
            onChange=${(event) => set({ with: event.target.checked ? [...query.getAll("with"), each.name] : query.getAll("with").filter((name) => name !== each.name) })}
          />
          beside ${each.name}</label
        >`,
    )}
    <details open=${more}>
      <summary>More</summary>
      <div class="filters">
        ${choice.labelled && html`<${ClassSearch} label="Labelled" value=${query.get("label") ?? ""} clear hint="any class" chosen=${(name) => set({ label: name })} />`}
        <label
          >Patches of one image, at most
          <select
            value=${perImage}
            onChange=${(event) => set({ per_image: event.target.value === "1" ? null : event.target.value })}
          >
            ${[...new Set([...PER_IMAGE, Number(perImage)])].filter((each) => each >= 1).map((each) => html`<option key=${each}>${each}</option>`)}
          </select></label
        >
        <label
          ><input
            type="checkbox"
            checked=${query.get("overlap") === "true"}
            disabled=${perImage === "1"}
            onChange=${(event) => set({ overlap: event.target.checked || null })}
          />
          they may overlap</label
        >
        ${
          choice.sql &&
          html`<form
            class="line"
            onSubmit=${(event) => {
              event.preventDefault();
              set({ where: new FormData(event.target).get("where").trim() });
            }}
          >
            <label
              >SQL condition on the images
              <input
                name="where"
                type="text"
                spellcheck=${false}
                placeholder="probability < 0.5 AND width > 300"
                value=${query.get("where") ?? ""}
            /></label>
            <button>Apply</button>
          </form>`
        }
      </div>
    </details>
  </div>`;
}
