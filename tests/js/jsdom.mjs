// node jsdom.mjs <url> <bundle folder> <hook> [check...]: the checks of a hook in jsdom.

import { JSDOM } from "jsdom";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { Proxy } from "./world.mjs";

const [url, folder, hook, ...chosen] = process.argv.slice(2);
const dom = new JSDOM("<!doctype html>", { url: "http://localhost/", pretendToBeVisual: true });
globalThis.window = dom.window;
for (const name of ["document", "sessionStorage", "localStorage", "WebSocket"]) {
  globalThis[name] = dom.window[name];
}
const bundle = hook === "newest" ? "newest.js" : "hooks.js";
await import(pathToFileURL(path.join(folder, bundle)));
const proxy = await Proxy.before(url);
const names = chosen.length ? chosen : null;
const world = { url, proxyUrl: proxy.url, cut: () => proxy.cut() };
await globalThis.hooks(hook, names, world, console.log, names ? 1 : 4);
proxy.close();
process.exit(0);
