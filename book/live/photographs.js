/** The step that takes a photograph: a sample or a file of the reader's, and what is known of it before any run. */

import { WorkerError } from "./client.js";
import { spoken } from "./controls.js";
import { blur } from "./masks.js";
import { readPainting } from "./painting.js";
import { drawPlanes } from "./pictures.js";
import { Result, fillStored } from "./result.js";

/** @typedef {import("./page.js").Page} Page */
/** @typedef {{file: Blob, name: string, sample: string | null, image: Float32Array}} Photograph */

const LARGE = 20; // megapixels from which reading takes longer than a reader expects

/** @param {string} name @returns {any} */
const find = (name) => document.getElementById(`live-${name}`);
/** @param {[number, number]} entry of precomputed.json */
const toGuess = ([index, score]) => ({ index, score });

export class PhotographStep {
  /** @param {Page} page @param {URL} base the folder of the page's files */
  constructor(page, base) {
    this.page = page;
    this.base = base;
    /** @private */
    this.readings = 0;
  }

  /** Files come by button, camera, drop and paste. */
  listen() {
    const { page } = this;
    for (const input of document.querySelectorAll("[name=live-fit]")) {
      input.addEventListener("change", () => {
        page.choice.fit = /** @type {any} */ (input).value;
        const { photograph } = page;
        if (photograph) {
          page.guard(this.read(photograph.file, photograph.name, photograph.sample));
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
  }

  /** @param {DragEvent} event @param {boolean} over */
  dragged(event, over) {
    event.preventDefault(); // else a file dropped beside the box would replace the page
    find("photograph").classList.toggle("live-drop", over);
  }

  /** @param {FileList | null | undefined} files */
  take(files) {
    if (!files || files.length === 0) {
      this.page.warn("That was no file. Drop or choose an image: JPEG, PNG, WebP, GIF or BMP.");
      return;
    }
    this.page.guard(this.read(files[0], files[0].name, null));
  }

  /** @param {string} name */
  async chooseSample(name) {
    const sample = this.page.site.samples.find((entry) => entry.name === name);
    const response = sample && (await fetch(new URL(sample.file, this.base)).catch(() => null));
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
    const { page } = this;
    const reading = ++this.readings;
    page.warn("");
    let read;
    try {
      read = await page.client.photograph(file, page.choice.fit, ({ width, height }) => {
        const megapixels = Math.round((width * height) / 1e6);
        if (megapixels >= LARGE) {
          page.say(`Reading ${name}: ${megapixels} megapixels take a moment …`);
        }
      });
    } catch (error) {
      const known = error instanceof WorkerError && error.known;
      const reason = known ? error.message : `could not be read (${/** @type {Error} */ (error).message})`;
      page.say(page.run ? "The mask is still being learned." : "");
      throw new WorkerError(`${name} ${reason}.`, true);
    }
    if (reading !== this.readings) {
      return; // another photograph has been chosen since
    }
    const interrupted = await page.endRun();
    if (page.photograph && file !== page.photograph.file && page.choice.targets !== "top") {
      page.choice.targets = null; // another photograph, another question
    }
    const isFirst = page.photograph === null && sample === page.choice.sample; // as the link says
    const painting = isFirst || page.photograph?.file === file ? page.choice.painting : null;
    page.photograph = { file, name, sample, image: read.image };
    page.choice.sample = sample;
    const size = `${read.width}×${read.height} px`;
    page.say(`${interrupted ? "The run was ended for the new photograph. " : ""}${name}: ${size}.`);
    drawPlanes(find("image"), read.image);
    find("image").setAttribute("aria-label", `The photograph: ${name}`);
    page.view.show(null);
    page.top = (this.storedEntry()?.top ?? []).map(toGuess);
    const { erase } = page;
    const painted = painting === null ? null : readPainting(painting, erase.cells);
    erase.setPhotograph(read.image, page.choice.fit === "squash" ? sample : null, page.top, painted);
    if (painted && isFirst && Array.isArray(page.choice.targets)) {
      erase.choose(page.choice.targets[0]);
    }
    page.showChoice();
    this.showStored();
    if (page.network.loaded) {
      await page.classify();
    }
  }

  /** @returns {any} what was computed before for this photograph as it lies here */
  storedEntry() {
    const { photograph, choice, precomputed } = this.page;
    return photograph?.sample && choice.fit === "squash" ? precomputed.samples[photograph.sample] : null;
  }

  /** Shows the stored result of a sample, unless something was learned here. */
  showStored() {
    const { page } = this;
    const entry = this.storedEntry();
    if (!entry || !page.photograph || page.run || (page.view.result && !page.view.result.stored)) {
      return;
    }
    const { settings, frames } = page.precomputed;
    const game = page.choice.settings.game;
    const { image } = page.photograph;
    const { constants } = page.site;
    const background = blur(image, constants.input_size, settings.blur_sigma, constants.truncate);
    const result = new Result(image, background, { ...settings, game }, constants, true);
    fillStored(entry[game], frames, result);
    page.view.show(result);
    page.showChoice();
  }
}
