/**
 * A file of the reader's → 3×S×S pixels, or one line that says what it is and what to do.
 *
 * The header is read before anything is decoded, so that a file that is no photograph, or one too large for a browser's
 * memory, is refused at once. The browser decodes, applies the EXIF orientation and takes an animation's first frame;
 * transparency is laid over white.
 */

import { fitPhotograph } from "./resample.js";

/** @typedef {import("./settings.js").Constants} Constants */
/**
 * @typedef {{kind: string, width: number, height: number, scans?: number}} Header 0×0 where the header does not say;
 * `scans` of a JPEG
 */

const EXPECTED = "expected JPEG, PNG, WebP, GIF or BMP";

/** Why a file is refused; the message is for the reader. */
export class PhotographError extends Error {}

/**
 * @param {Blob} file
 * @param {"squash" | "center"} fit
 * @param {Constants} constants
 * @param {(header: Header) => void} [report] called once the header is read, before the long part
 * @returns {Promise<{image: Float32Array, width: number, height: number}>} `image` is 3×S×S in [0, 1]
 */
export async function readPhotograph(file, fit, constants, report = () => {}) {
  if (file.size === 0) {
    throw new PhotographError("is empty (0 bytes); copy the file again");
  }
  if (file.size > constants.max_megabytes * 1e6) {
    const megabytes = Math.round(file.size / 1e6);
    throw new PhotographError(
      `has ${megabytes} MB, more than ${constants.max_megabytes}; make it smaller first`,
    );
  }
  const header = readHeader(new Uint8Array(await file.arrayBuffer()));
  checkSize(header, constants);
  report(header);
  const bitmap = await decode(file, header);
  try {
    checkSize({ ...header, width: bitmap.width, height: bitmap.height }, constants);
    const image = fitPhotograph(rowsOf(bitmap), constants.input_size, fit);
    return { image, width: bitmap.width, height: bitmap.height };
  } catch (error) {
    throw error instanceof PhotographError
      ? error
      : new PhotographError("is too large for this browser's memory; make it smaller first");
  } finally {
    bitmap.close();
  }
}

/** @param {Blob} file @param {Header} header */
async function decode(file, header) {
  try {
    return await createImageBitmap(file, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
    });
  } catch {
    const reason =
      header.kind === "HEIC"
        ? "is a HEIC photograph, which this browser cannot decode; save it as JPEG"
        : `is a damaged ${header.kind}, or too large for this browser; copy the file again or make it smaller`;
    throw new PhotographError(reason);
  }
}

/**
 * @param {Header} header
 * @param {Constants} constants
 */
export function checkSize({ kind, width, height, scans = 1 }, constants) {
  const { max_pixels, max_buffered_pixels, max_scans, max_scanned_pixels, min_side } = constants;
  const pixels = width * height;
  const buffered = kind === "WebP" ? " for a WebP file" : scans > 1 ? " for a JPEG of several scans" : "";
  const most = buffered === "" ? max_pixels : max_buffered_pixels;
  if (pixels > most) {
    throw new PhotographError(
      `has ${Math.round(pixels / 1e6)} megapixels, more than ${most / 1e6}${buffered}; make it smaller first`,
    );
  }
  if (scans > max_scans || scans * pixels > max_scanned_pixels) {
    throw new PhotographError(
      `is a JPEG of ${scans} scans, too many for its size; save it again as a baseline JPEG`,
    );
  }
  if (width > 0 && Math.min(width, height) < min_side) {
    throw new PhotographError(`is ${width}×${height} px; expected at least ${min_side} px a side`);
  }
}

/**
 * @param {ImageBitmap} bitmap
 * @returns {import("./resample.js").Source}
 */
function rowsOf(bitmap) {
  const { width, height } = bitmap;
  /** @type {OffscreenCanvasRenderingContext2D | null} */
  let context = null;
  return {
    width,
    height,
    rows(top, count) {
      context ??= new OffscreenCanvas(width, count).getContext("2d", { willReadFrequently: true });
      if (context === null) {
        throw new Error("no canvas");
      }
      context.fillStyle = "white";
      context.fillRect(0, 0, width, count);
      context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
      return context.getImageData(0, 0, width, count).data;
    },
  };
}

/**
 * What a file is, by its first bytes.
 * @param {Uint8Array} bytes
 * @returns {Header}
 */
export function readHeader(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (/** @type {number} */ from, /** @type {number} */ to) =>
    String.fromCharCode(...bytes.subarray(from, to));
  try {
    if (bytes[0] === 0xff && bytes[1] === 0xd8) {
      return jpegHeader(view);
    }
    if (text(1, 4) === "PNG") {
      return { kind: "PNG", width: view.getUint32(16), height: view.getUint32(20) };
    }
    if (text(0, 3) === "GIF") {
      return { kind: "GIF", width: view.getUint16(6, true), height: view.getUint16(8, true) };
    }
    if (text(0, 2) === "BM") {
      const height = Math.abs(view.getInt32(22, true)); // negative when it runs from the top
      return { kind: "BMP", width: view.getInt32(18, true), height };
    }
    if (text(0, 4) === "RIFF" && text(8, 12) === "WEBP") {
      return webpHeader(view, text(12, 16));
    }
  } catch (error) {
    if (error instanceof RangeError) {
      throw new PhotographError("is damaged or cut off; copy the file again");
    }
    throw error;
  }
  if (text(4, 8) === "ftyp") {
    const kind = text(8, 11) === "avi" ? "AVIF" : "HEIC";
    return { kind, width: 0, height: 0 };
  }
  if (text(0, 5) === "%PDF-") {
    throw new PhotographError(`is a PDF, not a photograph; ${EXPECTED}`);
  }
  throw new PhotographError(`is not an image that can be read here; ${EXPECTED}`);
}

/**
 * @param {DataView} view
 * @param {string} part the kind of its first part: extended, lossless or lossy
 * @returns {Header}
 */
function webpHeader(view, part) {
  if (part === "VP8X") {
    const side = (/** @type {number} */ at) => (view.getUint32(at, true) & 0xffffff) + 1;
    return { kind: "WebP", width: side(24), height: side(27) };
  }
  if (part === "VP8L") {
    const sides = view.getUint32(21, true);
    return { kind: "WebP", width: (sides & 0x3fff) + 1, height: ((sides >> 14) & 0x3fff) + 1 };
  }
  return {
    kind: "WebP",
    width: view.getUint16(26, true) & 0x3fff,
    height: view.getUint16(28, true) & 0x3fff,
  };
}

/**
 * @param {DataView} view
 * @returns {Header}
 */
function jpegHeader(view) {
  let place = 2;
  let [width, height] = [0, 0];
  for (;;) {
    const marker = view.getUint16(place);
    if (marker >> 8 !== 0xff) {
      throw new PhotographError("is a damaged JPEG; copy the file again");
    }
    if (marker === 0xffff) {
      place += 1; // padding
      continue;
    }
    const kind = marker & 0xff;
    // The frame headers, SOF0 … SOF15, are these without DHT, JPG and DAC.
    if (kind >= 0xc0 && kind <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(kind)) {
      [height, width] = [view.getUint16(place + 5), view.getUint16(place + 7)];
    }
    if (kind === 0xda) {
      break; // the picture itself begins
    }
    place += 2 + view.getUint16(place + 2);
  }
  // A browser shows gray where a cut-off JPEG ends; that gray would be explained as if it had been photographed.
  for (let at = view.byteLength - 2; at > place; at--) {
    if (view.getUint16(at) === 0xffd9) {
      return { kind: "JPEG", width, height, scans: countScans(view, place) };
    }
  }
  throw new PhotographError("is a JPEG that has been cut off; copy the file again");
}

/**
 * How many times the pixels are gone through, up to the end of the first picture. The time of each scan is that of the
 * whole picture, whatever little it holds.
 * @param {DataView} view
 * @param {number} place of the first scan's marker
 */
function countScans(view, place) {
  let scans = 0;
  while (place < view.byteLength - 1) {
    const marker = view.getUint16(place) - 0xff00;
    if (marker === 0xd9) {
      break; // the end of the picture
    }
    if (marker <= 0 || marker === 0xff || (marker >= 0xd0 && marker <= 0xd7)) {
      place += 1; // coded pixels, padding, and restarts among them
      continue;
    }
    scans += marker === 0xda ? 1 : 0;
    place += 2;
    if (marker !== 0x01 && marker !== 0xd8 && place < view.byteLength - 1) {
      place += Math.max(2, view.getUint16(place));
    }
  }
  return scans;
}
