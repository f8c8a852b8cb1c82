/** What the page gives to keep: the mask as an array and as a picture, and files in general. */

/**
 * A NumPy file (.npy, version 1.0) of float32 values.
 * @param {Float32Array} values
 * @param {number[]} shape
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function npy(values, shape) {
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`;
  // Magic, version and length take 10 bytes; padded so that the values begin at a multiple of 64.
  const padding = 64 - ((10 + header.length + 1) % 64);
  const text = header + " ".repeat(padding % 64) + "\n";
  const bytes = new Uint8Array(10 + text.length + 4 * values.length);
  bytes.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0]);
  const view = new DataView(bytes.buffer);
  view.setUint16(8, text.length, true);
  bytes.set(new TextEncoder().encode(text), 10);
  values.forEach((value, index) => view.setFloat32(10 + text.length + 4 * index, value, true));
  return bytes;
}

/**
 * Gives the reader a file.
 * @param {string} name
 * @param {BlobPart} content
 * @param {string} type
 */
export function save(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  // Some browsers read the address only after the click has been handled.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/**
 * A mask as a gray picture, white where a pixel is kept.
 * @param {Float32Array} mask
 * @param {number} size
 * @returns {Promise<Blob>}
 */
export function maskPicture(mask, size) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const picture = new ImageData(size, size);
  mask.forEach((value, index) => picture.data.fill(Math.round(255 * value), 4 * index, 4 * index + 3));
  mask.forEach((_, index) => (picture.data[4 * index + 3] = 255));
  canvas.getContext("2d")?.putImageData(picture, 0, 0);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/png"),
  );
}
