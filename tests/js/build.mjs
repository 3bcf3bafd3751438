// node build.mjs <folder>: the bundles that pages load.

import { build } from "esbuild";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));

// The newer hook pins a client of its own; in the second bundle it has the one of package.json.
const newest = {
  name: "newest client",
  setup(build) {
    build.onResolve({ filter: /^@langchain\/langgraph-sdk/ }, ({ path, kind, pluginData }) =>
      pluginData === newest
        ? undefined
        : build.resolve(path, { resolveDir: here, kind, pluginData: newest }),
    );
  },
};

for (const [name, plugins] of Object.entries({ hooks: [], newest: [newest] })) {
  await build({
    entryPoints: { [name]: `${here}hooks.jsx` },
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"production"' },
    plugins,
    outdir: process.argv[2],
    logLevel: "warning",
  });
}
