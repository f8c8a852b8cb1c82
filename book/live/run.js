/** One run on the page: what the worker tells of it becomes pictures, progress and words. */

import { Result } from "./result.js";

/** @typedef {import("./page.js").Page} Page */
/** @typedef {import("./settings.js").MaskSettings} MaskSettings */

/** @param {string} name @returns {any} */
const find = (name) => document.getElementById(`live-${name}`);

/**
 * @param {Page} page
 * @param {{image: Float32Array, targets: number[], classes: number, settings: MaskSettings, seed: number}} task
 */
export async function learnMask(page, task) {
  const { settings } = task;
  const bar = find("progress");
  const clock = new Clock();
  /** @type {Result | null} */
  let result = null;
  bar.value = 0;
  bar.hidden = false;
  page.say("Searching for the disc to start from …");
  try {
    const end = await page.client.learn(task, (event) => {
      if (event.background) {
        result = new Result(task.image, event.background, settings, page.site.constants, false);
      } else if (event.searching !== undefined) {
        find("time").textContent = `A disc of ${event.searching} px radius`;
      } else if (event.start && result) {
        const { grid, radius, scoreOriginal, scorePerturbed } = event.start;
        Object.assign(result, { radius, scoreOriginal, scorePerturbed });
        result.add(0, grid);
        page.view.show(result);
        page.say("Learning the mask …");
      } else if (event.step && result) {
        const { iteration, score, grid } = event.step;
        result.score.push(score);
        result.add(iteration, grid);
        page.view.changed();
        bar.value = iteration / settings.iterations;
        find("time").textContent = clock.tell(iteration, settings.iterations, page.paused);
      }
    });
    const done = `${end.iterations} of ${settings.iterations} iterations`;
    page.say(end.stopped ? `Stopped after ${done}.` : `Done: ${done} in ${clock.seconds()} s.`);
    if (end.iterations > 0) {
      Object.assign(result ?? {}, { scoreMasked: end.scoreMasked });
      page.view.changed();
    }
  } catch (error) {
    page.say("The run has ended.");
    throw error;
  } finally {
    find("time").textContent = "";
    bar.hidden = true;
  }
}

/** Time spent on iterations, pauses left out, and the time that the rest will take. */
class Clock {
  constructor() {
    this.spent = 0;
    this.last = performance.now();
    this.iteration = 0;
    this.afterPause = false;
  }

  /** @param {number} iteration @param {number} all @param {boolean} paused */
  tell(iteration, all, paused) {
    const now = performance.now();
    if (this.iteration > 0 && !this.afterPause) {
      this.spent += now - this.last;
    }
    [this.last, this.iteration, this.afterPause] = [now, iteration, paused];
    const each = this.spent / Math.max(1, iteration - 1);
    const left = iteration > 2 ? `, about ${Math.ceil((each * (all - iteration)) / 1000)} s left` : "";
    return `Iteration ${iteration} of ${all}${left}`;
  }

  seconds() {
    return (this.spent / 1000).toFixed(this.spent < 10_000 ? 1 : 0);
  }
}
