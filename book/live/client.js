/** The page's side of the worker: each request is a promise, and what happens meanwhile goes to a callback. */

/** What the worker could not do. `known` means that its message is meant for the reader. */
export class WorkerError extends Error {
  /** @param {string} message @param {boolean} known */
  constructor(message, known) {
    super(message);
    this.known = known;
  }
}

/** @typedef {import("./settings.js").Site} Site */
/** @typedef {import("./settings.js").MaskSettings} MaskSettings */
/** @typedef {{resolve: (value: any) => void, reject: (error: Error) => void, report: (event: any) => void}} Waiting */

export class Client {
  /** @param {Site} site @param {URL} base the folder of the page's files */
  constructor(site, base) {
    this.site = site;
    this.base = base;
    /** @private @type {Map<number, Waiting>} */
    this.waiting = new Map();
    /** @private */
    this.count = 0;
    /** Called when the worker has died, and with it the network. @type {() => void} */
    this.onCrash = () => {};
    /** @private @type {Worker | null} */
    this.worker = null;
  }

  /** @private */
  start() {
    const worker = new Worker(new URL("worker.js", this.base), { type: "module" });
    worker.onmessage = ({ data }) => {
      const waiting = this.waiting.get(data.id);
      if ("event" in data) {
        waiting?.report(data.event);
        return;
      }
      this.waiting.delete(data.id);
      if ("error" in data) {
        waiting?.reject(new WorkerError(data.error, data.known));
      } else {
        waiting?.resolve(data.value);
      }
    };
    // A worker that dies, for want of memory as a rule, answers nothing any more: nobody is left waiting.
    worker.onerror = (event) => {
      event.preventDefault();
      worker.terminate();
      const error = new WorkerError(event.message || "the worker could not be started", false);
      this.waiting.forEach(({ reject }) => reject(error));
      this.waiting.clear();
      this.worker = null;
      this.onCrash();
    };
    return worker;
  }

  /**
   * @private
   * @param {string} type
   * @param {object} [content]
   * @param {(event: any) => void} [report]
   * @returns {Promise<any>}
   */
  ask(type, content = {}, report = () => {}) {
    const id = this.count++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, report });
      this.worker ??= this.start();
      this.worker.postMessage({ id, type, ...content });
    });
  }

  /**
   * @param {Blob} file
   * @param {"squash" | "center"} fit
   * @param {(header: import("./photograph.js").Header) => void} report
   * @returns {Promise<{image: Float32Array, width: number, height: number}>}
   */
  photograph(file, fit, report) {
    return this.ask("photograph", { file, fit, site: this.site }, report);
  }

  /** @returns {Promise<import("./runtime.js").Engine>} the engine that suits this browser */
  engine() {
    return this.ask("engine");
  }

  /**
   * @param {import("./runtime.js").Engine} engine
   * @param {(event: {done: number, total: number}) => void} report
   * @returns {Promise<{engine: import("./runtime.js").Engine, threads: number}>}
   */
  load(engine, report) {
    return this.ask("load", { engine, site: this.site, base: this.base.href }, report);
  }

  /**
   * @param {Float32Array} image
   * @param {number} count
   * @param {number} cells
   * @returns {Promise<{index: number, score: number}[]>} best first
   */
  classify(image, count, cells) {
    return this.ask("classify", { image, count, cells });
  }

  /**
   * @param {Float32Array} grid 1 keeps, 0 perturbs
   * @param {Float32Array} image
   * @param {Float32Array} background the fully perturbed image
   * @returns {Promise<Float32Array>} of all classes
   */
  scores(grid, image, background) {
    return this.ask("scores", { grid, image, background });
  }

  /**
   * @param {{image: Float32Array, targets: number[], classes: number, settings: MaskSettings, seed: number}} task
   * @param {(event: any) => void} report gets {background}, {searching}, {start} and one {step} an iteration
   * @returns {Promise<{stopped: boolean, iterations: number, scoreMasked: number | null}>}
   */
  learn(task, report) {
    return this.ask("learn", { ...task, site: this.site }, report);
  }

  pause() {
    return this.ask("pause");
  }

  resume() {
    return this.ask("resume");
  }

  stop() {
    return this.ask("stop");
  }
}
