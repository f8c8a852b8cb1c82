/**
 * The network in this browser: ONNX Runtime Web with the graphs that the book's build has made.
 *
 * WebGPU where the browser has a graphics adapter that is not itself software, else WebAssembly: on several threads
 * where the page is isolated from others (COOP and COEP headers), on one elsewhere. The runtime of WebGPU is a file of
 * its own, fetched only where there is an adapter; browsers that can suspend WebAssembly take a smaller one.
 */

import { fetchAsset } from "./download.js";

/** @typedef {import("./settings.js").Site} Site */
/** @typedef {import("./optimizer.js").Network} Network */
/** @typedef {"wasm" | "webgpu" | "jspi"} Engine */

const GRAPHS = ["weights.bin.gz", "joint.onnx.gz", "forward.onnx.gz"];
const MAX_THREADS = 4; // more do not help a network of this size

/** A function that uses the vector instructions of WebAssembly, without which the runtime cannot start. */
const SIMD_MODULE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98,
  11,
]);

/** @returns {boolean} whether this browser can run the network at all */
export function canRun() {
  try {
    return WebAssembly.validate(SIMD_MODULE) && typeof DecompressionStream === "function";
  } catch {
    return false;
  }
}

/**
 * @param {boolean} software whether a WebGPU adapter that is software will do, too
 * @returns {Promise<Engine>} the engine to use here
 */
export async function pickEngine(software = false) {
  const gpu = /** @type {any} */ (navigator).gpu;
  const adapter = await Promise.resolve(gpu?.requestAdapter()).catch(() => null);
  if (!adapter || (!software && (adapter.isFallbackAdapter || adapter.info?.isFallbackAdapter))) {
    return "wasm";
  }
  return "Suspending" in WebAssembly ? "jspi" : "webgpu";
}

/**
 * @param {Site} site
 * @param {Engine} engine
 * @returns {import("./settings.js").Asset[]} what the engine needs, in the order in which it is fetched
 */
export function assetsOf(site, engine) {
  return [`ort.${engine}.wasm.gz`, ...GRAPHS].map((name) => site.assets[name]);
}

/**
 * @typedef {object} Opened
 * @property {Network} network
 * @property {Engine} engine
 * @property {number} threads
 */

/**
 * @param {Site} site
 * @param {URL} base the folder of the assets
 * @param {Engine} engine
 * @param {(done: number, total: number) => void} progress in bytes
 * @returns {Promise<Opened>}
 */
export async function openNetwork(site, base, engine, progress) {
  const assets = assetsOf(site, engine);
  const total = assets.reduce((sum, asset) => sum + asset.bytes, 0);
  let before = 0;
  /** @type {Uint8Array[]} */
  const files = [];
  for (const asset of assets) {
    files.push(await fetchAsset(asset, base, (bytes) => progress(before + bytes, total)));
    before += asset.bytes;
  }
  const [binary, weights, joint, forward] = files;
  const ort = await import(new URL(`ort.${engine}.mjs`, base).href);
  const threads = globalThis.crossOriginIsolated
    ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1)
    : 1;
  ort.env.wasm.wasmBinary = binary;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const options = {
    executionProviders: [engine === "wasm" ? "wasm" : "webgpu"],
    externalData: [{ path: "weights.bin", data: weights }],
    graphOptimizationLevel: "all",
  };
  const size = site.constants.input_size;
  const jointSession = await ort.InferenceSession.create(joint, options);
  const forwardSession = await ort.InferenceSession.create(forward, options);
  return { network: networkOf(ort, jointSession, forwardSession, size), engine, threads };
}

/**
 * @param {any} ort
 * @param {any} joint
 * @param {any} forward
 * @param {number} size
 * @returns {Network}
 */
function networkOf(ort, joint, forward, size) {
  const square = (/** @type {Float32Array} */ grid) => Math.round(Math.sqrt(grid.length));
  /** @param {Float32Array} grid @param {Float32Array} image @param {Float32Array} background */
  const feeds = (grid, image, background) => ({
    mask: new ort.Tensor("float32", grid, [1, 1, square(grid), square(grid)]),
    image: new ort.Tensor("float32", image, [1, 3, size, size]),
    background: new ort.Tensor("float32", background, [1, 3, size, size]),
  });
  return {
    async scores(grid, image, background) {
      const { probabilities } = await forward.run(feeds(grid, image, background));
      return probabilities.data;
    },
    async scoreAndGradient(grid, image, background, weights) {
      const { score, gradient } = await joint.run(
        {
          ...feeds(grid, image, background),
          weights: new ort.Tensor("float32", weights, [1, weights.length]),
        },
        ["score", "gradient"],
      );
      return { score: score.data[0], gradient: gradient.data };
    },
  };
}
