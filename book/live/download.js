/**
 * The large files: fetched with progress, checked, unpacked, and kept for the next visit.
 *
 * Most hosts do not compress what they serve, so the files are stored as gzip and unpacked here. A host that does
 * unpack them on the way is noticed by the missing gzip signature.
 */

/** @typedef {import("./settings.js").Asset} Asset */

const CACHE = "perturb-tutorial-live";

/** Why a download failed; the message is for the reader. */
export class DownloadError extends Error {}

/**
 * @param {Asset} asset
 * @param {URL} base the folder of the assets
 * @param {(bytes: number) => void} progress called with the bytes of this asset that are here
 * @returns {Promise<Uint8Array>} its unpacked bytes
 */
export async function fetchAsset(asset, base, progress) {
  const url = new URL(asset.file, base);
  url.searchParams.set("v", asset.sha256.slice(0, 12)); // another version is another address
  const cache = await openCache();
  const stored = await cache?.match(url);
  if (stored) {
    const bytes = new Uint8Array(await stored.arrayBuffer());
    if (await isWhole(bytes, asset)) {
      progress(asset.bytes);
      return bytes;
    }
    await cache?.delete(url);
  }
  const bytes = await unpack(await download(url, asset, progress));
  if (!(await isWhole(bytes, asset))) {
    throw new DownloadError(
      `The download of ${asset.file} came incomplete or changed. Press the button to try again.`,
    );
  }
  progress(asset.bytes);
  await forgetOthers(cache, url);
  // A full disk or a private window: the next visit downloads again.
  await cache?.put(url, new Response(bytes.slice())).catch(() => {});
  return bytes;
}

/** @returns {Promise<Cache | null>} null where a page may not store anything */
async function openCache() {
  try {
    return await caches.open(CACHE);
  } catch {
    return null;
  }
}

/**
 * Older versions of the same file are of no use any more.
 * @param {Cache | null} cache
 * @param {URL} url
 */
async function forgetOthers(cache, url) {
  for (const request of (await cache?.keys()) ?? []) {
    const kept = new URL(request.url);
    if (kept.pathname === url.pathname && kept.search !== url.search) {
      await cache?.delete(request);
    }
  }
}

/**
 * @param {URL} url
 * @param {Asset} asset
 * @param {(bytes: number) => void} progress
 */
async function download(url, asset, progress) {
  const megabytes = (/** @type {number} */ bytes) => (bytes / 1e6).toFixed(1);
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const parts = [];
  let count = 0;
  try {
    const response = await fetch(url);
    if (!response.ok || response.body === null) {
      throw new DownloadError(`The site has no ${asset.file} (status ${response.status}). Reload the page.`);
    }
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        break;
      }
      parts.push(value);
      count += value.length;
      progress(Math.min(count, asset.bytes));
    }
  } catch (error) {
    if (error instanceof DownloadError) {
      throw error;
    }
    throw new DownloadError(
      `The download was cut off at ${megabytes(count)} of ${megabytes(asset.bytes)} MB. ` +
        "Check the connection and press the button to try again.",
    );
  }
  return new Blob(parts);
}

/** @param {Blob} blob */
async function unpack(blob) {
  const start = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  if (start[0] !== 0x1f || start[1] !== 0x8b) {
    return new Uint8Array(await blob.arrayBuffer());
  }
  try {
    const stream = blob.stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    return new Uint8Array(); // cut off: its check says so
  }
}

/** @param {Uint8Array<ArrayBuffer>} bytes @param {Asset} asset */
async function isWhole(bytes, asset) {
  if (bytes.length !== asset.unpacked) {
    return false;
  }
  if (!globalThis.crypto?.subtle) {
    return true; // plain http: browsers compute hashes on secure pages only
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") === asset.sha256;
}
