/** Who deleted less: the reader's painting beside the learned mask, and what may be said of the two. */

import { presetSettings } from "./settings.js";

/** @typedef {import("./settings.js").Site} Site */
/** @typedef {import("./settings.js").MaskSettings} MaskSettings */

/** What a mask did: the target's score under it, and the share of the photograph that it deletes. */
/** @typedef {{score: number, area: number}} Deed */

export const DOWN = 0.1; // a score is down when no more than this part of the photograph's own score is left
const ALIKE = 0.005; // areas closer than this are called equal: half a percent of the photograph

/**
 * @param {Deed} reader
 * @param {Deed} learned
 * @param {number} original the photograph's own score
 * @returns {"reader" | "mask" | "draw" | "unfinished" | "neither"} who deleted less among those that brought the score
 *   down; "unfinished" where the mask alone did
 */
export function winner(reader, learned, original) {
  const [mine, its] = [reader, learned].map(({ score }) => score <= DOWN * original);
  if (!mine) {
    return its ? "unfinished" : "neither";
  }
  if (its && Math.abs(reader.area - learned.area) < ALIKE) {
    return "draw";
  }
  return !its || reader.area < learned.area ? "reader" : "mask";
}

/** @param {number} share @returns {string} of the photograph or of certainty, in percent; between 0 and 1 with one decimal */
export function percent(share) {
  const value = 100 * share;
  return `${value > 0 && value < 0.95 ? value.toFixed(1) : Math.round(value)} %`;
}

/**
 * @param {Deed} reader
 * @param {Deed} learned
 * @param {number} original
 * @param {number} goal the share that the reader meant to delete at most
 * @returns {string} the verdict in a sentence or two
 */
export function verdict(reader, learned, original, goal) {
  const areas = `${percent(reader.area)} against ${percent(learned.area)}`;
  const within =
    reader.area <= goal ? ` You kept to your ${percent(goal)}.` : ` Your goal was ${percent(goal)}.`;
  switch (winner(reader, learned, original)) {
    case "reader":
      return `You deleted less: ${areas}.${within}`;
    case "mask":
      return `The mask deleted less: ${areas}.${within}`;
    case "draw":
      return `A draw: ${areas}.${within}`;
    case "unfinished":
      return `Too much evidence is left: under your painting the score is still ${percent(reader.score)}. Look where the mask differs, and go on.`;
    default:
      return "Neither brought the score down to a tenth of the photograph's own.";
  }
}

/** The mask of the duel is held to a small area, as the localization preset does. @param {Site} site @returns {MaskSettings} */
export const duelSettings = (site) => ({ ...presetSettings(site, "localization"), game: "deletion" });
