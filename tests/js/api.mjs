// What a check asks of the server beside the hook under test.

let made = 0;

/** A name that no other check uses. */
export const fresh = (name) => `${name}-${Date.now().toString(36)}-${made++}`;

export async function ask(url, method, path, body) {
  const reply = await fetch(url + path, {
    method,
    headers: { "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const said = await reply.text();
  if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${said}`);
  return said && JSON.parse(said);
}

/** Let the replies go on that wait for this gate. */
export const release = (url, gate) =>
  ask(url, "POST", "/runs/wait", { assistant_id: "release", input: { gate } });

/** Every run of the thread, oldest first. */
export const runs = async (url, threadId) =>
  (await ask(url, "GET", `/threads/${threadId}/runs`)).reverse();

export const thread = (url, threadId) => ask(url, "GET", `/threads/${threadId}`);

/** Keep of the session what the policy `keep_runs` keeps, as a user does over the API. */
export async function prune(url, threadId) {
  await ask(url, "PUT", `/sessions/${threadId}/retention`, { policy: "keep_runs" });
  const gone = await ask(url, "POST", `/sessions/${threadId}/prune`, {});
  if (!gone.checkpoints) throw new Error(`nothing was pruned: ${JSON.stringify(gone)}`);
  return gone;
}

/** How a run ended, once it has. */
export async function status(url, threadId, runId) {
  await ask(url, "GET", `/threads/${threadId}/runs/${runId}/join`);
  return (await ask(url, "GET", `/threads/${threadId}/runs/${runId}`)).status;
}
