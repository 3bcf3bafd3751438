// node client.mjs <url>: every method of the official client, under plain Node. A method of its
// prototypes that no check is named for is a failed check.

import { Client } from "@langchain/langgraph-sdk";
import { fresh, release, status } from "./api.mjs";
import { JSDOM } from "jsdom";
import { all, equal, holds, raises, run } from "./checks.mjs";
import { Proxy } from "./world.mjs";

const url = process.argv[2];
const client = new Client({ apiUrl: url });
const human = (content) => ({ messages: [{ type: "human", content }] });
const text = (message) =>
  typeof message.content === "string"
    ? message.content
    : message.content.map((block) => block.text).join("");

async function talk(...said) {
  const { thread_id: threadId } = await client.threads.create({ graphId: "chat" });
  for (const one of said) await client.runs.wait(threadId, "chat", { input: human(one) });
  return threadId;
}

/** A run that is in the middle of its reply, and the gate that it waits at. */
async function waiting(threadId, options = {}) {
  const gate = fresh("client");
  const created = client.runs.create(threadId, "chat", { input: human(`wait ${gate}`), ...options });
  return { run: await created, gate };
}

const replies = (values) => values.messages.map((one) => text(one).replace(/^#\d+/, "#"));

const assistants = {
  async get() {
    const [{ assistant_id: id }] = await client.assistants.search({ graphId: "chat" });
    const found = await client.assistants.get(id);
    equal([found.graph_id, found.version], ["chat", 1]);
    const error = await raises(() => client.assistants.get(crypto.randomUUID()), "unknown");
    equal(error.status, 404);
  },
  async getGraph() {
    const { nodes, edges } = await client.assistants.getGraph("chat");
    equal(nodes.map((node) => node.id).sort(), ["__end__", "__start__", "model", "tools"]);
    holds(edges.some((edge) => edge.conditional), "conditional edges");
    const seen = await client.assistants.getGraph("team", { xray: true });
    holds(seen.nodes.some((node) => node.id === "member:model"), "the inner nodes");
  },
  async getSchemas() {
    const id = (await client.assistants.search({ graphId: "chat" }))[0].assistant_id;
    const schemas = await client.assistants.getSchemas(id);
    holds(schemas.input_schema.properties.messages, "the input schema");
  },
  async getSubgraphs() {
    const id = (await client.assistants.search({ graphId: "team" }))[0].assistant_id;
    equal(Object.keys(await client.assistants.getSubgraphs(id)), ["member"]);
    const one = await client.assistants.getSubgraphs(id, { namespace: "member", recurse: true });
    equal(Object.keys(one), ["member"]);
  },
  async create() {
    const made = await client.assistants.create({
      graphId: "chat", name: "mine", metadata: { a: 1 }, description: "d",
    });
    equal([made.name, made.metadata.a, made.version, made.description], ["mine", 1, 1, "d"]);
    const { assistant_id: assistantId } = made;
    const again = () => client.assistants.create({ graphId: "chat", assistantId });
    equal((await raises(again, "a second")).status, 409);
    const kept = await client.assistants.create({
      graphId: "chat", assistantId, ifExists: "do_nothing",
    });
    equal(kept.name, "mine");
  },
  async update() {
    const made = await client.assistants.create({ graphId: "chat", metadata: { a: 1 } });
    const now = await client.assistants.update(made.assistant_id, {
      name: "new", metadata: { b: 2 },
    });
    equal([now.name, now.version, now.metadata.a, now.metadata.b], ["new", 2, 1, 2]);
  },
  async delete() {
    const made = await client.assistants.create({ graphId: "chat" });
    await client.assistants.delete(made.assistant_id);
    equal((await raises(() => client.assistants.get(made.assistant_id), "gone")).status, 404);
  },
  async search() {
    const mark = fresh("search");
    for (const name of ["a", "b", "c"]) {
      await client.assistants.create({ graphId: "chat", name, metadata: { mark } });
    }
    const sorted = { metadata: { mark }, sortBy: "name", sortOrder: "asc" };
    const page = await client.assistants.search({ ...sorted, limit: 2, includePagination: true });
    equal([page.assistants.map((one) => one.name), page.next], [["a", "b"], "2"]);
    const last = await client.assistants.search({ ...sorted, offset: 2, includePagination: true });
    equal([last.assistants.map((one) => one.name), last.next], [["c"], null]);
    const some = await client.assistants.search({ ...sorted, select: ["name"] });
    equal(some, [{ name: "a" }, { name: "b" }, { name: "c" }]);
  },
  async count() {
    const mark = fresh("count");
    await client.assistants.create({ graphId: "chat", metadata: { mark } });
    equal(await client.assistants.count({ metadata: { mark } }), 1);
  },
  async getVersions() {
    const made = await client.assistants.create({ graphId: "chat" });
    await client.assistants.update(made.assistant_id, { name: "two" });
    const found = await client.assistants.getVersions(made.assistant_id);
    equal(found.map((one) => one.version), [2, 1]);
  },
  async setLatest() {
    const made = await client.assistants.create({ graphId: "chat", name: "one" });
    await client.assistants.update(made.assistant_id, { name: "two" });
    equal((await client.assistants.setLatest(made.assistant_id, 1)).name, "one");
    equal((await client.assistants.get(made.assistant_id)).name, "one");
  },
};

const threads = {
  async get() {
    const threadId = await talk("one");
    const found = await client.threads.get(threadId, { include: ["ttl"] });
    equal([found.status, replies(found.values)], ["idle", ["one", "# you said one"]]);
    equal((await raises(() => client.threads.get(crypto.randomUUID()), "unknown")).status, 404);
  },
  async create() {
    const threadId = crypto.randomUUID();
    const made = await client.threads.create({ threadId, metadata: { a: 1 }, ttl: 60 });
    equal([made.thread_id, made.metadata.a, made.status], [threadId, 1, "idle"]);
    equal((await raises(() => client.threads.create({ threadId }), "a second")).status, 409);
    const kept = await client.threads.create({ threadId, ifExists: "do_nothing" });
    equal(kept.metadata.a, 1);
    const { thread_id: filled } = await client.threads.create({
      graphId: "chat",
      supersteps: [
        { updates: [{ values: human("one"), asNode: "__start__" }] },
        { updates: [{ values: { messages: [{ type: "ai", content: "1" }] }, asNode: "model" }] },
      ],
    });
    equal(replies((await client.threads.getState(filled)).values), ["one", "1"], "supersteps");
  },
  async copy() {
    const threadId = await talk("one");
    const copy = await client.threads.copy(threadId);
    holds(copy.thread_id !== threadId, "it is another");
    equal(
      (await client.threads.getState(copy.thread_id)).values,
      (await client.threads.getState(threadId)).values,
    );
  },
  async update() {
    const threadId = await talk();
    const now = await client.threads.update(threadId, { metadata: { b: 2 } });
    equal(now.metadata.b, 2);
    const nothing = await client.threads.update(threadId, {
      metadata: { c: 3 }, ttl: 5, returnMinimal: true,
    });
    equal(nothing, undefined);
    equal((await client.threads.get(threadId)).metadata.c, 3);
  },
  async delete() {
    const threadId = await talk("one");
    await client.threads.delete(threadId);
    equal((await raises(() => client.threads.get(threadId), "gone")).status, 404);
  },
  async prune() {
    const [one, two] = [await talk("one"), await talk("two")];
    equal(await client.threads.prune([one], { strategy: "keep_latest" }), { pruned_count: 1 });
    equal((await client.threads.getHistory(one)).length, 1);
    equal(await client.threads.prune([two]), { pruned_count: 1 });
    equal((await raises(() => client.threads.get(two), "gone")).status, 404);
  },
  async search() {
    const mark = fresh("threads");
    const made = [];
    for (const n of [1, 2, 3]) {
      made.push((await client.threads.create({ metadata: { mark, n } })).thread_id);
    }
    const found = await client.threads.search({
      metadata: { mark }, sortBy: "created_at", sortOrder: "asc", limit: 2, select: ["thread_id"],
    });
    equal(found, made.slice(0, 2).map((thread_id) => ({ thread_id })));
    equal((await client.threads.search({ ids: [made[2]] })).length, 1);
    const threadId = await talk("find me");
    const [said] = await client.threads.search({
      ids: [threadId], status: "idle", extract: { first: "values.messages[0].content" },
    });
    equal(said.extracted, { first: "find me" });
  },
  async count() {
    const mark = fresh("count");
    await client.threads.create({ metadata: { mark } });
    equal(await client.threads.count({ metadata: { mark } }), 1);
  },
  async getState() {
    const threadId = await talk("one", "two");
    const now = await client.threads.getState(threadId);
    equal(replies(now.values).length, 4);
    const [, before] = await client.threads.getHistory(threadId);
    const { checkpoint } = before;
    const by = [checkpoint.checkpoint_id, checkpoint, { thread_id: threadId, checkpoint_ns: "" }];
    const found = await Promise.all(by.map((place) => client.threads.getState(threadId, place)));
    equal(found.map((state) => state.values.messages.length), [3, 3, 4]);
    const some = await client.threads.getState(threadId, undefined, { select: ["next"] });
    equal(some, { next: [] });
    const asked = await talk();
    await client.runs.wait(asked, "team", { input: human("book Oslo") });
    const whole = await client.threads.getState(asked, null, { subgraphs: true });
    equal(whole.tasks[0].state.next, ["tools"], "the state of the subgraph");
    equal(whole.tasks[0].interrupts[0].value, { question: "book Oslo?" });
  },
  async updateState() {
    const threadId = await talk("one");
    const values = { messages: [{ type: "ai", content: "more" }] };
    const made = await client.threads.updateState(threadId, { values, asNode: "model" });
    const now = await client.threads.getState(threadId);
    equal(now.checkpoint.checkpoint_id, made.checkpoint.checkpoint_id);
    equal(replies(now.values), ["one", "# you said one", "more"]);
    const first = (await client.threads.getHistory(threadId)).at(-2);
    const { checkpoint } = first;
    await client.threads.updateState(threadId, { values, asNode: "model", checkpoint });
    equal(replies((await client.threads.getState(threadId)).values), ["one", "more"], "a fork");
  },
  async patchState() {
    // The official server has no such route; neither have we.
    const threadId = await talk("one");
    equal((await raises(() => client.threads.patchState(threadId, { a: 1 }), "405")).status, 405);
  },
  async getHistory() {
    const threadId = await talk("one", "two");
    const states = await client.threads.getHistory(threadId, { limit: 100 });
    equal(states.map((state) => state.metadata.step), [4, 3, 2, 1, 0, -1]);
    for (const [at, state] of states.slice(0, -1).entries()) {
      equal(state.parent_checkpoint.checkpoint_id, states[at + 1].checkpoint.checkpoint_id);
    }
    equal(states.at(-1).parent_checkpoint, null);
    const { checkpoint } = states[2];
    for (const before of [{ configurable: checkpoint }, checkpoint]) {
      const older = await client.threads.getHistory(threadId, { before, limit: 2 });
      equal(older.map((state) => state.metadata.step), [1, 0]);
    }
    const [first] = await client.threads.getHistory(threadId, { metadata: { step: 0 } });
    equal(replies(first.values), ["one"]);
  },
  async joinStream() {
    const threadId = await talk("one");
    const leaving = new AbortController();
    const events = [];
    const reading = (async () => {
      const options = { signal: leaving.signal, lastEventId: "-" };
      for await (const event of client.threads.joinStream(threadId, options)) {
        events.push(event);
        if (event.event === "metadata" && event.data.status === "run_done") {
          const done = events.filter((one) => one.data?.status === "run_done").length;
          if (done === 2) leaving.abort();
        }
      }
    })();
    await client.runs.wait(threadId, "chat", { input: human("two") });
    await reading.catch((error) => holds(error.name === "AbortError", error.message));
    const names = new Set(events.map((event) => event.event));
    holds(names.has("values"), [...names].join());
  },
  async stream() {
    for (const transport of ["sse", "websocket"]) {
      if (transport === "websocket") globalThis.WebSocket ??= new JSDOM("").window.WebSocket;
      const thread = client.threads.stream({ assistantId: "chat", transport });
      const messages = thread.messages;
      const { run_id: runId } = await thread.run.start({ input: human("weather Rome") });
      const said = [];
      for await (const message of messages) {
        said.push(await message.text);
        if (said.length === 3) break;
      }
      // A tool's result is a message too, in the namespace of its call.
      equal(said, ["", "sunny in Rome", "the tool said sunny in Rome"], transport);
      const output = await thread.output;
      equal(output.messages.length, 4, `output over ${transport}`);
      equal(await status(url, thread.threadId, runId), "success");
      await thread.close();
    }
  },
};

const runs = {
  async stream() {
    const threadId = await talk();
    let created;
    const events = await all(
      client.runs.stream(threadId, "chat", {
        input: human("weather 北京"),
        streamMode: ["values", "messages-tuple", "updates", "custom", "tasks", "checkpoints"],
        onRunCreated: (run) => (created = run),
      }),
    );
    equal(created.thread_id, threadId);
    equal([events[0].event, events.at(-1).event], ["metadata", "end"]);
    equal(events[0].data.run_id, created.run_id);
    const names = new Set(events.map((event) => event.event));
    const wanted = ["values", "messages", "updates", "custom", "tasks", "checkpoints"];
    for (const name of wanted) holds(names.has(name), `no ${name}`);
    const last = events.findLast((event) => event.event === "values");
    equal(replies(last.data).slice(2), ["sunny in 北京", "the tool said sunny in 北京"]);
    const stateless = await all(client.runs.stream(null, "chat", { input: human("one") }));
    equal(replies(stateless.at(-2).data), ["one", "# you said one"], "without a thread");
    const failed = await all(client.runs.stream(threadId, "chat", { input: human("fail") }));
    const error = failed.find((event) => event.event === "error");
    equal(error.data, { error: "ValueError", message: "boom" });
  },
  async "stream, cut"() {
    const threadId = await talk();
    const proxy = await Proxy.before(url);
    const gate = fresh("cut");
    const through = new Client({ apiUrl: proxy.url });
    const said = [];
    const stream = through.runs.stream(threadId, "chat", {
      input: human(`wait ${gate}`), streamMode: "messages-tuple", streamResumable: true,
    });
    for await (const { event, data } of stream) {
      if (event !== "messages") continue;
      said.push(text(data[0]));
      if (said.length === 2) {
        proxy.cut();
        await release(url, gate);
      }
    }
    proxy.close();
    equal(said.join("").replace(/^#\d+/, "#"), `# you said wait ${gate}`);
  },
  async create() {
    const threadId = await talk();
    let created;
    const run = await client.runs.create(threadId, "chat", {
      input: human("one"), metadata: { a: 1 }, onRunCreated: (made) => (created = made),
    });
    equal([created.run_id, created.thread_id], [run.run_id, threadId]);
    equal([run.metadata.a, run.multitask_strategy], [1, "enqueue"]);
    const values = await client.runs.join(threadId, run.run_id);
    equal(replies(values), ["one", "# you said one"]);
    const alone = await client.runs.create(null, "chat", { input: human("one") });
    holds(alone.run_id, "without a thread");
  },
  async createBatch() {
    const made = await client.runs.createBatch([
      { assistantId: "chat", input: human("one") },
      { assistantId: "chat", input: human("two") },
    ]);
    equal(made.length, 2);
    equal(new Set(made.map((run) => run.thread_id)).size, 2);
  },
  async wait() {
    const threadId = await talk();
    const values = await client.runs.wait(threadId, "chat", { input: human("one") });
    equal(replies(values), ["one", "# you said one"]);
    const asked = await client.runs.wait(threadId, "chat", { input: human("book Oslo") });
    equal(asked.__interrupt__[0].value, { question: "book Oslo?" });
    const done = await client.runs.wait(threadId, "chat", { command: { resume: "yes" } });
    equal(replies(done).at(-1), "the tool said booked Oslo: yes");
    const failing = () => client.runs.wait(null, "chat", { input: human("fail") });
    equal((await raises(failing, "an error")).message, "ValueError: boom");
    const told = await client.runs.wait(null, "chat", { input: human("fail"), raiseError: false });
    equal(told.__error__, { error: "ValueError", message: "boom" });
    const unknown = () => client.runs.wait(null, "nobody", { input: human("one") });
    equal((await raises(unknown, "unknown")).status, 422);
  },
  async list() {
    const threadId = await talk("one", "two");
    const [newest, oldest] = await client.runs.list(threadId);
    holds(newest.created_at > oldest.created_at, "newest first");
    equal((await client.runs.list(threadId, { status: "pending" })).length, 0);
    const [some] = await client.runs.list(threadId, { limit: 1, select: ["run_id"] });
    equal(some, { run_id: newest.run_id });
  },
  async get() {
    const threadId = await talk("one");
    const [run] = await client.runs.list(threadId);
    equal((await client.runs.get(threadId, run.run_id)).status, "success");
    const unknown = () => client.runs.get(threadId, crypto.randomUUID());
    equal((await raises(unknown, "unknown")).status, 404);
  },
  async cancel() {
    const threadId = await talk();
    const { run: one } = await waiting(threadId);
    equal(await client.runs.cancel(threadId, one.run_id), undefined);
    equal(await status(url, threadId, one.run_id), "interrupted");
    const { run: two } = await waiting(threadId);
    await client.runs.cancel(threadId, two.run_id, true, "rollback");
    equal((await raises(() => client.runs.get(threadId, two.run_id), "gone")).status, 404);
    const again = () => client.runs.cancel(threadId, one.run_id);
    equal((await raises(again, "it is over")).status, 404);
  },
  async cancelMany() {
    const threadId = await talk();
    const { run } = await waiting(threadId);
    await client.runs.cancelMany({ threadId, runIds: [run.run_id], action: "interrupt" });
    equal(await status(url, threadId, run.run_id), "interrupted");
  },
  async join() {
    const threadId = await talk();
    const { run, gate } = await waiting(threadId);
    const joined = client.runs.join(threadId, run.run_id);
    await release(url, gate);
    equal(replies(await joined), [`wait ${gate}`, `# you said wait ${gate}`]);
    equal(replies(await client.runs.join(threadId, run.run_id)).length, 2, "after the end");
  },
  async joinStream() {
    const threadId = await talk();
    const { run, gate } = await waiting(threadId, {
      streamResumable: true, streamMode: ["values", "messages-tuple"],
    });
    const stream = client.runs.joinStream(threadId, run.run_id, { lastEventId: "-1" });
    const events = [];
    for await (const event of stream) {
      events.push(event);
      if (events.filter((one) => one.event === "messages").length === 2) await release(url, gate);
    }
    equal(events.at(-1).event, "end");
    holds(events.slice(0, -1).every((event) => event.id), "events have ids");
    const half = events[3];
    const rest = await all(
      client.runs.joinStream(threadId, run.run_id, { lastEventId: half.id }),
    );
    equal(rest, events.slice(4), "the rest");
    const some = await all(
      client.runs.joinStream(threadId, run.run_id, {
        lastEventId: "-1", streamMode: ["values"],
      }),
    );
    equal([...new Set(some.map((event) => event.event))].sort(), ["end", "values"]);
  },
  async delete() {
    const threadId = await talk("one");
    const [run] = await client.runs.list(threadId);
    await client.runs.delete(threadId, run.run_id);
    equal((await raises(() => client.runs.get(threadId, run.run_id), "gone")).status, 404);
  },
};

const daily = { schedule: "0 4 * * *", input: human("one"), timezone: "Europe/Berlin" };
const crons = {
  async create() {
    const made = await client.crons.create("chat", { ...daily, metadata: { a: 1 } });
    equal([made.schedule, made.timezone, made.enabled], ["0 4 * * *", "Europe/Berlin", true]);
    const bad = () => client.crons.create("chat", { schedule: "bad" });
    equal((await raises(bad, "a bad schedule")).status, 422);
    await client.crons.delete(made.cron_id);
  },
  async createForThread() {
    const threadId = await talk("one");
    const made = await client.crons.createForThread(threadId, "chat", daily);
    equal(made.thread_id, threadId);
    await client.crons.delete(made.cron_id);
  },
  async update() {
    const made = await client.crons.create("chat", daily);
    const now = await client.crons.update(made.cron_id, { enabled: false, schedule: "0 5 * * *" });
    equal([now.enabled, now.schedule], [false, "0 5 * * *"]);
    await client.crons.delete(made.cron_id);
  },
  async delete() {
    const made = await client.crons.create("chat", daily);
    await client.crons.delete(made.cron_id);
    equal((await raises(() => client.crons.delete(made.cron_id), "gone")).status, 404);
  },
  async search() {
    const mark = fresh("cron");
    const made = await client.crons.create("chat", { ...daily, metadata: { mark } });
    const found = await client.crons.search({ metadata: { mark }, limit: 5 });
    equal(found.map((cron) => cron.cron_id), [made.cron_id]);
    await client.crons.delete(made.cron_id);
  },
  async count() {
    const mark = fresh("cron");
    const made = await client.crons.create("chat", { ...daily, metadata: { mark } });
    equal(await client.crons.count({ metadata: { mark } }), 1);
    await client.crons.delete(made.cron_id);
  },
};

const store = {
  async putItem() {
    const space = [fresh("js"), "用户"];
    await client.store.putItem(space, "k", { a: 1 }, { index: false, ttl: 60 });
    equal((await client.store.getItem(space, "k")).value, { a: 1 });
    const bad = () => client.store.putItem(["a.b"], "k", {});
    holds(/periods/.test((await raises(bad, "a period")).message), "periods");
  },
  async getItem() {
    const space = [fresh("js")];
    await client.store.putItem(space, "k", { a: 1 });
    const item = await client.store.getItem(space, "k", { refreshTtl: true });
    equal([item.namespace, item.key], [space, "k"]);
    holds(item.createdAt && item.updatedAt, "times");
    equal(await client.store.getItem(space, "nothing"), null);
  },
  async deleteItem() {
    const space = [fresh("js")];
    await client.store.putItem(space, "k", { a: 1 });
    await client.store.deleteItem(space, "k");
    equal(await client.store.getItem(space, "k"), null);
  },
  async searchItems() {
    const space = [fresh("js")];
    for (const n of [1, 2, 3]) await client.store.putItem([...space, "x"], `k${n}`, { n });
    const { items } = await client.store.searchItems(space, { filter: { n: { $gt: 1 } } });
    equal(items.map((item) => item.value.n).sort(), [2, 3]);
    equal((await client.store.searchItems(space, { limit: 1, offset: 2 })).items.length, 1);
  },
  async listNamespaces() {
    const space = [fresh("js")];
    await client.store.putItem([...space, "a", "b"], "k", {});
    const { namespaces } = await client.store.listNamespaces({ prefix: space, maxDepth: 2 });
    equal(namespaces, [[...space, "a"]]);
  },
};

const CHECKS = { assistants, threads, runs, crons, store };
const checks = {};
for (const [part, own] of Object.entries(CHECKS)) {
  const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(client[part]));
  for (const method of methods.filter((name) => name !== "constructor")) {
    checks[`${part}.${method}`] =
      own[method] ?? (() => Promise.reject(new Error("no check is named for this method")));
  }
  for (const [name, check] of Object.entries(own)) checks[`${part}.${name}`] ??= check;
}
checks["the parts of a client"] = async () => {
  const parts = Object.keys(client).filter((name) => !name.startsWith("~"));
  equal(parts.sort(), Object.keys(CHECKS).sort());
};
const chosen = process.argv.slice(3);
const wanted = Object.entries(checks).filter(([name]) => !chosen.length || chosen.includes(name));
await run(Object.fromEntries(wanted), {}, console.log, 4);
process.exit(0);
