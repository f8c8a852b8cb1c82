/**
 * One mask learned by Adam with a clip to [0, 1] after each step, as module `optimizer` of the package does it.
 *
 *     deletion      min λ₁ ‖1 − m‖₁ + λ₂ TV_β(m) + E_τ Σ_{c∈C} f_c(Φ(x(· − τ); M))
 *     preservation  min λ₁ ‖m‖₁     + λ₂ TV_β(m) − E_τ Σ_{c∈C} f_c(Φ(x(· − τ); M))
 *
 * The network gives the score and its gradient on the grid; everything else is here.
 */

import { blur, discGrid, meanWeights, shift, totalVariation, upsamplingMatrix } from "./masks.js";
import { jitterShifts } from "./random.js";

/**
 * What the page asks of a network: the scores of all classes under a mask, and the target's score with its gradient
 * on the grid. Image and background are 3×S×S in [0, 1], `weights` is 1 for each target class.
 * @typedef {object} Network
 * @property {(grid: Float32Array, image: Float32Array, background: Float32Array) => Promise<Float32Array>} scores
 * @property {(grid: Float32Array, image: Float32Array, background: Float32Array, weights: Float32Array) =>
 *   Promise<{score: number, gradient: Float32Array}>} scoreAndGradient
 */

/** @typedef {import("./settings.js").MaskSettings} MaskSettings */
/** @typedef {import("./settings.js").Constants} Constants */

/**
 * One iteration: the score seen under the jittered mask, the share of the image that is deleted or kept, TV on the
 * grid, all before the step, and the grid after it.
 * @typedef {object} Step
 * @property {number} iteration counted from 1
 * @property {number} score
 * @property {number} area
 * @property {number} tv
 * @property {Float32Array} grid
 */

/**
 * The start of a run: the disc's grid and radius (null: no disc does it, all is perturbed), and the scores of the
 * image and of the fully perturbed image.
 * @typedef {object} Start
 * @property {Float32Array} grid
 * @property {number | null} radius
 * @property {number} scoreOriginal
 * @property {number} scorePerturbed
 */

/** Adam on one grid (Kingma and Ba, 2015), in the order of operations of `torch.optim.Adam`. */
export class Adam {
  /**
   * @param {number} length
   * @param {number} rate γ
   * @param {{beta1: number, beta2: number, epsilon: number}} constants
   */
  constructor(length, rate, { beta1, beta2, epsilon }) {
    this.rate = rate;
    this.beta1 = beta1;
    this.beta2 = beta2;
    this.epsilon = epsilon;
    this.steps = 0;
    this.mean = new Float32Array(length);
    this.square = new Float32Array(length);
  }

  /**
   * One step, clipped to [0, 1], in place.
   * @param {Float32Array} grid
   * @param {ArrayLike<number>} gradient
   */
  step(grid, gradient) {
    this.steps += 1;
    const rate = this.rate / (1 - this.beta1 ** this.steps);
    const root = Math.sqrt(1 - this.beta2 ** this.steps);
    for (let i = 0; i < grid.length; i++) {
      this.mean[i] += (1 - this.beta1) * (gradient[i] - this.mean[i]);
      this.square[i] = this.beta2 * this.square[i] + (1 - this.beta2) * gradient[i] * gradient[i];
      const moved = grid[i] - (rate * this.mean[i]) / (Math.sqrt(this.square[i]) / root + this.epsilon);
      grid[i] = Math.min(Math.max(moved, 0), 1);
    }
  }
}

/** A photograph, its blurred twin, a target and the settings: all that one run needs. */
export class Game {
  /**
   * @param {Network} network
   * @param {Float32Array} image 3×S×S in [0, 1]
   * @param {Float32Array} weights 1 for each target class, 0 elsewhere
   * @param {MaskSettings} settings
   * @param {Constants} constants
   * @param {number} seed
   */
  constructor(network, image, weights, settings, constants, seed) {
    const size = constants.input_size;
    this.network = network;
    this.image = image;
    this.weights = weights;
    this.settings = settings;
    this.constants = constants;
    this.size = size;
    this.cells = Math.round(size / settings.mask_scale);
    this.background = blur(image, size, settings.blur_sigma, constants.truncate);
    this.up = upsamplingMatrix(size, this.cells, settings.mask_sigma, constants.truncate);
    this.shifts = jitterShifts(settings.iterations, settings.jitter, seed);
    this.deletes = settings.game === "deletion";
    /** @private */
    this.meanWeights = meanWeights(this.up, this.cells);
  }

  /**
   * @param {Float32Array} grid
   * @returns {Promise<number>} Σ over the target classes of the scores under a mask, without jitter
   */
  async score(grid) {
    const scores = await this.network.scores(grid, this.image, this.background);
    return scores.reduce((sum, value, index) => sum + value * this.weights[index], 0);
  }

  /**
   * The smallest disc that suppresses or preserves the target (§2), searched from below.
   * @param {(radius: number) => Promise<boolean>} goOn called before each radius; false ends the search
   * @returns {Promise<Start | null>} null when the search was ended
   */
  async start(goOn) {
    const { constants, cells, size } = this;
    const all = cells * cells;
    const scoreOriginal = await this.score(new Float32Array(all).fill(1));
    const scorePerturbed = await this.score(new Float32Array(all));
    const span = scoreOriginal - scorePerturbed;
    const sigma = constants.initial_disc_sigma;
    for (const radius of span > 0 ? constants.disc_radii : []) {
      if (!(await goOn(radius))) {
        return null;
      }
      const inside = discGrid(size, cells, radius, sigma, constants.truncate);
      const grid = this.deletes ? inside.map((value) => 1 - value) : inside;
      const share = ((await this.score(grid)) - scorePerturbed) / span;
      if (this.deletes ? share <= constants.suppressed : share >= constants.preserved) {
        return { grid, radius, scoreOriginal, scorePerturbed };
      }
    }
    return { grid: new Float32Array(all), radius: null, scoreOriginal, scorePerturbed };
  }

  /**
   * The loss's gradient on the grid at one iteration, and the parts of the loss.
   * @param {Float32Array} grid
   * @param {number} iteration counted from 0
   */
  async gradient(grid, iteration) {
    const { settings, size, cells, constants } = this;
    const [dx, dy] = this.shifts[iteration];
    const [image, background] = [this.image, this.background].map((planes) => {
      const moved = new Float32Array(planes.length);
      shift(planes, size, dx, dy, moved);
      return moved;
    });
    const seen = await this.network.scoreAndGradient(grid, image, background, this.weights);
    const variation = totalVariation(grid, cells, settings.tv_exponent, constants.tv_epsilon);
    const sign = this.deletes ? 1 : -1;
    const gradient = new Float32Array(grid.length);
    for (let i = 0; i < grid.length; i++) {
      gradient[i] =
        sign * (seen.gradient[i] - settings.area_weight) + settings.tv_weight * variation.gradient[i];
    }
    return { score: seen.score, tv: variation.value, gradient };
  }

  /**
   * The iterations, one at a time. A score or gradient that is not finite ends the run with an error.
   * @param {Float32Array} start
   * @returns {AsyncGenerator<Step>}
   */
  async *learn(start) {
    const grid = start.slice();
    const adam = new Adam(grid.length, this.settings.learning_rate, this.constants.adam);
    for (let iteration = 0; iteration < this.settings.iterations; iteration++) {
      const { score, tv, gradient } = await this.gradient(grid, iteration);
      if (!Number.isFinite(score) || !gradient.every(Number.isFinite)) {
        throw new Error(`the network gave no finite score in iteration ${iteration + 1}`);
      }
      const kept = grid.reduce((sum, value, index) => sum + value * this.meanWeights[index], 0);
      adam.step(grid, gradient);
      yield {
        iteration: iteration + 1,
        score,
        area: this.deletes ? 1 - kept : kept,
        tv,
        grid: grid.slice(),
      };
    }
  }
}
