/** The small game in a chapter: all but this short script is loaded when its button is pressed. */

/** @param {string} name @returns {any} */
const find = (name) => document.getElementById(`erase-${name}`);

find("start").hidden = false;
find("start").onclick = async () => {
  find("start").disabled = true;
  find("alert").hidden = true;
  try {
    const { play } = await import("./small_game.js");
    await play(find("small").dataset.sample);
    find("poster").hidden = true;
    find("canvas").focus({ preventScroll: true });
  } catch (error) {
    find("status").textContent = "";
    find("alert").textContent = /** @type {Error} */ (error).message;
    find("alert").hidden = false;
  } finally {
    find("loading").hidden = true;
    find("start").disabled = false;
  }
};
