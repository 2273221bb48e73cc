// Numbers and names as people read them.

const WHOLE = new Intl.NumberFormat("en");

/** 12,345 */
export const whole = (value) => WHOLE.format(value);

/** So many digits, and of what stands just between two numbers the even one, as figures and tables have it: stored
 *  logits are float16, so that many do. */
function fixed(value, digits) {
  const scaled = value * 10 ** digits;
  const below = Math.floor(scaled);
  return (scaled - below === 0.5 ? (below + (below % 2 ? 1 : 0)) / 10 ** digits : value).toFixed(digits);
}

/** 7.19, −0.03: a logit, with a real minus sign. */
export const logit = (value, digits = 2) => fixed(value, digits).replace("-", "−");

/** +7.19, −0.03 */
export const signed = (value, digits = 2) => (value >= 0 ? "+" : "") + logit(value, digits);

/** 17 %, 0.4 %; small shares have a digit more unless it is said how many. */
export function percent(share, digits = undefined) {
  const value = share * 100;
  return `${fixed(value, digits ?? (value > 0 && value < 10 ? 1 : 0))} %`;
}

/** 1 image, 12 images */
export const count = (value, one, many = `${one}s`) => `${whole(value)} ${value === 1 ? one : many}`;

/** The last part of a path. */
export const fileName = (path) => path.slice(path.lastIndexOf("/") + 1);
