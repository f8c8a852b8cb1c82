// What call.mjs cannot pass as plain values: an optimizer with state, pixels behind a function.
import { perturb, shift, upsample, upsamplingMatrix } from "../../book/live/masks.js";
import { Adam, Game } from "../../book/live/optimizer.js";
import { Painting } from "../../book/live/painting.js";
import { fitPhotograph } from "../../book/live/resample.js";

export function adamSteps(grid, gradients, rate, constants) {
  const adam = new Adam(grid.length, rate, constants);
  return gradients.map((gradient) => {
    adam.step(grid, gradient);
    return grid.slice();
  });
}

export function shifted(planes, size, dx, dy) {
  const moved = new Float32Array(planes.length);
  shift(planes, size, dx, dy, moved);
  return moved;
}

export function fit(rgba, width, height, size, how) {
  const rows = (top, count) => Uint8ClampedArray.from(rgba.slice(4 * width * top, 4 * width * (top + count)));
  return fitPhotograph({ width, height, rows }, size, how);
}

/** A run on a network of three classes whose logits are linear in the mean colors of 28×28 tiles. */
export async function learnOnTiles(image, weight, target, settings, constants, seed) {
  const size = constants.input_size;
  const cells = Math.round(size / settings.mask_scale);
  const up = upsamplingMatrix(size, cells, settings.mask_sigma, constants.truncate);
  const tiles = 28;
  const tile = size / tiles;
  const count = 3 * tiles * tiles;
  const places = Int32Array.from({ length: 3 * size * size }, (_, at) => {
    const [color, y, x] = [Math.floor(at / size ** 2), Math.floor(at / size) % size, at % size];
    return color * tiles ** 2 + tiles * Math.floor(y / tile) + Math.floor(x / tile);
  });
  const softmax = (grid, x, background) => {
    const means = new Float64Array(count);
    const pixels = perturb(x, background, upsample(grid, up, cells));
    pixels.forEach((value, at) => (means[places[at]] += value / tile ** 2));
    const logits = [0, 1, 2].map((k) =>
      means.reduce((sum, mean, i) => sum + mean * weight[count * k + i], 0),
    );
    const powers = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
    return powers.map((power) => power / powers.reduce((a, b) => a + b));
  };
  const network = {
    scores: async (grid, x, background) => Float32Array.from(softmax(grid, x, background)),
    async scoreAndGradient(grid, x, background) {
      const scores = softmax(grid, x, background);
      const slope = scores.map((score, k) => scores[target] * ((k === target) - score));
      const onTile = Float64Array.from({ length: count }, (_, i) =>
        slope.reduce((sum, value, k) => sum + value * weight[count * k + i], 0),
      );
      const onMask = new Float64Array(size * size);
      x.forEach((value, at) => {
        onMask[at % (size * size)] += (onTile[places[at]] * (value - background[at])) / tile ** 2;
      });
      const gradient = new Float32Array(cells * cells);
      for (let y = 0; y < size; y++)
        for (let i = 0; i < cells; i++)
          for (let at = 0; up[y * cells + i] !== 0 && at < size * cells; at++) {
            const part = up[y * cells + i] * up[at] * onMask[y * size + Math.floor(at / cells)];
            gradient[i * cells + (at % cells)] += part;
          }
      return { score: scores[target], gradient };
    },
  };
  const targets = Float32Array.from([0, 1, 2], (k) => (k === target ? 1 : 0));
  const game = new Game(network, image, targets, settings, constants, seed);
  const start = await game.start(async () => true);
  const steps = [];
  for await (const step of game.learn(start.grid)) steps.push(step);
  return { start, steps };
}

/** The cells after each of some operations on a painting: ["line", from, to, radius, value], ["undo"], ["redo"], ["clear"]. */
export function paintings(cells, operations) {
  const painting = new Painting(cells);
  return operations.map(([name, ...values]) => {
    if (name === "line") painting.change(() => painting.line(...values));
    else if (name === "clear") painting.change(() => (painting.painted = new Uint8Array(cells * cells)));
    else painting[name]();
    return { painted: painting.painted.slice(), canUndo: painting.canUndo, canRedo: painting.canRedo };
  });
}
