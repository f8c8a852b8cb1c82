// Calls functions of the live page's modules for the tests: a list of [module, function, arguments] comes in as JSON, the
// list of results goes out. {"f32": [...]} stands for a Float32Array, {"bytes": [...]} for bytes.
import { readFileSync } from "node:fs";

const folder = new URL("../../book/live/", import.meta.url);
const revive = (_, value) =>
  value?.f32 ? Float32Array.from(value.f32) : value?.bytes ? Uint8Array.from(value.bytes) : value;
const flatten = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);

const results = [];
for (const [module, name, values] of JSON.parse(readFileSync(0, "utf8"), revive)) {
  const from = module.startsWith("./") ? new URL(module, import.meta.url) : new URL(module, folder);
  try {
    results.push({ value: await (await import(from))[name](...values) });
  } catch (error) {
    results.push({ error: `${error.constructor.name}: ${error.message}` });
  }
}
process.stdout.write(JSON.stringify(results, flatten));
