/** What the game of erasing shows beside the photograph: the guesses now, and the painting beside the learned mask. */

import { make } from "./controls.js";
import { percent, verdict } from "./duel.js";

/** @typedef {import("./duel.js").Deed} Deed */
/** @typedef {import("./erase.js").Guess} Guess */

/** @param {string} name @returns {any} */
const find = (name) => document.getElementById(`erase-${name}`);

/**
 * @param {Guess[]} guesses best first
 * @param {string[]} classes
 * @param {number} target
 */
export function showGuesses(guesses, classes, target) {
  const rows = guesses.map(({ index, score }) => {
    const bar = make("span", { className: "live-bar" });
    bar.style.setProperty("--score", String(score));
    const name = make("span", {}, classes[index]);
    const row = make("li", {}, name, bar, make("span", { className: "live-score" }, percent(score)));
    row.classList.toggle("erase-chosen", index === target);
    return row;
  });
  find("guesses").replaceChildren(...rows);
}

/**
 * @param {string} name of the target
 * @param {number | null} score now
 * @param {number} original the photograph's own
 */
export function showScore(name, score, original) {
  find("score").textContent = score === null ? "?" : percent(score);
  find("before").textContent =
    score === null ? "Load the network to see its guesses." : `sure: ${name} (at first ${percent(original)})`;
}

/** @param {number} area of the photograph that is painted @param {number} goal */
export function showArea(area, goal) {
  find("goal-value").textContent = percent(goal);
  find("goal").setAttribute("aria-valuetext", percent(goal));
  const over = area > goal;
  find("area").textContent = `${percent(area)} of the photograph painted${over ? ": too much" : "."}`;
  find("area").classList.toggle("erase-over", over);
}

/**
 * @param {Deed | null} reader null where nothing is painted
 * @param {Deed} learned
 * @param {number} original
 * @param {number} goal
 */
export function showDuel(reader, learned, original, goal) {
  const rows = /** @type {[string, Deed | null][]} */ ([
    ["your", reader],
    ["mask", learned],
  ]);
  for (const [who, deed] of rows) {
    find(`${who}-area`).textContent = deed ? percent(deed.area) : "";
    find(`${who}-score`).textContent = deed ? percent(deed.score) : "";
  }
  find("verdict").textContent = reader ? verdict(reader, learned, original, goal) : "Now paint again.";
}
