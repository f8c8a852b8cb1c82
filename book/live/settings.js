/**
 * The settings of a run: the package's own table (written into site.json when the book is built), what the sliders
 * offer, and a link that holds them.
 */

import { readPainting } from "./painting.js";

/**
 * The package's MaskSettings by their names; lengths in image px of a 224 px input.
 * @typedef {object} MaskSettings
 * @property {"deletion" | "preservation"} game
 * @property {number} iterations
 * @property {number} learning_rate
 * @property {number} area_weight
 * @property {number} tv_weight
 * @property {number} tv_exponent
 * @property {number} mask_scale
 * @property {number} mask_sigma
 * @property {number} jitter
 * @property {string} perturbation
 * @property {string} initialization
 * @property {number} blur_sigma
 * @property {string} score_scale
 * @property {string} optimizer
 * @property {number} tolerance
 */

/**
 * What the method takes for given, from the package.
 * @typedef {object} Constants
 * @property {number} input_size side of the network's input, image px
 * @property {number} truncate a Gaussian ends at this many σ
 * @property {number} tv_epsilon
 * @property {number} initial_disc_sigma image px
 * @property {number[]} disc_radii image px
 * @property {number} suppressed
 * @property {number} preserved
 * @property {{beta1: number, beta2: number, epsilon: number}} adam
 * @property {number} max_pixels
 * @property {number} max_buffered_pixels of a WebP and of a JPEG of several scans
 * @property {number} max_scans of a JPEG
 * @property {number} max_scanned_pixels scans times pixels
 * @property {number} max_megabytes of a file
 * @property {number} max_webp_megabytes
 * @property {number} min_side
 */

/** @typedef {{settings: MaskSettings, target_count: number, source: string}} Preset */
/** @typedef {{name: string, symbol: string, value: any, unit: string, meaning: string, source: string}} Row */
/** @typedef {{name: string, file: string, thumbnail: string, class_index: number | null, credit: string}} Sample */
/** @typedef {{file: string, bytes: number, unpacked: number, sha256: string}} Asset */

/**
 * site.json, which the book's build writes.
 * @typedef {object} Site
 * @property {Constants} constants
 * @property {Row[]} settings_table
 * @property {Record<string, Preset>} presets
 * @property {Sample[]} samples
 * @property {Record<string, Asset>} assets
 * @property {Record<string, string[]>} engines the assets that each engine needs, beside its script
 * @property {Record<string, string>} scripts the script of each engine
 * @property {string} network
 * @property {string} colormap 256 colors, six hexadecimal digits each
 */

/** What each slider offers; a preset's value that is not among them is added. @type {Record<string, number[]>} */
const STOPS = {
  area_weight: [0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
  tv_weight: [0, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3],
  tv_exponent: [1, 1.5, 2, 2.5, 3, 4, 5],
  jitter: [1, 2, 4, 8, 16],
  iterations: [25, 50, 75, 100, 150, 200, 300, 500],
};

/** Iterations of a run on this page: after 150 the mask correlates by 0.9 with the package's after 300. */
export const PAGE_ITERATIONS = 150;

/** @type {readonly (keyof MaskSettings)[]} */
export const SLIDERS = ["area_weight", "tv_weight", "tv_exponent", "jitter", "iterations"];

/**
 * @param {Site} site
 * @param {string} name
 * @returns {MaskSettings} a preset with the page's own number of iterations
 */
export function presetSettings(site, name) {
  const preset = site.presets[name] ?? site.presets.default;
  return { ...preset.settings, iterations: PAGE_ITERATIONS };
}

/**
 * @param {Site} site
 * @param {keyof MaskSettings} name
 * @returns {number[]} the values of a slider, rising
 */
export function sliderStops(site, name) {
  const values = Object.keys(site.presets).map((preset) => Number(presetSettings(site, preset)[name]));
  return [...new Set([...STOPS[name], ...values])].sort((a, b) => a - b);
}

/**
 * The preset that these settings are, whatever the game and the number of iterations; "" for none.
 * @param {Site} site
 * @param {MaskSettings} settings
 */
export function presetOf(site, settings) {
  const same = (/** @type {string} */ preset) =>
    SLIDERS.every((name) => name === "iterations" || site.presets[preset].settings[name] === settings[name]);
  return Object.keys(site.presets).find(same) ?? "";
}

/**
 * What a link restores. `targets` is null for the network's best guess, "top" for its five best together.
 * `painting` is the reader's own mask, as `writePainting` writes it, on a sample.
 * @typedef {object} Choice
 * @property {"erase" | "learn"} mode
 * @property {string | null} painting
 * @property {string | null} sample
 * @property {"squash" | "center"} fit
 * @property {number[] | "top" | null} targets
 * @property {number} seed
 * @property {MaskSettings} settings
 */

/**
 * @param {Choice} choice
 * @returns {string} the part of an address after its #
 */
export function writeLink({ mode, painting, sample, fit, targets, seed, settings }) {
  const parts = new URLSearchParams({ mode });
  if (sample !== null) {
    parts.set("sample", sample);
    if (painting !== null) {
      parts.set("painting", painting);
    }
  }
  parts.set("fit", fit);
  parts.set("game", settings.game);
  if (targets !== null) {
    parts.set("target", targets === "top" ? targets : targets.join("."));
  }
  for (const name of SLIDERS) {
    parts.set(name, String(settings[name]));
  }
  parts.set("seed", String(seed));
  return parts.toString();
}

/**
 * What a link says; whatever it leaves out, leaves empty, or says wrongly or in two ways, is as on a first visit.
 * @param {string} text the part of an address after its #
 * @param {Site} site
 * @param {number} classes
 * @returns {Choice}
 */
export function readLink(text, site, classes) {
  const parts = new URLSearchParams(text);
  const settings = presetSettings(site, "default");
  const changed = Object.fromEntries(
    SLIDERS.map((name) => [name, number(only(parts, name))]).filter(
      ([name, value]) => site && isAllowed(String(name), Number(value)),
    ),
  );
  const target = only(parts, "target");
  const targets = [...new Set(target.split(".").filter(Boolean).map(number))];
  // All classes together always score 1.
  const isSet = (/** @type {number[]} */ set) =>
    set.length > 0 && set.length < classes && set.every((index) => isWhole(index, 0, classes - 1));
  const sample = only(parts, "sample");
  const seed = number(only(parts, "seed"));
  const painting = only(parts, "painting");
  const cells = Math.round(site.constants.input_size / settings.mask_scale);
  const isKnown = site.samples.some(({ name }) => name === sample);
  return {
    mode: modeOf(parts),
    painting: isKnown && readPainting(painting, cells) ? painting : null,
    sample: isKnown ? sample : null,
    fit: only(parts, "fit") === "center" ? "center" : "squash",
    targets: target === "top" ? target : isSet(targets) ? targets : null,
    seed: isWhole(seed, 0, 2 ** 32 - 1) ? seed : 0,
    settings: {
      ...settings,
      ...changed,
      game: only(parts, "game") === "preservation" ? "preservation" : "deletion",
    },
  };
}

/** A link to settings shows the run that they are for. @param {URLSearchParams} parts @returns {"erase" | "learn"} */
function modeOf(parts) {
  const mode = only(parts, "mode");
  const isSet = ["game", "seed", ...SLIDERS].some((name) => only(parts, name) !== "");
  return mode === "erase" || (mode !== "learn" && !isSet) ? "erase" : "learn";
}

/**
 * @param {URLSearchParams} parts
 * @param {string} name
 * @returns {string} its value; empty where there is none, or where there are different ones
 */
function only(parts, name) {
  const values = new Set(parts.getAll(name));
  return values.size === 1 ? [...values][0] : "";
}

/** @param {string} text @returns {number} NaN for what is no decimal number, such as nothing at all */
function number(text) {
  return /^-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text) : NaN;
}

/** @param {string} name @param {number} value */
function isAllowed(name, value) {
  const [low, high] = [STOPS[name][0], STOPS[name][STOPS[name].length - 1]];
  const whole = name === "jitter" || name === "iterations";
  return whole ? isWhole(value, low, high) : Number.isFinite(value) && value >= low && value <= high;
}

/** @param {number} value @param {number} low @param {number} high */
function isWhole(value, low, high) {
  return Number.isInteger(value) && value >= low && value <= high;
}
