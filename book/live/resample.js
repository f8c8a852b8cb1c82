/**
 * A photograph brought to a square of S image px, to the last bit as Pillow does it for the package: shrinking averages
 * over areas (BOX), enlarging is bilinear; first across, then down, each rounded to whole values from 0 to 255.
 */

const PRECISION = 2 ** 22; // Pillow's fixed-point weights

/** @typedef {{first: number, weights: Float64Array}} Taps the source px behind one result px */
/** @typedef {(distance: number) => number} Filter */

/** @type {{support: number, filter: Filter}} */
const BOX = { support: 0.5, filter: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) };
/** @type {{support: number, filter: Filter}} */
const BILINEAR = { support: 1, filter: (x) => Math.max(0, 1 - Math.abs(x)) };

/**
 * The weights of each of `size` result px on a line of `length` source px of which low … high is shown.
 * @param {number} length
 * @param {number} low
 * @param {number} high
 * @param {number} size
 * @param {{support: number, filter: Filter}} kernel
 * @returns {Taps[]}
 */
function taps(length, low, high, size, kernel) {
  const scale = (high - low) / size;
  const stretch = Math.max(scale, 1);
  const reach = kernel.support * stretch;
  return Array.from({ length: size }, (_, index) => {
    const center = low + (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach + 0.5));
    const end = Math.min(length, Math.trunc(center + reach + 0.5));
    const weights = Float64Array.from({ length: end - first }, (_, i) =>
      kernel.filter((i + first - center + 0.5) / stretch),
    );
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { first, weights: weights.map((weight) => Math.round((weight / sum) * PRECISION)) };
  });
}

/** @param {number} sum a sum of values times fixed-point weights */
const rounded = (sum) => Math.min(255, Math.max(0, Math.floor(sum / PRECISION + 0.5)));

/**
 * Rows of a photograph as they are asked for, RGBA, so that a large one never lies in memory twice.
 * @typedef {object} Source
 * @property {number} width
 * @property {number} height
 * @property {(top: number, count: number) => Uint8ClampedArray} rows
 */

/**
 * @param {Source} source
 * @param {number} size S
 * @param {"squash" | "center"} fit the whole photograph, or its central square
 * @returns {Float32Array} 3×S×S in [0, 1]
 */
export function fitPhotograph(source, size, fit) {
  const { width, height } = source;
  const side = Math.min(width, height);
  const [left, top] = fit === "center" ? [(width - side) / 2, (height - side) / 2] : [0, 0];
  const [right, bottom] = [width - left, height - top];
  const kernel = right - left >= size && bottom - top >= size ? BOX : BILINEAR;
  const columns = taps(width, left, right, size, kernel);
  const lines = taps(height, top, bottom, size, kernel);
  const across = new Uint8Array(height * size * 3);
  const strip = Math.max(1, Math.floor(2 ** 22 / width));
  for (let y = 0; y < height; y += strip) {
    const count = Math.min(strip, height - y);
    const rgba = source.rows(y, count);
    for (let row = 0; row < count; row++) {
      squeeze(rgba, row * width * 4, 4, columns, across, (y + row) * size * 3);
    }
  }
  const planes = new Float32Array(3 * size * size);
  lines.forEach(({ first, weights }, y) => {
    for (let i = 0; i < size * 3; i++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) {
        sum += weights[k] * across[(first + k) * size * 3 + i];
      }
      planes[(i % 3) * size * size + y * size + Math.floor(i / 3)] = rounded(sum) / 255;
    }
  });
  return planes;
}

/**
 * One row of RGBA brought to `columns.length` px of RGB.
 * @param {Uint8ClampedArray} from
 * @param {number} start
 * @param {number} stride
 * @param {Taps[]} columns
 * @param {Uint8Array} to
 * @param {number} place
 */
function squeeze(from, start, stride, columns, to, place) {
  for (let x = 0; x < columns.length; x++) {
    const { first, weights } = columns[x];
    let [red, green, blue] = [0, 0, 0];
    for (let k = 0, at = start + first * stride; k < weights.length; k++, at += stride) {
      red += weights[k] * from[at];
      green += weights[k] * from[at + 1];
      blue += weights[k] * from[at + 2];
    }
    to[place + 3 * x] = rounded(red);
    to[place + 3 * x + 1] = rounded(green);
    to[place + 3 * x + 2] = rounded(blue);
  }
}
