/** What the page draws: the photograph, what a mask leaves of it, the saliency over it, and the score's curve. */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} planes 3×S×S in [0, 1]
 */
export function drawPlanes(canvas, planes) {
  const area = planes.length / 3;
  drawPixels(canvas, (at) => [planes[at], planes[area + at], planes[2 * area + at]]);
}

/**
 * The image in gray under the saliency in color, as `perturb_tutorial.plotting.overlay` mixes them.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} planes 3×S×S in [0, 1]
 * @param {ArrayLike<number>} saliency S×S in [0, 1]
 * @param {number[][]} colors 256 colors in [0, 1]
 */
export function drawOverlay(canvas, planes, saliency, colors) {
  const area = planes.length / 3;
  drawPixels(canvas, (at) => {
    const gray = (planes[at] + planes[area + at] + planes[2 * area + at]) / 3;
    const value = Math.min(Math.max(saliency[at], 0), 1);
    const cover = 0.75 * value;
    return colors[Math.min(255, Math.floor(256 * value))].map((color) => gray * (1 - cover) + color * cover);
  });
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {(at: number) => number[]} color of a pixel, in [0, 1]
 */
function drawPixels(canvas, color) {
  const picture = new ImageData(canvas.width, canvas.height);
  for (let at = 0; at < canvas.width * canvas.height; at++) {
    const [red, green, blue] = color(at);
    picture.data.set([255 * red, 255 * green, 255 * blue, 255], 4 * at);
  }
  canvas.getContext("2d")?.putImageData(picture, 0, 0);
}

/**
 * @param {string} text 256 colors, six hexadecimal digits each
 * @returns {number[][]} red, green and blue in [0, 1]
 */
export function readColors(text) {
  return Array.from({ length: text.length / 6 }, (_, index) =>
    [0, 2, 4].map((at) => parseInt(text.slice(6 * index + at, 6 * index + at + 2), 16) / 255),
  );
}

const FRAME = { left: 44, right: 632, top: 8, bottom: 188 };

/**
 * Score and area in [0, 1] over the iterations; dashed, the scores of the image and of the wholly blurred one.
 * @param {SVGElement} svg
 * @param {{score: number[], frames: {iteration: number, area: number}[], iterations: number, shown: number,
 *   original: number, perturbed: number}} curve
 */
export function drawCurve(svg, { score, frames, iterations, shown, original, perturbed }) {
  const { left, right, top, bottom } = FRAME;
  const x = (/** @type {number} */ at) => left + ((right - left) * at) / Math.max(1, iterations);
  const y = (/** @type {number} */ value) => bottom - (bottom - top) * value;
  const level = (/** @type {number} */ value) => `M${left} ${y(value)}H${right}`;
  const line = (/** @type {number[][]} */ points) =>
    points.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const areas = frames.map(({ iteration, area }) => [iteration, area]);
  const scores = score.map((value, index) => [index + 1, value]);
  svg.replaceChildren(
    element("path", { class: "live-axis", d: `M${left} ${top}V${bottom}H${right}` }),
    element("path", { class: "live-level", d: level(original) }),
    element("path", { class: "live-level", d: level(perturbed) }),
    element("polyline", { class: "live-area", points: line(areas) }),
    element("polyline", { class: "live-line", points: line(scores) }),
    element("path", { class: "live-now", d: `M${x(shown)} ${top}V${bottom}` }),
    ...[0, 0.5, 1].map((value) =>
      element("text", { x: left - 6, y: y(value) + 5, "text-anchor": "end" }, value.toFixed(1)),
    ),
    ...[0, Math.round(iterations / 2), iterations].map((value, index) =>
      element(
        "text",
        { x: x(value), y: bottom + 20, "text-anchor": ["start", "middle", "end"][index] },
        value,
      ),
    ),
    element("text", { x: x(iterations / 2), y: bottom + 48, "text-anchor": "middle" }, "iteration"),
  );
}

/** @param {string} name @param {Record<string, string | number>} attributes @param {string | number} [text] */
function element(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, String(value)));
  if (text !== undefined) {
    made.textContent = String(text);
  }
  return made;
}
