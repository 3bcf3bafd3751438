// Everything that runs on a page, in one bundle: `hooks(hook, names, world, say)`
// runs the checks of one, all of them unless some are named.

import { run } from "./checks.mjs";
import { legacy } from "./legacy.jsx";
import { v2 } from "./v2.jsx";

// `newest` is the newer hook on the newest client: it brings an older one of its own.
const HOOKS = { legacy, v2, newest: v2 };

// What comes before a reload is a check of its own where a page can be loaded again.
const BEFORE = ": before";

globalThis.names = (hook) => Object.keys(HOOKS[hook]);
globalThis.hooks = (hook, names, world, say, abreast) => {
  const checks = HOOKS[hook];
  const proved = (name) => async (world) => {
    const before = checks[name + BEFORE];
    if (before && !names) await before(world);
    await checks[name](world);
  };
  const chosen = names ?? Object.keys(checks).filter((name) => !name.endsWith(BEFORE));
  const wanted = Object.fromEntries(chosen.map((name) => [name, proved(name)]));
  return run(wanted, world, say, abreast);
};
