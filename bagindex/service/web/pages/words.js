// Visual words: groups of patches that look alike to the model, and what they say.

import { html, useEffect, useState } from "../dom.js";
import { useAnswer } from "../api.js";
import { useChoice } from "../choice.js";
import { count, percent, signed, whole } from "../text.js";
import { change, to } from "../url.js";
import { Chip, Chips } from "../parts/chips.js";
import { AboutClass } from "../parts/class_head.js";
import { Segments } from "../parts/controls.js";
import { End, usePages } from "../parts/endless.js";
import { Foot, Nothing, Problem, Waiting } from "../parts/said.js";
import { ClassSearch } from "../parts/search.js";
import { bareItem, patchItem, Tiles } from "../parts/tiles.js";

const STEP = 24;
const TYPICAL = 6;
const MOST = 1000;
const LABELS = 6;
const BY = [
  ["right", (name) => `in images of ${name}`],
  ["wrong", () => "in images of others"],
  ["shortcuts", () => "possible shortcuts"],
];

export function WordsPage({ query }) {
  const choice = useChoice();
  const word = query.get("word");
  if (choice.described.words === null)
    return html`<h1 tabindex="-1">Visual words</h1>
      <${Nothing}>
        No words were made for ${choice.model} yet: run <code>bagindex words --make -i ${choice.index}</code>, then load
        this page again.
      <//>`;
  return /^\d+$/.test(word ?? "")
    ? html`<${Word} key=${word} word=${Number(word)} query=${query} />`
    : html`<${Words} query=${query} />`;
}

/** All words, or those that make a class's logit. */
function Words({ query }) {
  const choice = useChoice();
  const name = query.get("class") || null;
  const by = (name !== null && BY.find(([value]) => value === query.get("by"))?.[0]) || "right";
  const [shown, setShown] = useState(STEP);
  const about = { index: choice.index, model: choice.model, class: name, k: MOST };
  const answer = useAnswer("/words", { ...about, wrong_class: by === "wrong" });
  const errors = useAnswer(by === "shortcuts" ? "/shortcuts" : null, about);
  const all = (answer.data?.words ?? []).filter((each) => each.word !== null);
  const decisive = errors.data?.shortcuts.some((each) => each.errors > 0);
  const words = by === "shortcuts" ? suspects(all, errors.data) : all;
  useEffect(() => {
    document.title = `Words${name === null ? "" : ` of ${name}`} · ${choice.index} · bagindex`;
    setShown(STEP);
  }, [name, by, choice.index]);
  const body = html`<div class="filters">
      <${ClassSearch}
        label="Words of the class"
        value=${name ?? ""}
        clear
        hint="all classes"
        chosen=${(chosen) => change({ class: chosen }, { replace: true })}
      />
      ${
        name !== null &&
        choice.labelled &&
        html`<${Segments}
          name="by"
          label="Ranked by what they add"
          options=${BY.map(([value, title]) => [value, title(name)])}
          value=${by}
          chosen=${(value) => change({ by: value === "right" ? null : value }, { replace: true })}
        />`
      }
    </div>
    ${
      by === "shortcuts" &&
      html`<p>
        Words that speak for ${name} in images of other classes, with their patches there; those first without which
        most wrong answers “${name}” would not have been
        given${errors.data && !decisive && ": alone, none of them decides any"}. Whether a word is a shortcut or belongs
        to the class, its patches show.
      </p>`
    }
    ${[answer, errors].map((each) => each.error && html`<${Problem} error=${each.error} />`)}
    ${!answer.data && !answer.error && html`<${Waiting} />`}
    <ul class="cards">
      ${words.slice(0, shown).map((each) => html`<${WordCard} key=${each.word} of=${each} name=${name} />`)}
    </ul>
    ${shown < words.length && html`<${End} reached=${() => setShown(shown + STEP)} at=${shown} />`}`;
  return name === null
    ? html`<h1 tabindex="-1">Visual words</h1>
        <p>
          Patches that look alike to the model, grouped. Each word says for which classes it speaks; the largest come
          first.
        </p>
        ${body}`
    : html`<${AboutClass} name=${name} page="/words">
        <p>${means(name, answer.data)} Each word adds its share of all patches times its mean evidence.</p>
        ${body}
      <//>`;
}

/** The mean logits that the words add up to, in words. */
function means(name, answer) {
  if (answer?.right_logit == null || answer.wrong_logit == null) return null;
  return html`<span>
    The mean logit for ${name} is <b class="number">${signed(answer.right_logit)}</b> in images of ${name} and
    <b class="number">${signed(answer.wrong_logit)}</b> in others.
  </span>`;
}

/** The words that decide errors: each with how many, and with its patches in images of other classes. */
function suspects(words, answer) {
  const known = new Map(words.map((each) => [each.word, each]));
  return (answer?.shortcuts ?? []).map((each) => ({ ...known.get(each.word), ...each, shortcut: true }));
}

function WordCard({ of, name }) {
  return html`<li class="card">
    <h2><a href=${to("/words", { word: of.word, class: name })}>Word ${of.word}</a></h2>
    <${Tiles}
      label=${`Typical patches of word ${of.word}`}
      size="bare"
      items=${of.typical.slice(0, TYPICAL).map(bareItem)}
    />
    ${
      of.shortcut
        ? html`<${Suspicion} of=${of} name=${name} />`
        : name === null
          ? html`<${Chips}>
              ${of.says.map(
                (each) =>
                  html`<${Chip}
                    key=${each.class_id}
                    href=${to("/words", { class: each.class })}
                    number=${signed(each.evidence, 1)}
                  >
                    ${each.class}
                  <//>`,
              )}
            <//>`
          : html`<p>
              ${[
                ["right", `in images of ${name}`],
                ["wrong", "in others"],
              ].map(
                ([side, title]) =>
                  html`<span key=${side} class=${side}
                      ><b class="number"
                        >${of[`${side}_contribution`] == null ? "–" : signed(of[`${side}_contribution`], 3)}</b
                      >
                      ${title}</span
                    ><br />`,
              )}
            </p>`
    }
    <p class="faint">
      ${count(of.patches, "patch", "patches")} in ${count(of.images, "image")}${of.shortcut && " of others"}
    </p>
  </li>`;
}

/** Why a word may be a shortcut. */
const Suspicion = ({ of, name }) =>
  html`<p>
    decides <b class="number">${of.errors}</b> of ${count(of.of, "image")} wrongly called ${name}<br />
    <span class="wrong"><b class="number">${signed(of.adds, 3)}</b> to its lead in images of others</span>
  </p>`;

/** One word: what it says, where it is, and its patches. */
function Word({ word, query }) {
  const choice = useChoice();
  const about = { index: choice.index, model: choice.model };
  const list = usePages(`/words/${word}`, { ...about, class: query.get("class") }, { size: STEP, of: "found" });
  const without = useAnswer(choice.labelled ? "/without" : null, { ...about, word });
  const found = list.first;
  useEffect(() => {
    document.title = `Word ${word} · ${choice.index} · bagindex`;
  }, [word, choice.index]);
  const overall = without.data?.classes.at(-1); // of all classes together
  const patches = found?.labels.reduce((sum, each) => sum + each.patches, 0);
  return html`<h1 tabindex="-1">Word ${word}</h1>
    ${
      found &&
      html`<p>
          ${count(found.patches, "patch", "patches")} in
          ${count(found.images, "image")}.${overall && ` ${lost(overall)}`}
        </p>
        <${Tiles} label="Most typical patches" items=${found.typical.map(bareItem)} />
        <${Chips} title="speaks for">
          ${found.says.map(
            (each) =>
              html`<${Chip}
                key=${each.class_id}
                href=${to("/words", { word, class: each.class })}
                current=${each.class === found.class}
                number=${signed(each.evidence, 1)}
              >
                ${each.class}
              <//>`,
          )}
        <//>
        ${
          patches > 0 &&
          html`<${Chips} title="is found in images of">
            ${found.labels
              .slice(0, LABELS)
              .map(
                (each) =>
                  html`<${Chip}
                    key=${each.class_id}
                    href=${to("/class", { class: each.class })}
                    number=${percent(each.patches / patches)}
                  >
                    ${each.class}
                  <//>`,
              )}
            ${
              found.labels.length > LABELS &&
              html`<span class="faint">and ${whole(found.labels.length - LABELS)} more</span>`
            }
          <//>`
        }
        <div class="line spread">
          <h2>Its strongest patch for ${found.class}, image by image</h2>
          <${ClassSearch}
            label="Evidence for"
            value=${query.get("class") ?? found.class}
            chosen=${(chosen) => change({ class: chosen }, { replace: true })}
          />
        </div>
        <${Tiles}
          label=${`Patches of word ${word}`}
          values=${{ show: found.class }}
          items=${list.items.map(patchItem)}
        />`
    }
    <${Foot} of=${list} none="No image has it." />
    ${!list.done && list.items.length > 0 && html`<${End} reached=${list.more} at=${list.items.length} />`}`;
}

/** What accuracy would be without a word. */
const lost = ({ before, after }) =>
  `Without them ${percent(after, 1)} of the labelled images would be classified right instead of ${percent(before, 1)}.`;
