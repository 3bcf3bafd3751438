// What every script here says, and to whom: one line of JSON for each check, on standard output.

const PATIENCE = 20_000;

/** Runs checks, so many abreast; a check is an async function that throws when it fails. */
export async function run(checks, world, say = console.log, abreast = 1) {
  const left = Object.entries(checks);
  const lane = async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      const [check, prove] = next;
      const began = performance.now();
      let error = null;
      try {
        await within(prove(world), PATIENCE, "the check did not end");
      } catch (caught) {
        error = caught instanceof Error ? `${caught.message}\n${caught.stack}` : String(caught);
      }
      say(JSON.stringify({ check, error, ms: Math.round(performance.now() - began) }));
    }
  };
  await Promise.all(Array.from({ length: abreast }, lane));
}

/** A promise with a limit: what is not there by then is a failure that says what was awaited. */
export async function within(promise, ms, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${typeof what === "function" ? what() : what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

export function equal(found, expected, what = "") {
  const [one, other] = [JSON.stringify(found), JSON.stringify(expected)];
  if (one !== other) throw new Error(`${what}: expected ${other}, got ${one}`);
}

export function holds(condition, what) {
  if (!condition) throw new Error(what);
}

/** The error that this throws; that it throws none is a failure. */
export async function raises(action, what) {
  try {
    await action();
  } catch (error) {
    return error;
  }
  throw new Error(`${what}: nothing was raised`);
}

export async function all(stream) {
  const found = [];
  for await (const item of stream) found.push(item);
  return found;
}
