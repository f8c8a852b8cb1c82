/** A learned mask as it is shown: the grid after each iteration, the scores, and the pictures made of them. */

import { meanWeights, perturb, readGrid, upsample, upsamplingMatrix } from "./masks.js";
import { drawCurve, drawOverlay, drawPlanes, readColors } from "./pictures.js";

/** @typedef {import("./settings.js").Site} Site */
/** @typedef {import("./settings.js").MaskSettings} MaskSettings */
/** @typedef {import("./settings.js").Constants} Constants */

/** The grid after an iteration, and the share of the image that it deletes or keeps.
 * @typedef {{iteration: number, grid: Float32Array, area: number}} Frame */

/** What is known of one run, whether it was learned here or before. */
export class Result {
  /**
   * @param {Float32Array} image 3×S×S in [0, 1]
   * @param {Float32Array} background the fully perturbed image
   * @param {MaskSettings} settings
   * @param {Constants} constants
   * @param {boolean} stored whether it was computed when the book was made
   */
  constructor(image, background, settings, constants, stored) {
    this.image = image;
    this.background = background;
    this.settings = settings;
    this.stored = stored;
    const size = constants.input_size;
    this.cells = Math.round(size / settings.mask_scale);
    this.up = upsamplingMatrix(size, this.cells, settings.mask_sigma, constants.truncate);
    /** @private */
    this.meanWeights = meanWeights(this.up, this.cells);
    /** @type {Frame[]} rising; 0 is the start */
    this.frames = [];
    /** @type {number[]} in iteration 1, 2, … */
    this.score = [];
    /** @type {number | null} radius of the disc at the start, image px */
    this.radius = null;
    this.scoreOriginal = 0;
    this.scorePerturbed = 0;
    /** @type {number | null} under the last mask without jitter, once it is known */
    this.scoreMasked = null;
  }

  /** @param {number} iteration @param {Float32Array} grid */
  add(iteration, grid) {
    const kept = grid.reduce((sum, value, index) => sum + value * this.meanWeights[index], 0);
    this.frames.push({ iteration, grid, area: this.settings.game === "deletion" ? 1 - kept : kept });
  }
}

/**
 * A result out of precomputed.json.
 * @param {any} entry of one sample and game
 * @param {number[]} frames the iterations of the grids
 * @param {Result} result to be filled
 */
export function fillStored(entry, frames, result) {
  const grids = readGrid(entry.grids);
  const length = grids.length / frames.length;
  frames.forEach((iteration, index) =>
    result.add(iteration, grids.slice(index * length, (index + 1) * length)),
  );
  result.score = entry.score;
  result.radius = entry.radius;
  result.scoreOriginal = entry.score_original;
  result.scorePerturbed = entry.score_perturbed;
  result.scoreMasked = entry.score_masked;
}

/** The pictures, the curve and the numbers of the page. */
export class ResultView {
  /**
   * @param {Site} site
   * @param {(name: string) => any} find an element of the page by its name
   */
  constructor(site, find) {
    this.find = find;
    this.colors = readColors(site.colormap);
    /** @type {Result | null} */
    this.result = null;
    this.index = 0;
    this.follows = true;
    /** @private */
    this.queued = false;
    find("shown").addEventListener("input", () => {
      this.index = Number(find("shown").value);
      this.follows = this.index === (this.result?.frames.length ?? 0) - 1;
      this.draw();
    });
  }

  /** @param {Result | null} result */
  show(result) {
    this.result = result;
    this.follows = true;
    this.changed();
  }

  /** The result has grown: draw it with the next picture of the screen, which a hidden tab does not ask for. */
  changed() {
    if (this.follows && this.result) {
      this.index = Math.max(0, this.result.frames.length - 1);
    }
    if (!this.queued) {
      this.queued = true;
      requestAnimationFrame(() => {
        this.queued = false;
        this.draw();
      });
    }
  }

  /** The shown mask at input size and its saliency; null while there is none. */
  maskShown() {
    const { result } = this;
    const frame = result?.frames[this.index];
    if (!result || !frame) {
      return null;
    }
    const mask = upsample(frame.grid, result.up, result.cells);
    const saliency = result.settings.game === "deletion" ? mask.map((value) => 1 - value) : mask;
    return { ...frame, mask, saliency };
  }

  draw() {
    const { result, find } = this;
    const shown = this.maskShown();
    const slider = find("shown");
    slider.max = String(Math.max(0, (result?.frames.length ?? 0) - 1));
    slider.value = String(this.index);
    slider.disabled = (result?.frames.length ?? 0) < 2;
    const iteration = String(shown?.iteration ?? 0);
    find("shown-value").textContent = iteration;
    slider.setAttribute("aria-valuetext", `iteration ${iteration}`);
    if (!result || !shown) {
      find("numbers").textContent = "";
      find("curve").replaceChildren();
      for (const name of ["perturbed", "overlay"]) {
        find(name).getContext("2d").clearRect(0, 0, find(name).width, find(name).height);
      }
      return;
    }
    drawPlanes(find("perturbed"), perturb(result.image, result.background, shown.mask));
    drawOverlay(find("overlay"), result.image, shown.saliency, this.colors);
    find("numbers").textContent = numbers(result, shown.iteration, shown.area);
    find("curve").setAttribute("aria-label", `Score and area. ${find("numbers").textContent}`);
    drawCurve(find("curve"), {
      score: result.score,
      frames: result.frames,
      iterations: result.settings.iterations,
      shown: shown.iteration,
      original: result.scoreOriginal,
      perturbed: result.scorePerturbed,
    });
  }
}

/** @param {Result} result @param {number} iteration @param {number} area */
function numbers(result, iteration, area) {
  const verb = result.settings.game === "deletion" ? "deleted" : "kept";
  const last = iteration === result.frames[result.frames.length - 1].iteration;
  const scores = [
    `image ${result.scoreOriginal.toFixed(3)}`,
    `wholly blurred ${result.scorePerturbed.toFixed(3)}`,
  ];
  if (iteration > 0 && iteration <= result.score.length) {
    scores.push(`in iteration ${iteration} ${result.score[iteration - 1].toFixed(3)}`);
  }
  if (last && result.scoreMasked !== null) {
    scores.push(`under the final mask ${result.scoreMasked.toFixed(3)}`);
  }
  const origin = result.stored ? "Computed when the book was made. " : "";
  return `${origin}Score: ${scores.join(", ")}. Area ${verb}: ${Math.round(100 * area)} %.`;
}
