// Questions to the service, each asked once, and the addresses of its pictures.

import { useEffect, useState } from "./dom.js";
import { put } from "./url.js";

/** The event that says that the service wants a token. */
export const SIGNED_OUT = "bagindex-signed-out";
const BASE = "/api/v1";
const BUSY = 503;
const TRIES = 3;
const KEPT = 300;
const answers = new Map();

/** What the service said was wrong: `status`, `code` for programs, `message` for people. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The address of a question. Nothing, "" and false are left out; a list is given value by value. */
export function addressOf(path, values = {}) {
  const text = put(new URLSearchParams(), values).toString();
  return `${BASE}${path}${text ? `?${text}` : ""}`;
}

/** Send a request; the response, if it is a good one.
 *  Throws ApiError: it is none, or the service cannot be reached. */
export async function send(path, values, options = {}) {
  let response;
  try {
    response = await fetch(addressOf(path, values), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The service does not answer. Is `bagindex serve` still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) dispatchEvent(new Event(SIGNED_OUT));
  const problem = await response.json().catch(() => ({}));
  const said = (problem.errors ?? []).map((each) => `${each.where}: ${each.message}`).join("; ");
  throw new ApiError(
    response.status,
    problem.code ?? "failed",
    said || problem.detail || `The service answered ${response.status}.`,
  );
}

/** Ask for JSON; where the service has too much to do, again after a while. */
async function fetched(path, values) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await (await send(path, values)).json();
    } catch (error) {
      if (error.status !== BUSY || tried === TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * tried));
    }
  }
}

/** Ask; the same question is asked once. */
export function ask(path, values) {
  const key = addressOf(path, values);
  let answer = answers.get(key);
  if (!answer) {
    answer = { promise: fetched(path, values) };
    answer.promise.then(
      (data) => (answer.data = data),
      () => answers.delete(key), // a failure may pass
    );
    answers.set(key, answer);
    if (answers.size > KEPT) answers.delete(answers.keys().next().value);
  }
  return answer;
}

/** Forget all answers: who asks has changed. */
export function forget() {
  answers.clear();
}

/** The answer to a question: `{data, error, waiting}`. While a new one is awaited, `data` is still the old one's, so
 *  that the page does not jump. `path` null asks nothing. */
export function useAnswer(path, values = {}) {
  const key = path && addressOf(path, values);
  const [state, setState] = useState({ key: null });
  useEffect(() => {
    if (!key) return undefined;
    let wanted = true;
    ask(path, values).promise.then(
      (data) => wanted && setState({ key, data }),
      (error) => wanted && setState({ key, error }),
    );
    return () => (wanted = false);
  }, [key]);
  if (!key) return { waiting: false };
  if (state.key === key) return { ...state, waiting: false };
  const known = answers.get(key)?.data;
  return known ? { data: known, waiting: false } : { data: state.data, waiting: true };
}

/** Show a service that wants one the token; afterwards a cookie that only the service can read does it. */
export async function signIn(token) {
  await send(
    "/session",
    {},
    {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    },
  );
  forget();
}

/** Send a picture with a question about it. */
export async function sendPicture(path, values, file) {
  const form = new FormData();
  form.append("picture", file, file.name || "picture");
  return send(path, values, { method: "POST", body: form });
}

/** Ask in SQL; the answer in a media type. */
export async function sendSql(index, sql, accept = "application/json", signal = undefined) {
  return send(
    "/sql",
    { index },
    {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: accept },
      body: JSON.stringify({ sql }),
      signal,
    },
  );
}

/** The address of a patch's pixels. `choice` is what is looked at: see choice.js. */
export const patchPicture = (choice, id, model = choice.model) =>
  addressOf(`/patches/${id}.png`, { index: choice.index, model, v: choice.version });

/** The address of an image as the model saw it. */
export const imagePicture = (choice, id) => addressOf(`/images/${id}.png`, { index: choice.index, v: choice.version });
