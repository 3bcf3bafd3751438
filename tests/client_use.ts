// What a program does with docs/client.ts: type-checked with it, and run under node by
// tests/test_typescript.py. It ends by printing "done", or fails.

import { deepEqual, equal } from "node:assert/strict";

import { Clew, type Part, Problem, type Session } from "./client.js";

const [, , url = "", key = "", proxy = ""] = process.argv;
const clew = new Clew({ url, apiKey: key });

async function all(parts: AsyncGenerator<Part, void>, most = 1000): Promise<Part[]> {
  const found: Part[] = [];
  for await (const part of parts) {
    found.push(part);
    if (found.length === most) break;
  }
  return found;
}

const session: Session = await clew.sessions.create({
  assistant_id: "echo",
  title: "会议",
  metadata: { 文: "字" },
});
const id = session.thread_id;

const parts = await all(clew.sessions.send(id, { content: "你好", stream_mode: ["values"] }));
equal(parts[0]?.event, "metadata");
equal(parts.at(-1)?.event, "end");
const state = await clew.sessions.ask(id, { content: "again" });
equal((state.messages as { content: string }[]).length, 4);

const page = await clew.sessions.list({ metadata: { 文: "字" }, limit: 1, total: true });
deepEqual([page.sessions.map((one) => one.thread_id), page.total], [[id], 1]);

const { checkpoints } = await clew.checkpoints.list(id, { limit: 100 });
const first = checkpoints.find((one) => one.step === 1)?.checkpoint_id ?? "";
const moved = await clew.sessions.restore(id, { checkpoint_id: first });
deepEqual([moved.checkpoint_id, moved.message_count], [first, 2]);
equal((await clew.sessions.undo(id)).message_count, 4);

const forked = await clew.sessions.fork(id, { checkpoint_id: first, title: "另一条路" });
deepEqual([forked.parent_thread_id, forked.title, forked.message_count], [id, "另一条路", 2]);

await clew.checkpoints.save(id, { label: "v1/好", data: { n: 1 } });
deepEqual((await clew.checkpoints.labelled(id, "v1/好")).data, { n: 1 });
await clew.checkpoints.unlabel(id, "v1/好");

const file = await new Response(await clew.sessions.export(id)).blob();
const made = await clew.sessions.import(file, { reason: "back" });
deepEqual([made.message_count, made.parent_thread_id], [4, null]);

const stale = { headers: { "if-match": '"1"' } };
const refused = await clew.sessions.patch(id, { title: "late" }, stale).catch((e: unknown) => e);
equal(refused instanceof Problem && refused.code, "stale");

// @ts-expect-error no fork has a field of this name, and the compiler knows.
void (() => clew.sessions.fork(id, { checkpoint: first }));

// Through a proxy that cuts the first two connections of a stream, and one of the feed.
const cut = new Clew({ url: proxy, apiKey: key });
const whole = await all(clew.sessions.send(forked.thread_id, { content: "one" }));
const resumed = await all(cut.sessions.send(forked.thread_id, { content: "one" }));
deepEqual(resumed.map((part) => part.event), whole.map((part) => part.event));
equal(new Set(resumed.map((part) => part.id)).size, resumed.length);

await clew.sessions.archive(made.thread_id);
const start = { headers: { "last-event-id": "0-0" } };
const feed: Part[] = [];
for await (const part of cut.sessions.events({ thread_id: made.thread_id }, start)) {
  feed.push(part);
  if (part.event === "session.archived") break;
}
equal(feed[0]?.event, "session.created");
equal(new Set(feed.map((part) => part.id)).size, feed.length);

console.log("done");
