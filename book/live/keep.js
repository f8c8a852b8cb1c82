/** What the reader takes away from the live page: the mask as a picture and as an array, the settings, a link. */

import { maskPicture, npy, save } from "./files.js";
import { writeLink } from "./settings.js";

/** @typedef {import("./page.js").Page} Page */

/** @param {string} name @returns {any} */
const find = (name) => document.getElementById(`live-${name}`);

/** @param {Page} page */
export function listenToKeep(page) {
  const size = page.site.constants.input_size;
  find("save-png").onclick = async () => {
    const shown = page.view.maskShown();
    if (shown) {
      save("mask.png", await maskPicture(shown.mask, size), "image/png");
    }
  };
  find("save-npy").onclick = () => {
    const shown = page.view.maskShown();
    if (shown) {
      save("mask.npy", npy(shown.mask, [size, size]), "application/octet-stream");
    }
  };
  find("save-settings").onclick = () =>
    save("mask-settings.json", JSON.stringify(page.choice.settings, null, 1), "application/json");
  find("link").onclick = () => copyLink(page);
}

/** @param {Page} page */
async function copyLink(page) {
  const { choice, erase } = page;
  const painted = choice.mode === "erase" && choice.painting !== null;
  const hash = writeLink(painted ? { ...choice, targets: [erase.target] } : choice);
  history.replaceState(null, "", `#${hash}`);
  try {
    await navigator.clipboard.writeText(location.href);
    page.say("The link is copied.");
  } catch {
    page.say("The link now stands in the address bar.");
  }
}

/** The command that repeats this with the package; empty where it has none. @param {Page} page */
export function commandOf({ choice, photograph, targets }) {
  const five = choice.targets === "top";
  if (!photograph || choice.fit !== "squash" || (targets.length !== 1 && !five)) {
    return "";
  }
  const what = photograph.sample ? `--sample ${photograph.sample}` : "PHOTOGRAPH";
  const target = five ? "--preset localization" : `--target ${targets[0]}`;
  return `perturb-tutorial explain ${what} ${target} --settings mask-settings.json --seed ${choice.seed} --output explained`;
}
