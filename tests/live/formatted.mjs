// Names the files that Prettier would write otherwise; the exit status is 1 if there is one. With --write it writes them.
import { readFileSync, writeFileSync } from "node:fs";

const vendored = new URL("../browser/_vendor/prettier/", import.meta.url);
const load = async (name) => {
  const module = await import(new URL(name, vendored));
  return module.default ?? module;
};
const prettier = await import(new URL("standalone.mjs", vendored));
const plugins = await Promise.all(["babel.mjs", "estree.mjs", "postcss.mjs"].map(load));
const options = JSON.parse(
  readFileSync(new URL("../../book/live/.prettierrc.json", import.meta.url), "utf8"),
);

const write = process.argv[2] === "--write";
for (const path of process.argv.slice(write ? 3 : 2)) {
  const text = readFileSync(path, "utf8");
  const formatted = await prettier.format(text, { ...options, filepath: path, plugins });
  if (formatted === text) continue;
  if (write) writeFileSync(path, formatted);
  else process.exitCode = 1;
  console.log(path);
}
