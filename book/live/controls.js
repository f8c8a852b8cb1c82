/** The parts of the page that are built from the site's data: samples, targets, sliders. */

import { SLIDERS, sliderStops } from "./settings.js";

/** @typedef {import("./settings.js").Site} Site */
/** @typedef {import("./settings.js").MaskSettings} MaskSettings */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, any>} properties
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}

/** @param {string} name of a sample, such as grace_hopper */
export const spoken = (name) => name.replaceAll("_", " ");

/**
 * @param {HTMLElement} box
 * @param {Site} site
 * @param {URL} base
 * @param {(name: string) => void} choose
 */
export function buildSamples(box, site, base, choose) {
  for (const { name, thumbnail } of site.samples) {
    const input = make("input", { type: "radio", name: "live-sample", value: name });
    input.addEventListener("change", () => choose(name));
    const picture = make("img", {
      src: new URL(thumbnail, base).href,
      alt: "",
      width: 112,
      height: 112,
    });
    box.append(make("label", { title: spoken(name) }, input, picture, make("span", {}, spoken(name))));
  }
}

/**
 * @typedef {object} Target
 * @property {number[]} classes
 * @property {string} name
 * @property {number | null} score
 */

/**
 * @param {HTMLElement} box
 * @param {Target[]} targets
 * @param {number} chosen its place in `targets`
 * @param {(target: Target) => void} choose
 */
export function buildTargets(box, targets, chosen, choose) {
  const rows = targets.map((target, index) => {
    const input = make("input", { type: "radio", name: "live-target", checked: index === chosen });
    input.addEventListener("change", () => choose(target));
    const bar = make("span", { className: "live-bar" });
    bar.style.setProperty("--score", String(target.score ?? 0));
    const score = make("span", {
      className: "live-score",
      textContent: target.score === null ? "" : target.score.toFixed(3),
    });
    return make("label", {}, input, make("span", {}, target.name), bar, score);
  });
  box.replaceChildren(...rows);
}

/** The labels of the sliders, where the table's own words are too long. @type {Record<string, string>} */
const LABELS = {
  area_weight: "weight of the area",
  tv_weight: "weight of the total variation",
  tv_exponent: "exponent of the total variation",
  jitter: "jitter, image px",
  iterations: "iterations",
};

/**
 * @param {HTMLElement} box
 * @param {Site} site
 * @param {(changes: Partial<MaskSettings>) => void} change
 * @returns {(settings: MaskSettings) => void} shows settings on the sliders
 */
export function buildSliders(box, site, change) {
  const setters = SLIDERS.map((name) => {
    const stops = sliderStops(site, name);
    const row = site.settings_table.find((setting) => setting.name === name);
    const symbol = row && row.symbol !== "–" ? `${row.symbol}, ` : "";
    const id = `live-${name}`;
    const label = make("label", { htmlFor: id, textContent: `${symbol}${LABELS[name]}` });
    const slider = make("input", { type: "range", id, min: "0", max: String(stops.length - 1), step: "1" });
    const value = make("output", { htmlFor: id });
    /** @param {number} number */
    const tell = (number) => {
      value.textContent = String(number);
      slider.setAttribute("aria-valuetext", String(number));
    };
    slider.addEventListener("input", () => {
      tell(stops[Number(slider.value)]);
      change({ [name]: stops[Number(slider.value)] });
    });
    box.append(make("div", { className: "live-slider" }, label, slider, value));
    return (/** @type {MaskSettings} */ settings) => {
      const wanted = Number(settings[name]);
      if (!stops.includes(wanted)) {
        stops.push(wanted); // from a link: the slider gets one more stop
        stops.sort((a, b) => a - b);
        slider.max = String(stops.length - 1);
      }
      slider.value = String(stops.indexOf(wanted));
      tell(wanted);
    };
  });
  return (settings) => setters.forEach((set) => set(settings));
}
