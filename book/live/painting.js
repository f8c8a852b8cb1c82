/**
 * The reader's own mask: cells of the grid that are painted, which deletes them, or not, which keeps them. Strokes can be
 * taken back, and a painting can travel in a link.
 */

const STEPS = 200; // strokes that can be taken back

export class Painting {
  /** @param {number} cells the side of the grid, mask px */
  constructor(cells) {
    this.cells = cells;
    /** Row by row, 1 where the reader has painted. @type {Uint8Array} */
    this.painted = new Uint8Array(cells * cells);
    /** @private @type {Uint8Array[]} */
    this.past = [];
    /** @private @type {Uint8Array[]} */
    this.future = [];
  }

  get isEmpty() {
    return !this.painted.includes(1);
  }

  get canUndo() {
    return this.past.length > 0;
  }

  get canRedo() {
    return this.future.length > 0;
  }

  /** @returns {Float32Array} the mask's grid: 1 keeps, 0 deletes */
  grid() {
    return Float32Array.from(this.painted, (value) => 1 - value);
  }

  /**
   * One change that one step takes back; what changes nothing is no step.
   * @param {() => void} work
   */
  change(work) {
    const before = this.painted.slice();
    work();
    this.remember(before);
  }

  /** Ends a change that began with these cells. @param {Uint8Array} before */
  remember(before) {
    if (before.some((value, index) => value !== this.painted[index])) {
      this.past = [...this.past.slice(1 - STEPS), before];
      this.future = [];
    }
  }

  /** Nothing is painted, and there is nothing to take back. */
  reset() {
    this.painted = new Uint8Array(this.cells ** 2);
    this.past = [];
    this.future = [];
  }

  undo() {
    this.move(this.past, this.future);
  }

  redo() {
    this.move(this.future, this.past);
  }

  /** @private @param {Uint8Array[]} from @param {Uint8Array[]} to */
  move(from, to) {
    const cells = from.pop();
    if (cells) {
      to.push(this.painted);
      this.painted = cells;
    }
  }

  /**
   * The brush set down: the cell under it, and those whose centers it covers.
   * @param {number} x from the left, in cells
   * @param {number} y from the top
   * @param {number} radius in cells
   * @param {0 | 1} value
   */
  stamp(x, y, radius, value) {
    const { cells } = this;
    for (let row = Math.max(0, Math.floor(y - radius)); row < Math.min(cells, y + radius); row++) {
      for (let column = Math.max(0, Math.floor(x - radius)); column < Math.min(cells, x + radius); column++) {
        const under = row === Math.floor(y) && column === Math.floor(x);
        if (under || (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= radius * radius) {
          this.painted[row * cells + column] = value;
        }
      }
    }
  }

  /**
   * The brush drawn from one place to another, without gaps however fast it went.
   * @param {[number, number]} from
   * @param {[number, number]} to
   * @param {number} radius
   * @param {0 | 1} value
   */
  line([fromX, fromY], [toX, toY], radius, value) {
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(toX - fromX, toY - fromY)));
    for (let step = 0; step <= steps; step++) {
      const part = step / steps;
      this.stamp(fromX + part * (toX - fromX), fromY + part * (toY - fromY), radius, value);
    }
  }
}

/**
 * @param {Uint8Array} painted
 * @returns {string} one bit a cell, in the letters of base64url; as long for every painting of a grid
 */
export function writePainting(painted) {
  const bytes = new Uint8Array(Math.ceil(painted.length / 8));
  painted.forEach((value, index) => (bytes[index >> 3] |= value << (7 - (index & 7))));
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replace(/=+$/, "");
}

/**
 * @param {string} text as `writePainting` writes it
 * @param {number} cells
 * @returns {Uint8Array | null} null for whatever `writePainting` does not write for a grid of this size, and for nothing painted
 */
export function readPainting(text, cells) {
  const length = cells * cells;
  if (text.length !== Math.ceil((Math.ceil(length / 8) * 4) / 3) || !/^[\w-]+$/.test(text)) {
    return null;
  }
  const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const painted = Uint8Array.from(
    { length },
    (_, index) => (bytes.charCodeAt(index >> 3) >> (7 - (index & 7))) & 1,
  );
  return painted.includes(1) && writePainting(painted) === text ? painted : null;
}
