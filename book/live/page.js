/** The live page: what the reader does, and what the worker answers. */

import { Client, WorkerError } from "./client.js";
import { buildSamples, buildSliders, buildTargets, make } from "./controls.js";
import { EraseGame } from "./erase.js";
import { commandOf, listenToKeep } from "./keep.js";
import { NetworkStep } from "./network.js";
import { writePainting } from "./painting.js";
import { PhotographStep } from "./photographs.js";
import { ResultView } from "./result.js";
import { learnMask } from "./run.js";
import { presetOf, presetSettings, readLink } from "./settings.js";
import { listenToSwipe } from "./swipe.js";

/** @typedef {import("./settings.js").Site} Site */
/** @typedef {import("./settings.js").MaskSettings} MaskSettings */
/** @typedef {import("./photographs.js").Photograph} Photograph */

const BASE = new URL(".", import.meta.url);
const TOP = 5;

/** @param {string} name @returns {any} */
const find = (name) => document.getElementById(`live-${name}`);

export class Page {
  /** @param {Site} site @param {string[]} classes @param {any} precomputed @param {any} duel */
  constructor(site, classes, precomputed, duel) {
    this.site = site;
    this.classes = classes;
    this.precomputed = precomputed;
    this.client = new Client(site, BASE);
    this.view = new ResultView(site, find);
    this.choice = readLink(location.hash.slice(1), site, classes.length);
    /** @type {Photograph | null} */
    this.photograph = null;
    /** @type {{index: number, score: number}[]} */
    this.top = [];
    this.paused = false;
    /** @type {Promise<void> | null} the run at work */
    this.run = null;
    this.photographs = new PhotographStep(this, BASE);
    this.network = new NetworkStep(this);
    this.erase = new EraseGame(this, duel);
    this.client.onCrash = () => this.network.offer();
    this.showSettings = buildSliders(find("sliders"), site, (changes) => this.change(changes));
  }

  get cells() {
    return Math.round(this.site.constants.input_size / this.choice.settings.mask_scale);
  }

  async start() {
    buildSamples(find("samples"), this.site, BASE, (name) => this.guard(this.photographs.chooseSample(name)));
    find("preset").append(
      ...Object.keys(this.site.presets).map((name) => make("option", { value: name }, name)),
      make("option", { value: "", disabled: true, hidden: true }, "own values"),
    );
    this.listen();
    this.photographs.listen();
    listenToKeep(this);
    listenToSwipe(find("swipe"));
    this.showChoice();
    find("needs").hidden = true;
    find("app").hidden = false;
    await this.network.offer();
    await this.photographs.chooseSample(this.choice.sample ?? this.site.samples[0].name);
  }

  listen() {
    find("load").onclick = () => this.guard(this.network.load());
    find("load-wasm").onclick = () => this.guard(this.network.load("wasm"));
    find("run").onclick = () => this.guard(this.learn());
    find("pause").onclick = () => this.pause();
    find("stop").onclick = () => this.client.stop();
    find("preset").onchange = () => this.choosePreset(find("preset").value);
    find("seed").onchange = () => {
      this.choice.seed = Math.min(2 ** 32 - 1, Math.max(0, Math.floor(Number(find("seed").value) || 0)));
      this.showChoice();
    };
    for (const input of document.querySelectorAll("[name=live-game]")) {
      input.addEventListener("change", () => {
        this.change({ game: /** @type {any} */ (input).value });
        this.photographs.showStored();
      });
    }
    for (const input of document.querySelectorAll("[name=live-mode]")) {
      input.addEventListener("change", () => {
        this.choice.mode = /** @type {any} */ (input).value;
        this.showChoice();
      });
    }
    this.erase.onStroke = () => {
      const { isEmpty, painted } = this.erase.painting;
      this.choice.painting = isEmpty ? null : writePainting(painted);
    };
    window.addEventListener("hashchange", () => {
      if (location.hash.includes("game=")) {
        location.reload(); // another link to settings; a heading's anchor is none
      }
    });
  }

  /** Says a failure instead of leaving it in the console. @param {Promise<any>} work */
  async guard(work) {
    try {
      await work;
    } catch (error) {
      const { message, known } = /** @type {WorkerError} */ (error);
      this.showChoice(); // a control that asked in vain goes back
      this.warn(
        known
          ? message
          : `Something failed here: ${message}. Reload the page; with less memory in use it may work.`,
      );
    }
  }

  /** @param {string} text */
  say(text) {
    find("status").textContent = text;
  }

  /** @param {string} text */
  warn(text) {
    find("alert").textContent = text;
    find("alert").hidden = text === "";
  }

  async classify() {
    const { photograph } = this;
    if (!photograph) {
      return;
    }
    const top = await this.client.classify(photograph.image, TOP, this.cells);
    if (this.photograph === photograph) {
      this.top = top;
      this.erase.setTop(top);
      this.showChoice();
    }
  }

  /** @param {Partial<MaskSettings>} changes */
  change(changes) {
    Object.assign(this.choice.settings, changes);
    this.showChoice();
  }

  /** @param {string} name */
  choosePreset(name) {
    const { game } = this.choice.settings;
    this.choice.settings = { ...presetSettings(this.site, name), game };
    const count = this.site.presets[name].target_count;
    this.choice.targets = count > 1 ? "top" : null;
    this.showChoice();
  }

  /** @returns {number[]} the classes whose scores are summed */
  get targets() {
    const { targets } = this.choice;
    const guesses = this.top.map(({ index }) => index);
    return targets === "top" ? guesses : (targets ?? guesses.slice(0, 1));
  }

  showTargets() {
    /** @type {import("./controls.js").Target[]} */
    const targets = this.top.map(({ index, score }) => ({
      classes: [index],
      name: this.classes[index],
      score,
    }));
    if (targets.length > 1) {
      const score = this.top.reduce((sum, entry) => sum + entry.score, 0);
      targets.push({ classes: this.top.map(({ index }) => index), name: `these ${TOP} together`, score });
    }
    const same = (/** @type {number[]} */ a, /** @type {number[]} */ b) =>
      [...a].sort().join() === [...b].sort().join();
    let chosen = targets.findIndex(({ classes }) => same(classes, this.targets));
    if (chosen < 0 && this.targets.length > 0) {
      const name = this.targets.map((index) => this.classes[index]).join(", ");
      chosen = targets.push({ classes: this.targets, name, score: null }) - 1;
    }
    buildTargets(find("targets"), targets, chosen, ({ classes }) => {
      this.choice.targets = classes.length === TOP ? "top" : classes;
      this.showChoice(false);
    });
  }

  /** Brings every control to what has been chosen. @param {boolean} [targets] whether the targets are built anew */
  showChoice(targets = true) {
    const { choice, photograph, run } = this;
    const check = (/** @type {string} */ name, /** @type {string | null} */ value) =>
      document.querySelectorAll(`[name=${name}]`).forEach((input) => {
        /** @type {HTMLInputElement} */ (input).checked =
          value === /** @type {HTMLInputElement} */ (input).value;
      });
    check("live-sample", photograph ? photograph.sample : choice.sample);
    check("live-fit", choice.fit);
    check("live-game", choice.settings.game);
    check("live-mode", choice.mode);
    find("app").dataset.mode = choice.mode;
    this.erase.load(this.network.loaded);
    find("preset").value = presetOf(this.site, choice.settings);
    find("seed").value = String(choice.seed);
    this.showSettings(choice.settings);
    if (targets) {
      this.showTargets();
    }
    find("run").disabled = !this.network.loaded || !photograph || run !== null || this.targets.length === 0;
    find("pause").disabled = find("stop").disabled = run === null;
    find("pause").textContent = this.paused ? "Go on" : "Pause";
    find("save-png").disabled = find("save-npy").disabled = !this.view.result;
    const sample = this.site.samples.find(({ name }) => name === choice.sample);
    find("credit").textContent = sample ? `Photograph: ${sample.credit}.` : "";
    find("command").textContent = commandOf(this);
    find("command").parentElement.hidden = find("command").textContent === "";
  }

  pause() {
    this.paused = !this.paused;
    this.paused ? this.client.pause() : this.client.resume();
    this.say(this.paused ? "Paused." : "Learning the mask …");
    this.showChoice();
  }

  /** Ends a run at work. @returns {Promise<boolean>} whether there was one */
  async endRun() {
    if (this.run === null) {
      return false;
    }
    this.client.stop();
    await this.run;
    return true;
  }

  async learn() {
    const { photograph } = this;
    if (!photograph || this.run) {
      return;
    }
    this.warn("");
    const task = {
      image: photograph.image,
      targets: this.targets,
      classes: this.classes.length,
      settings: { ...this.choice.settings },
      seed: this.choice.seed,
    };
    await this.atWork(learnMask(this, task));
  }

  /** A run of the game's, in place of one at work. @param {any} task @param {(event: any) => void} report */
  async learnBeside(task, report) {
    await this.endRun();
    const work = this.client.learn(task, report);
    await this.atWork(work);
    return work;
  }

  /** Until a run has ended the controls know of it. @private @param {Promise<any>} work */
  async atWork(work) {
    this.run = work.catch(() => {});
    this.showChoice();
    try {
      await work;
    } finally {
      this.run = null;
      this.paused = false;
      this.showChoice();
    }
  }
}

/** @param {string} name */
async function json(name) {
  const response = await fetch(new URL(name, BASE));
  if (!response.ok) {
    throw new Error(`${name} is missing (status ${response.status})`);
  }
  return response.json();
}

try {
  const [site, classes, precomputed, duel] = await Promise.all(
    ["site.json", "classes.json", "precomputed.json", "duel.json"].map(json),
  );
  const page = new Page(site, classes, precomputed, duel);
  await page.guard(page.start());
} catch (error) {
  find("needs").textContent =
    `This page could not start: ${/** @type {Error} */ (error).message}. Reload it.`;
}
