// The paper's Figure 3 for one class: its strongest patches in images of the class, and in images of others.

import { html, useEffect } from "../dom.js";
import { useChoice } from "../choice.js";
import { change } from "../url.js";
import { AboutClass } from "../parts/class_head.js";
import { Check, Segments, Select } from "../parts/controls.js";
import { End, usePages } from "../parts/endless.js";
import { Foot } from "../parts/said.js";
import { ClassSearch } from "../parts/search.js";
import { patchItem, Tiles } from "../parts/tiles.js";
import { StartPage } from "./start.js";

const SIZE = 24;
const SIDES = {
  right_class: {
    mark: "right",
    title: (name) => `In images of ${name}`,
    about: (name) => `labelled ${name}; below each patch its logit`,
  },
  wrong_class: {
    mark: "wrong",
    title: () => "In images of other classes",
    about: () => "labelled otherwise, → what it is taken for",
  },
  any: { mark: "any", title: () => "In all images", about: () => "whatever their label; below each patch its logit" },
};
const SHOWN = [
  ["both", "Both"],
  ["right_class", "Of the class"],
  ["wrong_class", "Of others"],
  ["any", "All"],
];
const SEEN_FIRST = 7; // as many as the paper shows
const PER_IMAGE = [1, 2, 3, 5, 10];

export function ClassPage({ query }) {
  const choice = useChoice();
  const name = query.get("class") || null;
  useEffect(() => {
    if (name !== null) document.title = `${name} · ${choice.index} · bagindex`;
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
  return html`<${AboutClass} name=${name} page="/class">
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
    </div>
  <//>`;
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
  const items = list.items.map(patchItem);
  return html`<section class=${`side-of ${SIDES[side].mark}`}>
    <${Heading}>${SIDES[side].title(name)}</${Heading}>
    <p class="faint">${SIDES[side].about(name)}</p>
    ${
      items.length > 0 &&
      html`<${Tiles}
        label=${`${SIDES[side].title(name)}, ${model}`}
        items=${items}
        model=${model}
        values=${model === choice.model ? {} : { model }}
        eager=${SEEN_FIRST}
      />`
    }
    <${Foot} of=${list} none="No image fits." />
    ${list.done && !list.error && items.length > 0 && html`<p class="faint">That is all.</p>`}
    ${!list.done && items.length > 0 && html`<${End} reached=${list.more} at=${items.length} />`}
  </section>`;
}

/** How many patches of one image may be asked for; what the address says is among them. */
const counts = (chosen) => [...new Set([...PER_IMAGE, Number(chosen)])].filter((each) => each >= 1);

function Filters({ query, shown, models }) {
  const choice = useChoice();
  const set = (values) => change({ ...values, patch: null, image: null }, { replace: true });
  const perImage = query.get("per_image") ?? "1";
  const others = choice.models.filter((each) => each.name !== choice.model);
  const beside = (name, on) => [...query.getAll("with").filter((each) => each !== name), ...(on ? [name] : [])];
  const more = ["where", "label", "overlap"].some((name) => query.get(name)) || perImage !== "1";
  return html`<div class="filters" role="group" aria-label="Which patches">
    ${
      choice.labelled &&
      html`<${Segments}
        name="images"
        label="Images"
        options=${SHOWN}
        value=${shown}
        chosen=${(value) => set({ images: value === "both" ? null : value })}
      />`
    }
    <${ClassSearch}
      label="Predicted as"
      value=${query.get("predicted_as") ?? ""}
      clear
      hint="any class"
      chosen=${(name) => set({ predicted_as: name })}
    />
    ${
      choice.labelled &&
      html`<${Check}
        checked=${query.get("misclassified") === "true"}
        chosen=${(on) => set({ misclassified: on || null })}
      >
        only misclassified
      <//>`
    }
    ${others.map(
      ({ name }) =>
        html`<${Check} key=${name} checked=${models.includes(name)} chosen=${(on) => set({ with: beside(name, on) })}>
          beside ${name}
        <//>`,
    )}
    <details open=${more}>
      <summary>More</summary>
      <div class="filters">
        ${
          choice.labelled &&
          html`<${ClassSearch}
            label="Labelled"
            value=${query.get("label") ?? ""}
            clear
            hint="any class"
            chosen=${(name) => set({ label: name })}
          />`
        }
        <${Select}
          label="Patches of one image, at most"
          options=${counts(perImage).map((each) => [each, each])}
          value=${perImage}
          chosen=${(value) => set({ per_image: value === "1" ? null : value })}
        />
        <${Check}
          checked=${query.get("overlap") === "true"}
          disabled=${perImage === "1"}
          chosen=${(on) => set({ overlap: on || null })}
        >
          they may overlap
        <//>
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
