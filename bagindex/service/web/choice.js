// Which index and which model are looked at.

import { createContext, useContext } from "./dom.js";
import { useAnswer } from "./api.js";

const Choice = createContext(null);

/** What is looked at: `index`, `model`, `models` (all of them, as the service describes them), `labelled`, `pixels`,
 *  `version`, `sql`, `grid` of the model, `indexes`. */
export const useChoice = () => useContext(Choice);
export const ChoiceProvider = Choice.Provider;

/** Find out what the address chooses: `{choice}`, or `{error}`, or neither while it is awaited. */
export function useChosen(query) {
  const served = useAnswer("/indexes");
  const indexes = served.data?.indexes ?? [];
  const wanted = query.get("index") ?? indexes[0]?.name;
  const found = indexes.find((each) => each.name === wanted);
  const described = useAnswer(found ? "/models" : null, { index: found?.name });
  const error = served.error ?? described.error;
  if (error) return { error };
  if (served.data && !found) return { error: new Error(`There is no index “${wanted}” here.`) };
  const models = described.data?.models;
  if (!models || described.waiting) return {};
  const name = query.get("model") ?? models[0]?.name;
  const model = models.find((each) => each.name === name);
  if (!model) return { error: new Error(`The index “${wanted}” has no model “${name}”.`) };
  return { choice: { ...found, index: found.name, model: name, models, grid: model.grid, described: model, indexes } };
}
