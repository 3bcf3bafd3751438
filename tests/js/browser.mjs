// node browser.mjs <url> <bundle folder> <hook> [check...]: the checks of a hook in a real browser,
// on a page of another origin than the server's.

import { chromium } from "playwright-core";
import fs from "node:fs/promises";
import http from "node:http";
import path from "node:path";
import { Proxy } from "./world.mjs";

const [url, folder, hook, ...chosen] = process.argv.slice(2);
const bundle = await fs.readFile(path.join(folder, "hooks.js"));
const pages = http.createServer((request, response) => {
  const script = request.url === "/hooks.js";
  response.setHeader("content-type", script ? "text/javascript" : "text/html");
  response.end(
    script ? bundle : '<!doctype html><meta charset="utf-8"><script type="module" src="/hooks.js"></script>',
  );
});
await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: process.getuid() === 0 ? ["--no-sandbox"] : [],
});
const page = await browser.newPage();
const proxy = await Proxy.before(url);
await page.exposeFunction("say", (line) => console.log(line));
await page.exposeFunction("cut", () => proxy.cut());
page.on("pageerror", (error) => console.log(JSON.stringify({ check: "page", error: error.stack })));

const visit = async () => {
  await page.goto(`http://127.0.0.1:${pages.address().port}/`);
  await page.waitForFunction(() => globalThis.hooks);
};
await visit();
const names = chosen.length ? chosen : await page.evaluate((hook) => names(hook), hook);
for (const name of names) {
  // What follows a reload is a page of its own.
  if (name === "reload while running") await visit();
  await page.evaluate(
    ([hook, name, world]) => hooks(hook, [name], { ...world, cut: globalThis.cut }, globalThis.say),
    [hook, name, { url, proxyUrl: proxy.url }],
  );
}
await browser.close();
proxy.close();
process.exit(0);
