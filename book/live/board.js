/**
 * The photograph that the reader paints on: by mouse, pen or finger, or cell by cell with the keyboard. What is painted is
 * blurred as the network sees it, and outlined.
 */

import { drawPlanes } from "./pictures.js";

/** @typedef {import("./painting.js").Painting} Painting */
/** @typedef {{radius: number, value: 0 | 1}} Brush radius in cells; 1 paints, 0 restores */

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Lines around the cells of each set; the color comes from the style sheet. @typedef {{cells: ArrayLike<number>, color: string}} Outline */

export class Board {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Painting} painting
   * @param {() => Brush} brush
   * @param {() => void} changed called while a stroke is drawn and when it ends
   * @param {(text: string) => void} say for readers who do not see the picture
   */
  constructor(canvas, painting, brush, changed, say) {
    this.canvas = canvas;
    this.painting = painting;
    this.brush = brush;
    this.changed = changed;
    this.say = say;
    this.picture = document.createElement("canvas");
    /** @private @type {[number, number] | null} where the stroke at work is */
    this.at = null;
    /** @private @type {Uint8Array | null} the cells before that stroke */
    this.before = null;
    /** The cell under the keyboard's cursor; it shows while the canvas has the focus. @private */
    this.cursor = [painting.cells >> 1, painting.cells >> 1];
    /** @private */
    this.keyed = false;
    this.enabled = false;
    this.listen();
  }

  /** @private */
  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button === 0 && this.enabled) {
        canvas.setPointerCapture(event.pointerId);
        this.keyed = false;
        this.before = this.painting.painted.slice();
        this.draw(event);
      }
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.before) {
        for (const each of event.getCoalescedEvents?.() ?? []) {
          this.draw(each);
        }
        this.draw(event);
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, () => this.lift());
    }
    canvas.addEventListener("keydown", (event) => this.press(event));
    for (const name of ["focus", "blur"]) {
      canvas.addEventListener(name, () => {
        this.keyed = name === "focus" && canvas.matches(":focus-visible");
        this.changed();
      });
    }
  }

  /** @private @param {PointerEvent} event */
  draw(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.painting.cells / box.width;
    /** @type {[number, number]} */
    const to = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const { radius, value } = this.brush();
    this.painting.line(this.at ?? to, to, radius, value);
    this.at = to;
    this.changed();
  }

  /** @private */
  lift() {
    if (this.before) {
      this.painting.remember(this.before);
      this.before = this.at = null;
      this.changed();
    }
  }

  /** @private @param {KeyboardEvent} event */
  press(event) {
    const step = ARROWS[/** @type {keyof typeof ARROWS} */ (event.key)];
    const paints = event.key === " " || event.key === "Enter";
    if (!this.enabled || (!step && !paints) || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    event.preventDefault(); // else the page scrolls
    const { cells } = this.painting;
    if (step) {
      this.cursor = this.cursor.map((at, axis) => Math.min(cells - 1, Math.max(0, at + step[axis])));
    }
    const [column, row] = this.cursor;
    const { radius, value } = this.brush();
    if (paints || event.shiftKey) {
      this.painting.change(() => this.painting.stamp(column + 0.5, row + 0.5, radius, value));
    }
    this.keyed = true;
    const state = this.painting.painted[row * cells + column] ? "painted" : "not painted";
    this.say(`Row ${row + 1}, column ${column + 1}: ${state}.`);
    this.changed();
  }

  /**
   * @param {ArrayLike<number>} planes 3×S×S in [0, 1]
   * @param {Outline[]} outlines
   */
  show(planes, outlines) {
    const side = Math.round(Math.sqrt(planes.length / 3));
    this.picture.width = this.picture.height = side;
    drawPlanes(this.picture, planes);
    const context = this.canvas.getContext("2d");
    if (!context) {
      return;
    }
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, 0, 0, this.canvas.width, this.canvas.height);
    const scale = this.canvas.width / this.painting.cells;
    for (const { cells, color } of outlines) {
      stroke(context, edges(cells, this.painting.cells, scale), color);
    }
    if (this.keyed) {
      const [column, row] = this.cursor;
      const cursor = new Path2D();
      cursor.rect(column * scale, row * scale, scale, scale);
      stroke(context, cursor, "#ffffff");
    }
  }
}

/** A line that is seen on light and on dark. @param {CanvasRenderingContext2D} context @param {Path2D} path @param {string} color */
function stroke(context, path, color) {
  for (const [width, style] of /** @type {[number, string][]} */ ([
    [5, "#000000"],
    [3, color],
  ])) {
    context.lineWidth = width;
    context.strokeStyle = style;
    context.stroke(path);
  }
}

/**
 * The border between cells that are at least half in a set and those that are not.
 * @param {ArrayLike<number>} set 0 … 1 of each cell
 * @param {number} cells
 * @param {number} scale canvas px a cell
 * @returns {Path2D}
 */
function edges(set, cells, scale) {
  const path = new Path2D();
  const inside = (/** @type {number} */ row, /** @type {number} */ column) =>
    row >= 0 && row < cells && column >= 0 && column < cells && set[row * cells + column] >= 0.5;
  for (let row = 0; row <= cells; row++) {
    for (let column = 0; column <= cells; column++) {
      if (inside(row, column) !== inside(row, column - 1)) {
        path.moveTo(column * scale, row * scale);
        path.lineTo(column * scale, (row + 1) * scale);
      }
      if (inside(row, column) !== inside(row - 1, column)) {
        path.moveTo(column * scale, row * scale);
        path.lineTo((column + 1) * scale, row * scale);
      }
    }
  }
  return path;
}
