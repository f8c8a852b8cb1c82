/**
 * Masks: from the grid that is optimized to the image that it covers, as module `masks` of the package has it.
 *
 *     M = U m Uᵀ,   U = G(σ_m) · S,   S: image px × mask px (nearest),   G: image px × image px (Gaussian)
 *
 * A mask is 1 where a pixel is kept and 0 where it is perturbed. Matrices and images are rows of numbers, one row
 * after the other; an image of three colors is three such planes.
 */

/**
 * A Gaussian of σ px, truncated at `truncate` σ: weights at −reach … reach, which sum to 1.
 * @param {number} sigma
 * @param {number} truncate
 * @returns {Float64Array}
 */
export function gaussian(sigma, truncate) {
  if (sigma === 0) {
    return new Float64Array([1]);
  }
  const reach = Math.floor(truncate * sigma + 0.5);
  const weights = new Float64Array(2 * reach + 1);
  for (let i = -reach; i <= reach; i++) {
    weights[i + reach] = Math.exp(-0.5 * (i / sigma) ** 2);
  }
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

/**
 * Planes of size×size px blurred by σ px with replicated edges.
 * @param {ArrayLike<number>} planes
 * @param {number} size
 * @param {number} sigma
 * @param {number} truncate
 * @returns {Float32Array}
 */
export function blur(planes, size, sigma, truncate) {
  const weights = gaussian(sigma, truncate);
  const reach = (weights.length - 1) / 2;
  const area = size * size;
  const across = new Float64Array(area);
  const blurred = new Float32Array(planes.length);
  const line = new Float64Array(size + 2 * reach);

  /** @param {(index: number) => number} read @param {(index: number, value: number) => void} write */
  function blurLine(read, write) {
    for (let i = 0; i < line.length; i++) {
      line[i] = read(Math.min(Math.max(i - reach, 0), size - 1));
    }
    for (let i = 0; i < size; i++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) {
        sum += weights[k] * line[i + k];
      }
      write(i, sum);
    }
  }

  for (let start = 0; start < planes.length; start += area) {
    for (let y = 0; y < size; y++) {
      const row = y * size;
      blurLine(
        (x) => planes[start + row + x],
        (x, value) => (across[row + x] = value),
      );
    }
    for (let x = 0; x < size; x++) {
      blurLine(
        (y) => across[y * size + x],
        (y, value) => (blurred[start + y * size + x] = value),
      );
    }
  }
  return blurred;
}

/**
 * Matrix U (size×cells): nearest upsampling of `cells` mask px, then a blur of σ image px.
 * @param {number} size
 * @param {number} cells
 * @param {number} sigma
 * @param {number} truncate
 * @returns {Float64Array}
 */
export function upsamplingMatrix(size, cells, sigma, truncate) {
  const weights = gaussian(sigma, truncate);
  const reach = (weights.length - 1) / 2;
  const matrix = new Float64Array(size * cells);
  for (let y = 0; y < size; y++) {
    for (let k = -reach; k <= reach; k++) {
      const from = Math.min(Math.max(y + k, 0), size - 1);
      matrix[y * cells + Math.floor((from * cells) / size)] += weights[k + reach];
    }
  }
  return matrix;
}

/**
 * The mask M (size×size) of a grid (cells×cells): U m Uᵀ.
 * @param {ArrayLike<number>} grid
 * @param {Float64Array} up matrix U, size×cells
 * @param {number} cells
 * @returns {Float32Array}
 */
export function upsample(grid, up, cells) {
  const size = up.length / cells;
  const half = new Float64Array(size * cells);
  for (let y = 0; y < size; y++) {
    for (let j = 0; j < cells; j++) {
      let sum = 0;
      for (let i = 0; i < cells; i++) {
        sum += up[y * cells + i] * grid[i * cells + j];
      }
      half[y * cells + j] = sum;
    }
  }
  const mask = new Float32Array(size * size);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      let sum = 0;
      for (let j = 0; j < cells; j++) {
        sum += half[y * cells + j] * up[x * cells + j];
      }
      mask[y * size + x] = sum;
    }
  }
  return mask;
}

/**
 * The weight of each mask px in the mean of the mask on the image: the mean is linear in the grid.
 * @param {Float64Array} up matrix U, size×cells
 * @param {number} cells
 * @returns {Float64Array} cells×cells
 */
export function meanWeights(up, cells) {
  const size = up.length / cells;
  const share = new Float64Array(cells);
  up.forEach((value, index) => (share[index % cells] += value / size));
  return Float64Array.from(
    { length: cells * cells },
    (_, i) => share[Math.floor(i / cells)] * share[i % cells],
  );
}

/** @param {string} text bytes in base64 @returns {Float32Array} as grids are stored: in [0, 1] */
export function readGrid(text) {
  return Float32Array.from(atob(text), (letter) => letter.charCodeAt(0) / 255);
}

/**
 * A centered disc on the grid (cells×cells), 1 inside: hard on the image, blurred by σ px, averaged over mask px.
 * @param {number} size image px
 * @param {number} cells mask px
 * @param {number} radius image px
 * @param {number} sigma image px
 * @param {number} truncate
 * @returns {Float32Array}
 */
export function discGrid(size, cells, radius, sigma, truncate) {
  const hard = new Float32Array(size * size);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const squared = (x + 0.5 - size / 2) ** 2 + (y + 0.5 - size / 2) ** 2;
      hard[y * size + x] = squared < radius * radius ? 1 : 0;
    }
  }
  const soft = blur(hard, size, sigma, truncate);
  const grid = new Float32Array(cells * cells);
  // A mask px covers these rows, as adaptive average pooling cuts them.
  const first = (/** @type {number} */ cell) => Math.floor((cell * size) / cells);
  const end = (/** @type {number} */ cell) => Math.ceil(((cell + 1) * size) / cells);
  for (let i = 0; i < cells; i++) {
    for (let j = 0; j < cells; j++) {
      let sum = 0;
      for (let y = first(i); y < end(i); y++) {
        for (let x = first(j); x < end(j); x++) {
          sum += soft[y * size + x];
        }
      }
      grid[i * cells + j] = sum / ((end(i) - first(i)) * (end(j) - first(j)));
    }
  }
  return grid;
}

/**
 * TV_β = Σ (d₁² + d₂²)^(β/2) of a grid (cells×cells) with forward differences, and its gradient.
 * @param {ArrayLike<number>} grid
 * @param {number} cells
 * @param {number} exponent β
 * @param {number} epsilon added to d₁² + d₂², so that its root has a derivative where the grid is flat
 * @returns {{value: number, gradient: Float64Array}}
 */
export function totalVariation(grid, cells, exponent, epsilon) {
  const gradient = new Float64Array(cells * cells);
  let value = 0;
  for (let y = 0; y < cells; y++) {
    for (let x = 0; x < cells; x++) {
      const here = y * cells + x;
      const down = y + 1 < cells ? grid[here + cells] - grid[here] : 0;
      const right = x + 1 < cells ? grid[here + 1] - grid[here] : 0;
      const squared = down * down + right * right + epsilon;
      value += squared ** (exponent / 2);
      const slope = exponent * squared ** (exponent / 2 - 1);
      gradient[here] -= slope * (down + right);
      if (y + 1 < cells) {
        gradient[here + cells] += slope * down;
      }
      if (x + 1 < cells) {
        gradient[here + 1] += slope * right;
      }
    }
  }
  return { value, gradient };
}

/**
 * Planes of size×size px moved `dx` px to the right and `dy` px down, edges replicated.
 * @param {Float32Array} planes
 * @param {number} size
 * @param {number} dx
 * @param {number} dy
 * @param {Float32Array} moved filled with the result
 */
export function shift(planes, size, dx, dy, moved) {
  const rows = planes.length / size;
  for (let row = 0; row < rows; row++) {
    const y = row % size;
    const from = (row - y + Math.max(0, y - dy)) * size;
    const to = row * size;
    moved.fill(planes[from], to, to + dx);
    moved.set(planes.subarray(from, from + size - dx), to + dx);
  }
}

/**
 * Φ(x; M) = x · M + x′ · (1 − M) on three planes.
 * @param {ArrayLike<number>} image
 * @param {ArrayLike<number>} background
 * @param {ArrayLike<number>} mask one plane
 * @returns {Float32Array}
 */
export function perturb(image, background, mask) {
  const pixels = new Float32Array(image.length);
  for (let i = 0; i < pixels.length; i++) {
    const kept = mask[i % mask.length];
    pixels[i] = image[i] * kept + background[i] * (1 - kept);
  }
  return pixels;
}
