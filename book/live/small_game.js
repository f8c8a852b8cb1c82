/** The game of erasing on a chapter's page, on one sample photograph. */

import { Client } from "./client.js";
import { EraseGame } from "./erase.js";
import { canRun } from "./runtime.js";

/** @typedef {import("./settings.js").Site} Site */

const BASE = new URL(".", import.meta.url);
const TOP = 5;

/** @param {string} name @returns {any} */
const find = (name) => document.getElementById(`erase-${name}`);

/** @param {string} name @returns {Promise<Response>} */
async function get(name) {
  const response = await fetch(new URL(name, BASE)).catch(() => null);
  if (!response?.ok) {
    throw new Error(`${name} could not be fetched. Check the connection and press the button again.`);
  }
  return response;
}

/** What the game asks of the page that it is on. */
class Chapter {
  /** @param {Site} site @param {string[]} classes */
  constructor(site, classes) {
    this.site = site;
    this.classes = classes;
    this.client = new Client(site, BASE);
  }

  /** @param {Promise<any>} work */
  async guard(work) {
    try {
      await work;
    } catch (error) {
      const { message } = /** @type {Error} */ (error);
      find("alert").textContent = `Something failed here: ${message}. Reload the page.`;
      find("alert").hidden = false;
    }
  }

  /** @param {any} task @param {(event: any) => void} report */
  learnBeside(task, report) {
    return this.client.learn(task, report);
  }
}

/** Loads the network and opens the game. @param {string} sample */
export async function play(sample) {
  if (!canRun()) {
    throw new Error("This browser has no WebAssembly with vector instructions, so the network cannot run.");
  }
  const names = ["site.json", "classes.json", "duel.json"];
  const [site, classes, duel] = await Promise.all(names.map(async (name) => (await get(name)).json()));
  const { file } = site.samples.find((/** @type {{name: string}} */ { name }) => name === sample);
  const host = new Chapter(site, classes);
  find("loading").hidden = false;
  find("status").textContent = "Loading the network …";
  await host.client.load("wasm", ({ done, total }) => (find("loading").value = done / total));
  const blob = await (await get(file)).blob();
  const { image } = await host.client.photograph(blob, "squash", () => {});
  const cells = Math.round(site.constants.input_size / site.presets.default.settings.mask_scale);
  const top = await host.client.classify(image, TOP, cells);
  find("game").hidden = false;
  const game = new EraseGame(host, duel);
  game.setPhotograph(image, sample, top);
  game.load(true);
  find("status").textContent = "";
}
