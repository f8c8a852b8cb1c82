/**
 * The worker behind the page: it reads photographs, holds the network and learns masks, so that the page never waits.
 *
 * A request is {id, type, …}; the answer is {id, value} or {id, error}, and while a request is at work {id, event}.
 * Requests are answered between the iterations of a run, which `pause`, `resume` and `stop` control.
 */

import { Game } from "./optimizer.js";
import { PhotographError, readPhotograph } from "./photograph.js";
import { DownloadError } from "./download.js";
import { openNetwork, pickEngine } from "./runtime.js";

/** @typedef {import("./settings.js").Site} Site */
/** @typedef {import("./settings.js").MaskSettings} MaskSettings */
/** @typedef {(event: object) => void} Report */

/** @type {import("./runtime.js").Opened | null} */
let opened = null;
/** @type {Run | null} */
let running = null;

/** What the page may ask of a run at any time. */
class Run {
  constructor() {
    this.stopped = false;
    /** @private @type {(() => void) | null} */
    this.wake = null;
    /** @private @type {Promise<void> | null} */
    this.paused = null;
  }

  pause() {
    this.paused ??= new Promise((resolve) => (this.wake = resolve));
  }

  resume() {
    this.wake?.();
    this.paused = null;
  }

  stop() {
    this.stopped = true;
    this.resume();
  }

  /** Lets waiting requests in, and waits while paused. @returns {Promise<boolean>} whether to go on */
  async goOn() {
    await nextTurn();
    await this.paused;
    return !this.stopped;
  }
}

const channel = new MessageChannel();
/** Until messages that have come are handled; unlike a timer it is not slowed down in a background tab. */
function nextTurn() {
  return new Promise((resolve) => {
    channel.port1.onmessage = () => resolve(undefined);
    channel.port2.postMessage(null);
  });
}

/** @type {Record<string, (request: any, report: Report) => Promise<any> | any>} */
const HANDLERS = {
  /** @param {{file: Blob, fit: "squash" | "center", site: Site}} request @param {Report} report */
  photograph: ({ file, fit, site }, report) => readPhotograph(file, fit, site.constants, report),

  engine: () => pickEngine(),

  /** @param {{site: Site, base: string, engine: import("./runtime.js").Engine}} request @param {Report} report */
  async load({ site, base, engine }, report) {
    opened = await openNetwork(site, new URL(base), engine, (done, total) => report({ done, total }));
    return { engine: opened.engine, threads: opened.threads };
  },

  /** @param {{image: Float32Array, count: number, cells: number}} request */
  async classify({ image, count, cells }) {
    const keep = new Float32Array(cells * cells).fill(1);
    const scores = await network().scores(keep, image, image);
    return [...scores]
      .map((score, index) => ({ index, score }))
      .sort((a, b) => b.score - a.score)
      .slice(0, count);
  },

  /** @param {{grid: Float32Array, image: Float32Array, background: Float32Array}} request */
  scores: ({ grid, image, background }) => network().scores(grid, image, background),

  /**
   * @param {{image: Float32Array, targets: number[], classes: number, settings: MaskSettings, site: Site,
   *   seed: number}} request
   * @param {Report} report
   */
  async learn({ image, targets, classes, settings, site, seed }, report) {
    if (running) {
      throw new Error("a mask is being learned already");
    }
    const run = new Run();
    running = run;
    try {
      const weights = new Float32Array(classes);
      targets.forEach((index) => (weights[index] = 1));
      const game = new Game(network(), image, weights, settings, site.constants, seed);
      report({ background: game.background });
      const start = await game.start((radius) => {
        report({ searching: radius });
        return run.goOn();
      });
      if (start === null) {
        return { stopped: true, iterations: 0, scoreMasked: null };
      }
      report({ start });
      let [grid, iterations] = [start.grid, 0];
      for await (const step of game.learn(start.grid)) {
        [grid, iterations] = [step.grid, step.iteration];
        report({ step });
        if (!(await run.goOn())) {
          break;
        }
      }
      const scoreMasked = await game.score(grid);
      return { stopped: iterations < settings.iterations, iterations, scoreMasked };
    } finally {
      running = null;
    }
  },

  pause: () => running?.pause(),
  resume: () => running?.resume(),
  stop: () => running?.stop(),
};

function network() {
  if (opened === null) {
    throw new Error("the network is not loaded");
  }
  return opened.network;
}

self.onmessage = async ({ data }) => {
  const { id, type } = data;
  const answer = (/** @type {object} */ message) => self.postMessage({ id, ...message });
  try {
    const value = await HANDLERS[type](data, (event) => answer({ event }));
    answer({ value });
  } catch (error) {
    const known = error instanceof PhotographError || error instanceof DownloadError;
    answer({ error: error instanceof Error ? error.message : String(error), known });
  }
};
