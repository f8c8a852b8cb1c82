/** The live page: what the reader does, and what the worker answers. */

import { Client, WorkerError } from "./client.js";
import { buildSamples, buildSliders, buildTargets, make, spoken } from "./controls.js";
import { maskPicture, npy, save } from "./files.js";
import { blur } from "./masks.js";
import { drawPlanes } from "./pictures.js";
import { NetworkStep } from "./network.js";
import { Result, ResultView, fillStored } from "./result.js";
import { learnMask } from "./run.js";
import { presetOf, presetSettings, readLink, writeLink } from "./settings.js";

/** @typedef {import("./settings.js").Site} Site */
/** @typedef {import("./settings.js").MaskSettings} MaskSettings */
/** @typedef {{file: Blob, name: string, sample: string | null, image: Float32Array}} Photograph */

const BASE = new URL(".", import.meta.url);
const TOP = 5;
const LARGE = 20; // megapixels from which reading takes longer than a reader expects

/** @param {string} name @returns {any} */
const find = (name) => document.getElementById(`live-${name}`);
/** @param {[number, number]} entry of precomputed.json */
const toGuess = ([index, score]) => ({ index, score });

export class Page {
  /** @param {Site} site @param {string[]} classes @param {any} precomputed */
  constructor(site, classes, precomputed) {
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
    this.readings = 0;
    this.network = new NetworkStep(this);
    this.client.onCrash = () => this.network.offer();
    this.showSettings = buildSliders(find("sliders"), site, (changes) => this.change(changes));
  }

  get cells() {
    return Math.round(this.site.constants.input_size / this.choice.settings.mask_scale);
  }

  async start() {
    buildSamples(find("samples"), this.site, BASE, (name) => this.guard(this.chooseSample(name)));
    find("preset").append(
      ...Object.keys(this.site.presets).map((name) => make("option", { value: name }, name)),
      make("option", { value: "", disabled: true, hidden: true }, "own values"),
    );
    this.listen();
    this.showChoice();
    find("needs").hidden = true;
    find("app").hidden = false;
    await this.network.offer();
    await this.chooseSample(this.choice.sample ?? this.site.samples[0].name);
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
        this.showStored();
      });
    }
    for (const input of document.querySelectorAll("[name=live-fit]")) {
      input.addEventListener("change", () => {
        this.choice.fit = /** @type {any} */ (input).value;
        const { photograph } = this;
        if (photograph) {
          this.guard(this.read(photograph.file, photograph.name, photograph.sample));
        }
      });
    }
    for (const name of ["file", "camera"]) {
      find(name).onchange = () => {
        this.take(find(name).files);
        find(name).value = ""; // the same file again is a change, too
      };
    }
    window.addEventListener("dragover", (event) => this.dragged(event, true));
    window.addEventListener("dragleave", (event) => this.dragged(event, false));
    window.addEventListener("drop", (event) => {
      this.dragged(event, false);
      this.take(event.dataTransfer?.files);
    });
    window.addEventListener("paste", (event) => {
      if (event.clipboardData?.files.length) {
        this.take(event.clipboardData.files);
      }
    });
    find("save-png").onclick = async () => {
      const shown = this.view.maskShown();
      if (shown) {
        save("mask.png", await maskPicture(shown.mask, this.site.constants.input_size), "image/png");
      }
    };
    find("save-npy").onclick = () => {
      const shown = this.view.maskShown();
      const size = this.site.constants.input_size;
      if (shown) {
        save("mask.npy", npy(shown.mask, [size, size]), "application/octet-stream");
      }
    };
    find("save-settings").onclick = () =>
      save("mask-settings.json", JSON.stringify(this.choice.settings, null, 1), "application/json");
    find("link").onclick = () => this.copyLink();
    window.addEventListener("hashchange", () => {
      if (location.hash.includes("game=")) {
        location.reload(); // another link to settings; a heading's anchor is none
      }
    });
  }

  /** @param {DragEvent} event @param {boolean} over */
  dragged(event, over) {
    event.preventDefault(); // else a file dropped beside the box would replace the page
    find("photograph").classList.toggle("live-drop", over);
  }

  /** Says a failure instead of leaving it in the console. @param {Promise<any>} work */
  async guard(work) {
    try {
      await work;
    } catch (error) {
      const { message, known } = /** @type {WorkerError} */ (error);
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

  // 1. The photograph.

  /** @param {FileList | null | undefined} files */
  take(files) {
    if (!files || files.length === 0) {
      this.warn("That was no file. Drop or choose an image: JPEG, PNG, WebP, GIF or BMP.");
      return;
    }
    this.guard(this.read(files[0], files[0].name, null));
  }

  /** @param {string} name */
  async chooseSample(name) {
    const sample = this.site.samples.find((entry) => entry.name === name);
    const response = sample && (await fetch(new URL(sample.file, BASE)).catch(() => null));
    if (!response?.ok) {
      throw new WorkerError(`The sample ${name} could not be fetched. Check the connection.`, true);
    }
    await this.read(await response.blob(), spoken(name), name);
  }

  /**
   * Reads a photograph beside a run; only one that can be read ends the run and takes its place.
   * @param {Blob} file
   * @param {string} name
   * @param {string | null} sample
   */
  async read(file, name, sample) {
    const reading = ++this.readings;
    this.warn("");
    let read;
    try {
      read = await this.client.photograph(file, this.choice.fit, ({ width, height }) => {
        const megapixels = Math.round((width * height) / 1e6);
        if (megapixels >= LARGE) {
          this.say(`Reading ${name}: ${megapixels} megapixels take a moment …`);
        }
      });
    } catch (error) {
      const known = error instanceof WorkerError && error.known;
      const reason = known ? error.message : `could not be read (${/** @type {Error} */ (error).message})`;
      this.say(this.run ? "The mask is still being learned." : "");
      throw new WorkerError(`${name} ${reason}.`, true);
    }
    if (reading !== this.readings) {
      return; // another photograph has been chosen since
    }
    const interrupted = await this.endRun();
    if (this.photograph && file !== this.photograph.file && this.choice.targets !== "top") {
      this.choice.targets = null; // another photograph, another question
    }
    this.photograph = { file, name, sample, image: read.image };
    this.choice.sample = sample;
    const size = `${read.width}×${read.height} px`;
    this.say(`${interrupted ? "The run was ended for the new photograph. " : ""}${name}: ${size}.`);
    drawPlanes(find("image"), read.image);
    find("image").setAttribute("aria-label", `The photograph: ${name}`);
    this.view.show(null);
    this.top = (this.storedEntry()?.top ?? []).map(toGuess);
    this.showChoice();
    this.showStored();
    if (this.network.loaded) {
      await this.classify();
    }
  }

  /** @returns {any} what was computed before for this photograph as it lies here */
  storedEntry() {
    const { photograph, choice } = this;
    return photograph?.sample && choice.fit === "squash" ? this.precomputed.samples[photograph.sample] : null;
  }

  /** Shows the stored result of a sample, unless something was learned here. */
  showStored() {
    const entry = this.storedEntry();
    if (!entry || !this.photograph || this.run || (this.view.result && !this.view.result.stored)) {
      return;
    }
    const { settings, frames } = this.precomputed;
    const game = this.choice.settings.game;
    const { image } = this.photograph;
    const { constants } = this.site;
    const background = blur(image, constants.input_size, settings.blur_sigma, constants.truncate);
    const result = new Result(image, background, { ...settings, game }, constants, true);
    fillStored(entry[game], frames, result);
    this.view.show(result);
    this.showChoice();
  }

  async classify() {
    const { photograph } = this;
    if (!photograph) {
      return;
    }
    const top = await this.client.classify(photograph.image, TOP, this.cells);
    if (this.photograph === photograph) {
      this.top = top;
      this.showChoice();
    }
  }

  // 3. The question.

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
    find("command").textContent = this.command();
    find("command").parentElement.hidden = find("command").textContent === "";
  }

  /** The command that repeats this with the package; empty where it has none. */
  command() {
    const { choice, photograph, targets } = this;
    const five = choice.targets === "top";
    if (!photograph || choice.fit !== "squash" || (targets.length !== 1 && !five)) {
      return "";
    }
    const what = photograph.sample ? `--sample ${photograph.sample}` : "PHOTOGRAPH";
    const target = five ? "--preset localization" : `--target ${targets[0]}`;
    return `perturb-tutorial explain ${what} ${target} --settings mask-settings.json --seed ${choice.seed} --output explained`;
  }

  async copyLink() {
    const hash = writeLink(this.choice);
    history.replaceState(null, "", `#${hash}`);
    try {
      await navigator.clipboard.writeText(location.href);
      this.say("The link is copied.");
    } catch {
      this.say("The link now stands in the address bar.");
    }
  }

  // The run.

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
    const work = learnMask(this, task);
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
  const data = await Promise.all(["site.json", "classes.json", "precomputed.json"].map(json));
  const page = new Page(data[0], data[1], data[2]);
  await page.guard(page.start());
} catch (error) {
  find("needs").textContent =
    `This page could not start: ${/** @type {Error} */ (error).message}. Reload it.`;
}
