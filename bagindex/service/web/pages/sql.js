// Ask in SQL: tables on the side, examples, rows in which patches and images are pictures.

import { html, useEffect, useRef, useState } from "../dom.js";
import { imagePicture, sendSql, useAnswer } from "../api.js";
import { useChoice } from "../choice.js";
import { whole } from "../text.js";
import { address, change, changed } from "../url.js";
import { End } from "../parts/endless.js";
import { Answer, Problem, Waiting } from "../parts/said.js";
import { Share } from "../parts/share.js";
import { opening, PatchPicture, remember } from "../parts/tiles.js";

const STEP = 100;
const LONG = 90; // of a list or a structure in a cell
const LONGEST = 2000;
const SAVED = "bagindex-queries";
const FILES = [
  ["CSV", "csv", "text/csv"],
  ["Parquet", "parquet", "application/vnd.apache.parquet"],
];

export function SqlPage({ query }) {
  const choice = useChoice();
  const asked = query.get("q");
  const described = useAnswer("/tables", { index: choice.index });
  const [text, setText] = useState(asked ?? "");
  const [answer, setAnswer] = useState(null);
  const [running, setRunning] = useState(false);
  const [stored, setStored] = useState(readStored());
  const field = useRef(null);
  const under = useRef(null);

  useEffect(() => {
    document.title = `SQL · ${choice.index} · bagindex`;
  }, [choice.index]);
  const stop = () => under.current?.abort();
  useEffect(() => {
    if (asked === null) return undefined;
    setText(asked);
    const mine = new AbortController();
    under.current = mine;
    setRunning(true);
    sendSql(choice.index, asked, undefined, mine.signal)
      .then((response) => response.text())
      .then(
        (text) => setAnswer({ data: JSON.parse(text, whole64), asked }),
        (error) => error.name !== "AbortError" && setAnswer({ error, asked }),
      )
      .finally(() => under.current === mine && setRunning(false));
    return () => mine.abort();
  }, [asked, choice.index, query.get("run")]);
  // The same query again is a new question, too: the index may have grown.
  const run = (sql = text) =>
    sql.trim() && change({ q: sql.trim(), run: sql.trim() === asked ? Number(query.get("run") ?? 0) + 1 : null });
  const insert = (word) => {
    const { selectionStart: start, selectionEnd: end } = field.current;
    setText(text.slice(0, start) + word + text.slice(end));
    requestAnimationFrame(() => {
      field.current.focus();
      field.current.setSelectionRange(start + word.length, start + word.length);
    });
  };
  const save = () =>
    setStored(writeStored([text.trim(), ...stored.filter((each) => each !== text.trim())].slice(0, 50)));
  return html`<h1 tabindex="-1">SQL</h1>
    <div class="sql">
      <section class="schema" aria-label="Tables and examples">
        ${described.error && html`<${Problem} error=${described.error} />`}
        <h2>Examples</h2>
        <ul class="plain-list">
          ${(described.data?.examples ?? []).map(
            (each) =>
              html`<li key=${each.title}>
                <button type="button" class="plain" title=${each.about} onClick=${() => run(each.sql)}>
                  ${each.title}
                </button>
              </li>`,
          )}
        </ul>
        ${
          stored.length > 0 &&
          html`<h2>Saved</h2>
            <ul class="plain-list">
              ${stored.map(
                (each) =>
                  html`<li key=${each} class="line">
                    <button type="button" class="plain grow cut" title=${each} onClick=${() => run(each)}>
                      ${each.split("\n")[0]}
                    </button>
                    <button
                      type="button"
                      class="plain"
                      aria-label=${`Forget ${each.split("\n")[0]}`}
                      onClick=${() => setStored(writeStored(stored.filter((other) => other !== each)))}
                    >
                      ✕
                    </button>
                  </li>`,
              )}
            </ul>`
        }
        <h2>Tables</h2>
        ${(described.data?.tables ?? []).map((each) => html`<${Table} key=${each.name} of=${each} insert=${insert} />`)}
      </section>
      <section class="ask" aria-label="Query">
        <form
          onSubmit=${(event) => {
            event.preventDefault();
            run();
          }}
        >
          <label class="unseen" for="query">Query</label>
          <textarea
            id="query"
            ref=${field}
            rows=${Math.min(16, Math.max(5, text.split("\n").length + 1))}
            spellcheck=${false}
            autocapitalize="off"
            autocomplete="off"
            value=${text}
            placeholder="SELECT … FROM images"
            onInput=${(event) => setText(event.target.value)}
            onKeyDown=${(event) => {
              if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
                event.preventDefault();
                run();
              }
            }}
          />
          <div class="line">
            ${
              running
                ? html`<button
                    key="stop"
                    type="button"
                    onClick=${() => {
                      stop();
                      setRunning(false);
                    }}
                  >
                    Stop
                  </button>`
                : html`<button key="run" class="main" disabled=${!text.trim()}>Run</button>`
            }
            <span class="faint">Ctrl + Enter</span><span class="gap" />
            <button type="button" onClick=${save} disabled=${!text.trim() || stored.includes(text.trim())}>Save</button>
            ${asked !== null && html`<${Share} keyed />`}
          </div>
        </form>
        ${
          asked === null &&
          html`<p class="faint">
            Pick an example, or ask DuckDB whatever you like: nothing can be changed from here. Columns called patch_id
            and image_id show as pictures.
          </p>`
        }
        ${running && html`<${Waiting}>Running…<//>`}
        ${
          answer &&
          !running &&
          html`<${Answer}
            of=${answer}
            draw=${(data) => html`<${Rows} key=${answer.asked} of=${data} asked=${answer.asked} />`}
          />`
        }
      </section>
    </div>`;
}

function Table({ of, insert }) {
  return html`<details>
    <summary><b>${of.name}</b>${of.kind === "macro" ? "()" : ""}</summary>
    <p class="faint">${of.about}</p>
    ${
      of.call &&
      html`<p>
        <button type="button" class="plain" onClick=${() => insert(of.call)}><code>${of.call}</code></button>
      </p>`
    }
    <ul class="plain-list">
      ${of.columns.map(
        (each) =>
          html`<li key=${each.name}>
            <button type="button" class="plain" title=${each.about} onClick=${() => insert(each.name)}>
              <code>${each.name}</code>
            </button>
            <span class="faint">${each.type.toLowerCase()}<br />${each.about}</span>
          </li>`,
      )}
    </ul>
  </details>`;
}

function Rows({ of, asked }) {
  const choice = useChoice();
  const [shown, setShown] = useState(STEP);
  const [error, setError] = useState(null);
  const download = async (ending, kind) => {
    setError(null);
    try {
      const response = await sendSql(choice.index, asked, kind);
      const anchor = document.createElement("a");
      anchor.href = URL.createObjectURL(await response.blob());
      anchor.download = `${choice.index}.${ending}`;
      anchor.click();
      setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
    } catch (problem) {
      setError(problem);
    }
  };
  const model = of.columns.findIndex((each) => each.name === "model");
  return html`<div class="line">
      <span role="status"
        >${whole(of.rows.length)} ${of.rows.length === 1 ? "row" : "rows"},
        <span class="number">${of.milliseconds.toFixed(0)} ms</span
        >${of.truncated ? "; there are more, which are left out: add a LIMIT or count them" : ""}</span
      ><span class="gap" />
      ${FILES.map(
        ([title, ending, kind]) =>
          html`<button key=${ending} type="button" onClick=${() => download(ending, kind)}>${title}</button>`,
      )}
    </div>
    ${error && html`<${Problem} error=${error} />`}
    <div class="wide" tabindex="0" role="region" aria-label="Result, scrolls sideways">
      <table class="rows">
        <thead>
          <tr>
            ${of.columns.map((each) => html`<th scope="col" title=${each.type}>${each.name}</th>`)}
          </tr>
        </thead>
        <tbody data-patches>
          ${of.rows.slice(0, shown).map(
            (row) =>
              html`<tr>
                ${row.map(
                  (value, place) =>
                    html`<td class=${typeof value === "number" ? "number" : ""}>
                      <${Value}
                        value=${value}
                        column=${of.columns[place]}
                        model=${model < 0 ? undefined : row[model]}
                      />
                    </td>`,
                )}
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    ${shown < of.rows.length && html`<${End} reached=${() => setShown(shown + STEP)} at=${shown} />`}`;
}

function Value({ value, column, model }) {
  const choice = useChoice();
  const own = choice.models.some((each) => each.name === model) ? model : undefined;
  if (value === null) return html`<span class="faint">null</span>`;
  if (Number.isInteger(value) && value >= 0 && choice.pixels) {
    if (/(^|_)patch_id$/.test(column.name))
      return html`<a
        class="tile shown"
        href=${opening(value, own && own !== choice.model ? { model: own } : {})}
        onClick=${remember}
        data-patch=${value}
        aria-current=${address().query.get("patch") === String(value) ? "true" : undefined}
        ><${PatchPicture} id=${value} model=${own} /> ${value}</a
      >`;
    if (/(^|_)image_id$/.test(column.name))
      return html`<a class="tile shown" href=${changed({ image: value, patch: null, show: null })}
        ><img
          class="thumbnail"
          src=${imagePicture(choice, value)}
          alt=""
          loading="lazy"
          width=${choice.input.width}
          height=${choice.input.height}
        />
        ${value}</a
      >`;
  }
  if (typeof value === "number" && !Number.isInteger(value))
    return html`<span title=${value}>${Number(value.toPrecision(8))}</span>`;
  if (typeof value !== "object") return html`<span title=${String(value)}>${String(value)}</span>`;
  const text = JSON.stringify(value);
  return html`<span title=${text.slice(0, LONGEST)}>${text.length > LONG ? `${text.slice(0, LONG)}…` : text}</span>`;
}

/** Integers beyond 2^53 as they were written: a number of JavaScript would be another one. */
const whole64 = (_, value, context) =>
  Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
    ? context.source
    : value;

function readStored() {
  try {
    const found = JSON.parse(localStorage.getItem(SAVED) ?? "[]");
    return Array.isArray(found) ? found.filter((each) => typeof each === "string") : [];
  } catch {
    return [];
  }
}

function writeStored(queries) {
  try {
    localStorage.setItem(SAVED, JSON.stringify(queries));
  } catch {
    // a browser that keeps nothing forgets them with the page
  }
  return queries;
}
