/**
 * The book's first screen: a photograph under a slider that deletes the evidence, and the network's score beside it.
 *
 * The mask of each stop of the slider lies in one picture, one below the other; the blurred photograph is laid over the
 * sharp one through it. Nothing is fetched but pictures, and no script of another file is needed, so the screen works
 * from a folder, too.
 */
(function () {
  /**
   * @typedef {object} Photograph
   * @property {string} name of the class that is deleted
   * @property {number[]} scores of that class, at each stop of the slider
   * @property {number[]} areas the deleted shares of the photograph
   * @property {[string, number][]} best guesses, with their scores
   * @property {number} width
   * @property {number} height
   * @property {string} alt
   * @property {string} credit
   */

  /** @param {string} name @returns {any} */
  const find = (name) => document.getElementById(`front-${name}`);
  /** @type {Record<string, Photograph>} */
  const photographs = JSON.parse(find("data").textContent);
  const { canvas, slider } = { canvas: find("canvas"), slider: find("strength") };
  const SIDE = 56; // of a stop's mask, px; as tools/front.py makes it
  /** @type {Record<string, HTMLImageElement>} what is laid over the photograph that is shown */
  let layers = {};
  let shown = "";

  /** @param {number} share @returns {string} in percent; between 0 and 1 with one decimal */
  const percent = (share) =>
    `${share > 0 && share < 0.0095 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;

  /** @param {string} name @param {string} kind @returns {string} the address of a picture */
  const address = (name, kind) => `front/${name}${kind}`;

  function draw() {
    const context = canvas.getContext("2d");
    const { blurred, masks } = layers;
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (blurred?.complete && masks?.complete) {
      context.globalCompositeOperation = "source-over";
      context.drawImage(blurred, 0, 0, canvas.width, canvas.height);
      context.globalCompositeOperation = "destination-in";
      context.drawImage(masks, 0, SIDE * slider.value, SIDE, SIDE, 0, 0, canvas.width, canvas.height);
    }
  }

  function show() {
    const { name, scores, areas, best } = photographs[shown];
    const stop = Number(slider.value);
    const [guess, certainty] = best[stop];
    draw();
    find("score").textContent = percent(scores[stop]);
    find("name").textContent = name;
    find("guess").textContent =
      guess === name
        ? `${stop === 0 ? "Its" : "Still its"} best guess.`
        : `Its best guess now: ${guess}, ${percent(certainty)}.`;
    find("area").textContent = `${percent(areas[stop])} of the photograph blurred.`;
    const points = scores.map((score, at) => `${at * 10},${100 - 100 * score}`);
    find("line").setAttribute("points", points.join(" "));
    find("dot").setAttribute("cx", String(10 * stop));
    find("dot").setAttribute("cy", String(100 - 100 * scores[stop]));
    slider.setAttribute(
      "aria-valuetext",
      `${percent(areas[stop])} blurred: ${name} ${percent(scores[stop])}`,
    );
  }

  /** @param {string} name */
  function choose(name) {
    const { width, height, alt, credit, scores, areas } = photographs[name];
    shown = name;
    find("photograph").src = address(name, ".jpg");
    find("photograph").alt = alt;
    find("deleted").src = address(name, ".deleted.jpg");
    [canvas.width, canvas.height] = [width, height];
    layers = { blurred: new Image(), masks: new Image() };
    for (const image of Object.values(layers)) {
      image.onload = draw;
    }
    layers.blurred.src = address(name, ".blurred.jpg");
    layers.masks.src = address(name, ".masks.png");
    find("credit").textContent = credit;
    const paper = { named: photographs[name].name, first: percent(scores[0]) };
    const last = scores.length - 1;
    Object.assign(paper, { blurred: percent(areas[last]), last: percent(scores[last]) });
    Object.entries(paper).forEach(([key, text]) => (find(key).textContent = text));
    slider.value = "0";
    show();
  }

  /** The photograph itself can be dragged across. @param {PointerEvent} event */
  function drag(event) {
    const box = find("picture").getBoundingClientRect();
    const part = (event.clientX - box.left - 0.05 * box.width) / (0.9 * box.width);
    slider.value = String(Math.round(slider.max * part));
    show();
  }

  find("picture").addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    if (event.button === 0) {
      find("picture").setPointerCapture(event.pointerId);
      drag(event);
    }
  });
  find("picture").addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (find("picture").hasPointerCapture(event.pointerId)) {
      drag(event);
    }
  });
  slider.addEventListener("input", show);
  for (const input of document.querySelectorAll("[name=front-name]")) {
    input.addEventListener("change", () => choose(/** @type {HTMLInputElement} */ (input).value));
  }
  find("screen").classList.add("front-on");
  choose(/** @type {any} */ (document.querySelector("[name=front-name]:checked")).value);
})();
