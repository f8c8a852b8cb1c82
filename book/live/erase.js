/**
 * "Erase it yourself": the reader paints over the evidence, the network's guesses follow, and a learned mask is laid over
 * the painting. A painted cell is 0 on the mask's grid; from there on a painting is a mask like any other.
 */

import { Board } from "./board.js";
import { make } from "./controls.js";
import { showArea, showDuel, showGuesses, showScore } from "./erase_view.js";
import { duelSettings } from "./duel.js";
import { blur, meanWeights, perturb, readGrid, upsample, upsamplingMatrix } from "./masks.js";
import { Painting } from "./painting.js";

/** @typedef {import("./settings.js").Site} Site */
/** @typedef {import("./duel.js").Deed} Deed */
/** @typedef {{index: number, score: number}} Guess */

/**
 * Where the game is played: the live page, or the small one in a chapter.
 * @typedef {object} Host
 * @property {Site} site
 * @property {string[]} classes
 * @property {import("./client.js").Client} client
 * @property {(work: Promise<any>) => Promise<void>} guard says a failure
 * @property {(task: any, report: (event: any) => void) => Promise<any>} learnBeside a mask, in place of a run at work
 */

/** @param {string} name @returns {any} */
const find = (name) => document.getElementById(`erase-${name}`);
const MEASURE = "erase"; // from a stroke to its scores, in the browser's own tools
const COLORS = { reader: "#56b4e9", mask: "#e69f00" }; // told apart by color-blind readers, too; as in live.css

export class EraseGame {
  /** @param {Host} host @param {any} stored masks of the samples: duel.json */
  constructor(host, stored) {
    const { constants, presets } = host.site;
    const settings = presets.default.settings;
    const size = constants.input_size;
    this.host = host;
    this.stored = stored;
    this.settings = settings;
    this.cells = Math.round(size / settings.mask_scale);
    this.up = upsamplingMatrix(size, this.cells, settings.mask_sigma, constants.truncate);
    /** @private */
    this.meanWeights = meanWeights(this.up, this.cells);
    this.painting = new Painting(this.cells);
    /** @type {{image: Float32Array, background: Float32Array, sample: string | null} | null} */
    this.photograph = null;
    /** @type {Guess[]} the five best of the photograph itself */
    this.top = [];
    this.target = 0;
    /** @type {Float32Array | null} all scores under the painting as it was when they were asked for */
    this.scores = null;
    /** @private the cells that they are of */
    this.asked = "";
    /** @type {(Deed & {grid: Float32Array}) | null} the learned mask, after a try */
    this.learned = null;
    this.loaded = false;
    /** Called when a stroke has ended. @type {() => void} */
    this.onStroke = () => {};
    this.asking = this.queued = false;
    /** @private @type {number | null} since when what is shown lags behind the painting */
    this.since = null;
    const brush = () => ({
      radius: Number(/** @type {any} */ (document.querySelector("[name=erase-brush]:checked")).value),
      value: /** @type {0 | 1} */ (find("restore").checked ? 0 : 1),
    });
    this.board = new Board(
      find("canvas"),
      this.painting,
      brush,
      () => this.changed(),
      (text) => this.say(text),
    );
    this.listen();
  }

  /** @private */
  listen() {
    for (const name of /** @type {const} */ (["undo", "redo"])) {
      find(name).onclick = () => this.step(() => this.painting[name]());
    }
    find("clear").onclick = () =>
      this.step(() => this.painting.change(() => (this.painting.painted = new Uint8Array(this.cells ** 2))));
    find("canvas").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
        event.preventDefault();
        this.step(() => (event.shiftKey ? this.painting.redo() : this.painting.undo()));
      }
    });
    find("goal").oninput = () => this.show();
    find("hint").onchange = () => this.changed();
    find("target").onchange = () => this.choose(Number(find("target").value));
    find("duel").onclick = () => this.host.guard(this.duel());
  }

  /** @private @param {() => void} work */
  step(work) {
    work();
    this.changed();
  }

  /** @param {string} text */
  say(text) {
    find("spoken").textContent = text;
  }

  /**
   * @param {Float32Array} image 3×S×S in [0, 1]
   * @param {string | null} sample
   * @param {Guess[]} top the five best guesses, as far as they are known
   * @param {Uint8Array | null} painted a painting out of a link
   */
  setPhotograph(image, sample, top, painted = null) {
    const { constants } = this.host.site;
    const background = blur(image, constants.input_size, this.settings.blur_sigma, constants.truncate);
    this.photograph = { image, background, sample };
    this.painting.reset();
    if (painted) {
      this.painting.change(() => (this.painting.painted = painted));
    }
    this.scores = null;
    this.board.enabled = true;
    this.setTop(top);
    this.choose(top[0]?.index ?? 0);
  }

  /** @param {boolean} loaded whether the network answers */
  load(loaded) {
    if (this.loaded !== loaded) {
      this.loaded = loaded;
      this.changed();
    }
  }

  /** Another class is to be erased; one that the photograph is not taken for is none. @param {number} target */
  choose(target) {
    if (this.top.some(({ index }) => index === target)) {
      this.target = target;
    }
    this.learned = null;
    find("target").value = String(this.target);
    this.changed();
  }

  /** @param {Guess[]} top */
  setTop(top) {
    this.top = top;
    if (!top.some(({ index }) => index === this.target)) {
      this.target = top[0]?.index ?? 0;
    }
    find("target").replaceChildren(
      ...top.map(({ index }) =>
        make("option", { value: String(index), selected: index === this.target }, this.host.classes[index]),
      ),
    );
    find("target").disabled = top.length === 0;
    this.changed();
  }

  /** The painting is another, or what is known of it: draw it with the next picture of the screen, and ask for its scores. */
  changed() {
    const { painting } = this;
    find("undo").disabled = !painting.canUndo;
    find("redo").disabled = !painting.canRedo;
    find("clear").disabled = painting.isEmpty;
    this.onStroke();
    this.since ??= performance.now();
    find("guesses").setAttribute("aria-busy", String(this.loaded));
    if (!this.queued) {
      this.queued = true;
      requestAnimationFrame(() => {
        this.queued = false;
        this.draw();
        this.host.guard(this.follow());
      });
    }
  }

  /** @private */
  draw() {
    const { photograph, painting, learned } = this;
    if (!photograph) {
      return;
    }
    const mask = upsample(painting.grid(), this.up, this.cells);
    /** @type {import("./board.js").Outline[]} */
    const outlines = [{ cells: painting.painted, color: COLORS.reader }];
    if (learned && find("hint").checked) {
      outlines.push({ cells: learned.grid.map((value) => 1 - value), color: COLORS.mask });
    }
    this.board.show(perturb(photograph.image, photograph.background, mask), outlines);
    this.show();
  }

  /** Asks for the scores of the painting as it is, and again until it has stopped changing. @private */
  async follow() {
    if (this.asking || !this.loaded) {
      return;
    }
    this.asking = true;
    try {
      while (this.photograph && !(this.scores && this.asked === String(this.painting.painted))) {
        const { photograph, since } = this;
        const asked = String(this.painting.painted);
        this.since = null;
        const scores = await this.scoresOf(this.painting.grid());
        [this.scores, this.asked] = photograph === this.photograph ? [scores, asked] : [null, ""];
        this.show();
        performance.clearMeasures(MEASURE);
        performance.measure(MEASURE, { start: since ?? performance.now() });
      }
    } finally {
      this.asking = false;
      this.since = this.queued ? this.since : null;
      find("guesses").setAttribute("aria-busy", String(this.queued));
    }
  }

  /** @private @param {Float32Array} grid @returns {Promise<Float32Array>} of all classes */
  scoresOf(grid) {
    const { image, background } = /** @type {NonNullable<typeof this.photograph>} */ (this.photograph);
    return this.host.client.scores(grid, image, background);
  }

  /** @private @param {ArrayLike<number>} grid @returns {number} the share of the photograph that it deletes */
  areaOf(grid) {
    return 1 - this.meanWeights.reduce((sum, weight, index) => sum + weight * grid[index], 0);
  }

  /** @private */
  get original() {
    return this.top.find(({ index }) => index === this.target)?.score ?? 0;
  }

  /** @private The target's score now; null while it is not known. */
  get score() {
    return this.scores ? this.scores[this.target] : this.painting.isEmpty ? this.original : null;
  }

  /** @private */
  get goal() {
    return Number(find("goal").value) / 100;
  }

  /** @private The share of the photograph that is painted. */
  get area() {
    return this.painting.isEmpty ? 0 : this.areaOf(this.painting.grid());
  }

  /** @private */
  show() {
    const { score, scores, original, learned, top, painting, goal } = this;
    showArea(this.area, goal);
    find("duel").disabled = !this.loaded || painting.isEmpty || score === null;
    showScore(this.host.classes[this.target], top.length === 0 ? null : score, original);
    const now = scores
      ? [...scores].map((value, index) => ({ index, score: value })).sort((a, b) => b.score - a.score)
      : top;
    const known = scores !== null || painting.isEmpty;
    showGuesses(known ? now.slice(0, 5) : [], this.host.classes, this.target);
    find("result").hidden = !learned;
    if (learned && score !== null) {
      showDuel(painting.isEmpty ? null : { area: this.area, score }, learned, original, goal);
    }
  }

  /** Lays the learned mask over the painting: a stored one where there is one, else one learned now. @private */
  async duel() {
    const { photograph, target } = this;
    if (!photograph) {
      return;
    }
    find("duel").disabled = true;
    try {
      const entry = photograph.sample ? this.stored.photographs[photograph.sample] : null;
      const grid = entry?.target === target ? readGrid(entry.grid) : await this.learn(target);
      if (!grid || photograph !== this.photograph || target !== this.target) {
        return; // ended, or another question has been asked since
      }
      const scores = await this.scoresOf(grid);
      this.learned = { grid, score: scores[target], area: this.areaOf(grid) };
      find("hint").checked = true;
    } finally {
      this.draw();
    }
    find("result").scrollIntoView({ block: "nearest" });
    this.say(find("verdict").textContent);
  }

  /** @private @param {number} target @returns {Promise<Float32Array | null>} null when it was ended before it began */
  async learn(target) {
    const { host, photograph } = this;
    const settings = duelSettings(host.site);
    const bar = find("progress");
    /** @type {Float32Array | null} */
    let grid = null;
    bar.value = 0;
    bar.hidden = false;
    this.say("Learning a mask …");
    try {
      const task = {
        image: /** @type {NonNullable<typeof photograph>} */ (photograph).image,
        targets: [target],
        classes: host.classes.length,
        settings,
        seed: 0,
      };
      await host.learnBeside(task, ({ step }) => {
        if (step) {
          grid = step.grid;
          bar.value = step.iteration / settings.iterations;
        }
      });
    } finally {
      bar.hidden = true;
    }
    return grid;
  }
}
