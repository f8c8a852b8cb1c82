/** The step that loads the network: what it offers, how far it is, where the network runs then. */

import { WorkerError } from "./client.js";
import { assetsOf, canRun } from "./runtime.js";

/** @typedef {import("./runtime.js").Engine} Engine */
/** @typedef {import("./page.js").Page} Page */

const NAMES = { wasm: "WebAssembly", webgpu: "WebGPU", jspi: "WebGPU" };

/** @param {string} name @returns {any} */
const find = (name) => document.getElementById(`live-${name}`);
/** @param {number} bytes */
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

export class NetworkStep {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    /** @type {Engine} */
    this.engine = "wasm";
    this.loaded = false;
  }

  /** @param {Engine} engine @returns {string} */
  size(engine) {
    return megabytes(assetsOf(this.page.site, engine).reduce((sum, { bytes }) => sum + bytes, 0));
  }

  /** Says what a press of the button will fetch. */
  async offer() {
    this.loaded = false;
    this.page.showChoice();
    if (!canRun()) {
      find("load").disabled = true;
      find("engine").textContent =
        "This browser has no WebAssembly with vector instructions, so nothing can be learned here; " +
        "the samples show results that were computed when the book was made.";
      return;
    }
    /** @type {Engine} */
    this.engine = await this.page.client.engine().catch(() => "wasm");
    find("load").hidden = false;
    find("load").textContent = `Load the network (${this.size(this.engine)}, ${NAMES[this.engine]})`;
    find("load").disabled = find("load-wasm").disabled = false;
    find("engine").textContent = "EfficientNet-Lite0 and the runtime it needs; kept for your next visit.";
    find("load-wasm").hidden = this.engine === "wasm";
    find("load-wasm").textContent = `Without the graphics card (${this.size("wasm")})`;
  }

  /** @param {Engine} [engine] */
  async load(engine = this.engine) {
    const { page } = this;
    const bar = find("load-progress");
    page.warn("");
    find("load").disabled = find("load-wasm").disabled = true;
    bar.hidden = false;
    bar.value = 0;
    page.say("Loading the network …");
    try {
      const { threads } = await page.client.load(engine, ({ done, total }) => {
        bar.value = done / total;
        find("engine").textContent =
          done < total ? `${megabytes(done)} of ${megabytes(total)}` : "Preparing the network …";
      });
      const many = threads > 1 ? `${threads} threads` : "one thread";
      const where = engine === "wasm" ? `WebAssembly, ${many}` : "WebGPU";
      find("engine").textContent = `EfficientNet-Lite0 runs in this browser on ${where}.`;
      find("load").textContent = "The network is loaded";
      find("load").hidden = true;
      find("load-wasm").hidden = true;
    } catch (error) {
      find("load").disabled = find("load-wasm").disabled = false;
      find("engine").textContent = "The network is not loaded.";
      page.say("");
      const { message, known } = /** @type {WorkerError} */ (error);
      if (engine !== "wasm" && !known) {
        const mend = "Load the network without the graphics card.";
        throw new WorkerError(`WebGPU did not start here (${message}). ${mend}`, true);
      }
      throw error;
    } finally {
      bar.hidden = true;
    }
    this.loaded = true;
    await page.classify();
    page.showChoice();
    page.say("The network is ready.");
  }
}
