// The page: finds out what is asked for, and draws it.

import { html, render, useEffect, useErrorBoundary, useLayoutEffect, useRef, useState } from "./dom.js";
import { forget, SIGNED_OUT, signIn } from "./api.js";
import { ChoiceProvider, useChosen } from "./choice.js";
import { Inspector } from "./inspector.js";
import { Header } from "./parts/header.js";
import { Problem, Waiting } from "./parts/said.js";
import { ClassPage } from "./pages/class.js";
import { ConfusionsPage } from "./pages/confusions.js";
import { MapPage } from "./pages/map.js";
import { hold, PicturePage } from "./pages/picture.js";
import { SqlPage } from "./pages/sql.js";
import { StartPage } from "./pages/start.js";
import { WordsPage } from "./pages/words.js";
import { go, install, settleScroll, to, useAddress } from "./url.js";

const PAGES = {
  "/": StartPage,
  "/class": ClassPage,
  "/confusions": ConfusionsPage,
  "/words": WordsPage,
  "/map": MapPage,
  "/sql": SqlPage,
  "/picture": PicturePage,
};
const NARROW = matchMedia("(max-width: 60rem)");

function App() {
  const [signedOut, setSignedOut] = useState(false);
  useEffect(() => addEventListener(SIGNED_OUT, () => setSignedOut(true)), []);
  return signedOut ? html`<${SignIn} done=${() => setSignedOut(false)} />` : html`<${Room} />`;
}

function Room() {
  const { path, query } = useAddress();
  const { choice, error } = useChosen(query);
  const [broken, mended] = useErrorBoundary((problem) => console.error(problem));
  const narrow = useNarrow();
  const main = useRef(null);
  const drawn = useRef(null);
  useLayoutEffect(() => {
    settleScroll();
    // On a new page a screen reader begins with its heading; the first is read anyhow.
    if (choice && drawn.current !== path) {
      if (drawn.current !== null) main.current?.querySelector("h1")?.focus({ preventScroll: true });
      drawn.current = path;
    }
  });
  if (error)
    return html`<main class="alone">
      <h1>bagindex</h1>
      <${Problem} error=${error} />
      <p><a href="/">Start anew</a></p>
    </main>`;
  if (!choice) return html`<main class="alone"><${Waiting}>Opening the index…</${Waiting}></main>`;
  const Page = PAGES[path] ?? NoPage;
  const patch = number(query.get("patch"));
  const image = number(query.get("image"));
  const inspecting = patch !== null || image !== null;
  return html`<${ChoiceProvider} value=${choice}>
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      main.current.querySelector("h1")?.focus();
    }}>Skip to content</a>
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      main.current.querySelector("a.tile[tabindex='0']")?.focus();
    }}>Skip to the patches</a>
    <${Header} path=${path} />
    <${Drop} />
    <div class=${`room ${inspecting ? "inspecting" : ""}`}>
      <main id="main" ref=${main} inert=${inspecting && narrow}>
        ${
          broken
            ? html`<${Problem} error=${broken} />
                <p>
                  <button
                    type="button"
                    onClick=${() => {
                      mended();
                      go(to("/"));
                    }}
                  >
                    Start anew
                  </button>
                </p>`
            : html`<${Page} key=${`${choice.index} ${path}`} query=${query} />`
        }
      </main>
      ${inspecting && html`<${Inspector} key=${`${choice.index} ${choice.model}`} patch=${patch} image=${image} />`}
    </div>
  </${ChoiceProvider}>`;
}

/** What is said of an address that is no page's. */
const NoPage = () =>
  html`<h1 tabindex="-1">There is no such page</h1>
    <p><a href=${to("/")}>All classes</a></p>`;

/** Whether the panel covers the page, which may change while it is open. */
function useNarrow() {
  const [narrow, setNarrow] = useState(NARROW.matches);
  useEffect(() => {
    const changed = () => setNarrow(NARROW.matches);
    NARROW.addEventListener("change", changed);
    return () => NARROW.removeEventListener("change", changed);
  }, []);
  return narrow;
}

const number = (text) => (text !== null && /^\d{1,18}$/.test(text) ? Number(text) : null);

/** Asks for the token where the service wants one and the browser has shown none. */
function SignIn({ done }) {
  const [wrong, setWrong] = useState(null);
  const enter = async (event) => {
    event.preventDefault();
    try {
      await signIn(new FormData(event.target).get("token").trim());
      done();
    } catch (error) {
      setWrong(error.status === 401 ? new Error("That is not the token.") : error);
    }
  };
  return html`<main class="alone">
    <h1>bagindex</h1>
    <p>This service wants a token: <code>bagindex serve</code> printed it when it was started.</p>
    <form class="line" onSubmit=${enter}>
      <label>Token <input name="token" type="password" autocomplete="current-password" required /></label>
      <button>Open</button>
    </form>
    ${wrong && html`<${Problem} error=${wrong} />`}
  </main>`;
}

/** A picture may be dropped, or pasted, anywhere. */
function Drop() {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const has = (transfer) => [...(transfer?.types ?? [])].includes("Files");
    const take = (transfer) => {
      const file = transfer?.files?.[0];
      if (!file) return false;
      hold(file);
      go(to("/picture"));
      return true;
    };
    const listeners = {
      dragover: (event) => has(event.dataTransfer) && (event.preventDefault(), setOver(true)),
      dragleave: (event) => event.relatedTarget === null && setOver(false),
      drop: (event) => {
        if (!has(event.dataTransfer)) return;
        event.preventDefault();
        setOver(false);
        take(event.dataTransfer);
      },
      paste: (event) => take(event.clipboardData) && event.preventDefault(),
    };
    for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener);
    return () => {
      for (const [name, listener] of Object.entries(listeners)) removeEventListener(name, listener);
    };
  }, []);
  return (
    over && html`<div class="drop" aria-hidden="true"><p>Drop the picture: what does the model see in it?</p></div>`
  );
}

/** The token may come with the address that `bagindex serve` prints; it does not stay there. */
async function start() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) {
    history.replaceState(null, "", location.pathname + location.search);
    await signIn(token).catch(() => forget());
  }
  install();
  render(html`<${App} />`, document.getElementById("app"));
}

start();
