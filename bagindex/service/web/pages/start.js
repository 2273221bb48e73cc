// All classes, each with its strongest patches.

import { html, useEffect } from "../dom.js";
import { useAnswer } from "../api.js";
import { useChoice } from "../choice.js";
import { count, percent, whole } from "../text.js";
import { change, go, to } from "../url.js";
import { Select } from "../parts/controls.js";
import { End, useNear, usePages } from "../parts/endless.js";
import { Foot, Problem } from "../parts/said.js";
import { ClassSearch } from "../parts/search.js";
import { patchItem, Tiles } from "../parts/tiles.js";

const SIZE = 24;
const STRONGEST = 6;
const ORDERS = [
  ["id", "as in the model"],
  ["name", "by name"],
  ["accuracy", "least often right first"],
  ["-accuracy", "most often right first"],
  ["-images", "most images first"],
];

export function StartPage({ query }) {
  const choice = useChoice();
  const wanted = query.get("order");
  const order = ORDERS.some(([value]) => value === wanted) ? wanted : "id";
  const values = {
    index: choice.index,
    model: choice.model,
    order: order.replace("-", ""),
    descending: order.startsWith("-"),
  };
  const list = usePages("/classes", values, { size: SIZE, count: "limit", of: "classes" });
  useEffect(() => {
    document.title = `${choice.index} · bagindex`;
  }, [choice.index]);
  const size = choice.grid.receptive_field;
  return html`<div class="hero">
      <h1 tabindex="-1">What does the model look at?</h1>
      <p>
        ${choice.described.name} decides by adding up evidence from patches of ${size} × ${size} pixels. Choose a class
        and see which patches speak for it most, in images of that class and in images of others.
      </p>
      <${ClassSearch}
        id="search"
        label="Search for a class"
        hidden
        hint="Type a class …"
        chosen=${(name) => go(to("/class", { class: name }))}
      />
      <p class="faint">
        ${choice.index}: ${count(choice.images, "image")}, ${count(choice.classes, "class", "classes")};
        ${known(choice)}.
      </p>
    </div>
    <div class="line spread">
      <h2>Classes</h2>
      ${
        choice.classes > 2 &&
        html`<${Select}
          label="Order"
          options=${ORDERS.filter(([value]) => choice.labelled || !/accuracy|images/.test(value))}
          value=${order}
          chosen=${(value) => change({ order: value === "id" ? null : value }, { replace: true })}
        />`
      }
    </div>
    <ul class="cards">
      ${list.items.map((each) => html`<${Card} key=${each.class_id} of=${each} />`)}
    </ul>
    <${Foot} of=${list} none="There are no classes." />
    ${!list.done && html`<${End} reached=${list.more} at=${list.items.length} />`}`;
}

/** What is known of the labels, in words. */
function known(choice) {
  const { correct, labelled } = choice.described;
  if (!labelled) return "without labels";
  const which = labelled === choice.images ? "them" : `${whole(labelled)} labelled ones`;
  return `${percent(correct / labelled)} of ${which} are classified right`;
}

function Card({ of }) {
  const choice = useChoice();
  const [place, near] = useNear();
  const values = {
    index: choice.index,
    model: choice.model,
    class: of.name,
    images: choice.labelled && of.images ? "right_class" : "any",
    k: STRONGEST,
  };
  const answer = useAnswer(near ? "/top-patches" : null, values);
  return html`<li class="card" ref=${place}>
    <h3><a href=${to("/class", { class: of.name })}>${of.name}</a></h3>
    <p class="faint">
      ${
        choice.labelled
          ? of.images
            ? html`${count(of.images, "image")}, <span class="number">${percent(of.correct / of.images)}</span> right`
            : "no image has this label"
          : `${count(of.predicted, "image")} taken for it`
      }
    </p>
    ${answer.error && html`<${Problem} error=${answer.error} />`}
    <${Tiles}
      label=${`Strongest patches for ${of.name}`}
      size="bare"
      values=${{ show: of.name }}
      items=${(answer.data?.patches ?? []).map((patch) => ({ ...patchItem(patch), said: null, more: null }))}
    />
  </li>`;
}
