// `useStream` of @langchain/react, which speaks protocol v2: what a user of a chat page does.

import {
  useChannelEffect,
  useMessageMetadata,
  useMessages,
  useStream,
  useSubmissionQueue,
} from "@langchain/react";
import { useEffect } from "react";
import { ask, fresh, prune, release, runs, status } from "./api.mjs";
import { equal, holds } from "./checks.mjs";
import { Stage, text } from "./stage.jsx";

const human = (content) => ({ messages: [{ type: "human", content }] });

function Message({ stream, id, stage }) {
  const about = useMessageMetadata(stream, id);
  stage.about.set(id, about);
  return null;
}

function Subgraph({ stream, graph, stage }) {
  const messages = useMessages(stream, graph);
  stage.inner.set(graph.nodeName ?? graph.namespace.join("|"), messages.map((m) => text(m.content)));
  useEffect(() => stage.look());
  return null;
}

function Queue({ stream, stage }) {
  stage.queue = useSubmissionQueue(stream);
  useEffect(() => stage.look());
  return null;
}

function Ends({ stream, stage }) {
  useChannelEffect(stream, ["lifecycle"], {
    onEvent: ({ event_id, params }) => {
      if (!params.namespace.length && params.data.event !== "running") {
        stage.ended.add(event_id.split(":")[1]);
        stage.look();
      }
    },
  });
  return null;
}

function Page({ stream, stage }) {
  stage.about ??= new Map();
  stage.inner ??= new Map();
  stage.ended ??= new Set();
  return (
    <>
      <Queue stream={stream} stage={stage} />
      <Ends stream={stream} stage={stage} />
      {stream.messages.map(({ id }) => (
        <Message key={id} id={id} stream={stream} stage={stage} />
      ))}
      {stage.options.scoped &&
        [...stream.subgraphs.values()].map((graph) => (
          <Subgraph key={graph.id} graph={graph} stream={stream} stage={stage} />
        ))}
    </>
  );
}

function open(url, options = {}) {
  const stage = new Stage(
    useStream,
    {
      apiUrl: url,
      assistantId: "chat",
      onThreadId: (threadId) => (stage.threadId = threadId),
      onCreated: (run) => {
        stage.created = run.runId;
        stage.look();
      },
      onCompleted: (run) => {
        (stage.completed ??= []).push(run);
        stage.look();
      },
      ...options,
    },
    (stream) => ({
      messages: stream.messages.map((message) => ({
        id: message.id,
        type: message.getType(),
        text: text(message.content),
        name: message.name ?? null,
        calls: (message.tool_calls ?? []).map((call) => [call.name, call.args]),
      })),
      isLoading: stream.isLoading,
      loadingThread: stream.isThreadLoading,
      error: stream.error && String(stream.error.message ?? stream.error),
      interrupts: stream.interrupts.map(({ id, value }) => ({ id, value })),
      toolCalls: stream.toolCalls.map((call) => [call.name, call.args ?? call.input, call.status]),
    }),
    (stream, stage) => <Page stream={stream} stage={stage} />,
  );
  stage.threadId = options.threadId;
  return stage;
}

const shown = (frame) => frame.messages.map((message) => message.text.replace(/^#\d+/, "#"));
const idle = (frame) => !frame.isLoading && !frame.loadingThread;
const has = (count) => (frame) => frame.messages.length === count;
// The hook has two streams of a thread: it may hear of a run's end on one before the other has told
// all of its last message.
const PARTIAL = /^(#\d+ |#\d+ you |#\d+ you said |the |the tool |the tool said |)$/;
const whole = ({ messages: all }) => all.at(-1).calls.length || !PARTIAL.test(all.at(-1).text);
const begun = (frame) => /^#\d+ you $/.test(frame.messages.at(-1)?.text);

/** Both streams have told the end, and the hook has acted on it, which it does a tick later. No user
 * submits again in between, but a script does. */
async function settled(stage) {
  await stage.until(() => stage.ended.has(stage.created), "the end on both streams");
  await new Promise((resolve) => setTimeout(resolve));
}

/** Submit, and wait until what came of it is shown. */
async function say(stage, input, expected, options, { from } = {}) {
  await stage.until(idle, "ready");
  const before = from ?? stage.frames.length;
  await stage.stream.submit(typeof input === "string" ? human(input) : input, options);
  const frame = await stage.until(
    (frame) => idle(frame) && frame.messages.length === expected && whole(frame),
    `${expected} messages`,
  );
  equal(stage.faults({ from: before }), [], "flicker");
  return frame;
}

/** What is shown, less what a run said that then failed or was stopped: no state has it, and the
 * hook leaves it where it is, after everything else, until the page is loaded again. */
const kept = (frame) => shown(frame).filter((said) => said !== "# you ");

/** Submit from a checkpoint, and wait until the branch is shown. */
async function fork(stage, input, forkFrom, so, what) {
  await stage.stream.submit(input, { forkFrom });
  await stage.until((frame) => idle(frame) && so(frame) && whole(frame), what);
}

const about = (stage, place) => stage.about.get(stage.stream.messages[place].id);

/** The checkpoint before a message, as a page reads it that keeps the history itself. */
async function parent(url, threadId, messageId) {
  const states = await ask(url, "POST", `/threads/${threadId}/history`, { limit: 100 });
  const has = (state) => state.values.messages?.some((message) => message.id === messageId);
  return states.findLast(has).parent_checkpoint.checkpoint_id;
}

export const v2 = {
  async "submit twice"({ url }) {
    const stage = open(url);
    await say(stage, "one", 2);
    await settled(stage);
    await say(stage, "two", 4);
    equal(shown(stage.now), ["one", "# you said one", "two", "# you said two"], "messages");
    equal(stage.now.messages.map((message) => message.type), ["human", "ai", "human", "ai"]);
    equal(stage.now.error, undefined, "error");
    equal(stage.now.interrupts, [], "interrupts");
    equal(stage.faults(), [], "flicker over both turns");
    const loading = stage.frames.map((frame) => frame.isLoading);
    const turns = loading.filter((now, at) => now !== loading[at - 1]).length;
    equal(turns, 5, "idle, loading, idle, loading, idle");
    const made = (await runs(url, stage.threadId)).map((run) => run.run_id);
    await stage.until(() => stage.completed?.length === 2, "onCompleted");
    const reasons = made.map((runId) => ({ runId, reason: "success" }));
    equal(stage.completed, reasons, "onCompleted");
    const values = stage.stream.values.messages.map((message) => text(message.content));
    equal(values, stage.now.messages.map((message) => message.text), "values");
    stage.leave();
    const again = open(url, { threadId: stage.threadId });
    await again.until((frame) => idle(frame) && frame.messages.length === 4, "the thread again");
    equal(again.now.messages, stage.now.messages, "after a reload");
    await say(again, "three", 6);
    equal(again.faults({ from: 1 }), [], "flicker after a reload");
    equal(shown(again.now).slice(3), ["# you said two", "three", "# you said three"], "goes on");
    again.leave();
  },

  async "edit and fork"({ url }) {
    const stage = open(url);
    await say(stage, "one", 2);
    await say(stage, "two", 4);
    await say(stage, "three", 6);
    const first = await parent(url, stage.threadId, stage.stream.messages[2].id);
    await fork(stage, human("due"), first, has(4), "the edited branch");
    equal(shown(stage.now), ["one", "# you said one", "due", "# you said due"], "messages");
    await say(stage, "tre", 6);
    equal(shown(stage.now).slice(3), ["# you said due", "tre", "# you said tre"], "goes on");
    stage.leave();
    const again = open(url, { threadId: stage.threadId });
    await again.until((frame) => idle(frame) && frame.messages.length === 6, "the thread again");
    equal(again.now.messages, stage.now.messages, "after a reload");
    const second = await parent(url, stage.threadId, stage.stream.messages[0].id);
    await fork(again, human("uno"), second, has(2), "a branch after it");
    equal(shown(again.now), ["uno", "# you said uno"], "messages");
    again.leave();
  },

  async regenerate({ url }) {
    const stage = open(url);
    await say(stage, "one", 2);
    await say(stage, "two", 4);
    const { parentCheckpointId } = about(stage, 3);
    equal(parentCheckpointId, await parent(url, stage.threadId, stage.now.messages[3].id), "parent");
    const old = stage.now.messages;
    const anew = (frame) => has(4)(frame) && frame.messages[3].id !== old[3].id;
    await fork(stage, null, parentCheckpointId, anew, "the new reply");
    equal(stage.now.messages.slice(0, 3), old.slice(0, 3), "what came before");
    equal(shown(stage.now)[3], "# you said two", "the reply");
    stage.leave();
    const again = open(url, { threadId: stage.threadId });
    await again.until((frame) => idle(frame) && frame.messages.length === 4, "the thread again");
    equal(again.now.messages, stage.now.messages, "after a reload");
    again.leave();
  },

  async tools({ url }) {
    const stage = open(url);
    await say(stage, "weather 北京", 4);
    equal(shown(stage.now), ["weather 北京", "", "sunny in 北京", "the tool said sunny in 北京"]);
    equal(stage.now.messages[1].calls, [["weather", { place: "北京" }]], "the call");
    equal(stage.now.toolCalls, [["weather", { place: "北京" }, "finished"]], "tool calls");
    stage.leave();
    const again = open(url, { threadId: stage.threadId });
    await again.until((frame) => idle(frame) && frame.messages.length === 4, "the thread again");
    equal(again.now.messages, stage.now.messages, "after a reload");
    again.leave();
  },

  async "a subgraph"({ url }) {
    const stage = open(url, { assistantId: "team", scoped: true });
    await say(stage, "one", 2);
    equal(shown(stage.now), ["one", "# you said one"], "messages");
    await stage.stream.submit(human("book Oslo"));
    await stage.until((frame) => idle(frame) && frame.interrupts.length, "the question");
    equal(stage.now.interrupts[0].value, { question: "book Oslo?" }, "the question");
    await stage.stream.respond("yes");
    await stage.until((frame) => idle(frame) && frame.messages.length === 6, "the end");
    equal(shown(stage.now)[4], "booked Oslo: yes", "the answer");
    equal(stage.now.interrupts, [], "nothing is asked any more");
    stage.leave();
  },

  async "interrupt and resume"({ url }) {
    const stage = open(url);
    await say(stage, "book Oslo", 2);
    await stage.until((frame) => frame.interrupts.length, "the question");
    equal(stage.now.interrupts[0].value, { question: "book Oslo?" }, "the question");
    await stage.stream.respond("yes");
    await stage.until((frame) => idle(frame) && frame.messages.length === 4, "the end");
    equal(shown(stage.now).slice(2), ["booked Oslo: yes", "the tool said booked Oslo: yes"]);
    equal(stage.now.interrupts, [], "nothing is asked any more");
    await say(stage, "book Rome", 6);
    await stage.until((frame) => frame.interrupts.length, "another question");
    const asked = stage.now.interrupts;
    stage.leave();
    const again = open(url, { threadId: stage.threadId });
    await again.until((frame) => idle(frame) && frame.interrupts.length, "after a reload");
    equal(again.now.interrupts, asked, "after a reload");
    await again.stream.respond("no", { interruptId: asked[0].id });
    await again.until((frame) => idle(frame) && frame.messages.length === 8, "the end");
    equal(shown(again.now)[6], "booked Rome: no", "the answer");
    equal(again.now.interrupts, [], "nothing is asked any more");
    equal(again.faults(), [], "flicker");
    again.leave();
  },

  async "two questions"({ url }) {
    const stage = open(url, { assistantId: "form" });
    await stage.until(idle, "mounted");
    await stage.stream.submit({ name: "?" });
    await stage.until((frame) => idle(frame) && frame.interrupts.length === 2, "two questions");
    const asked = stage.now.interrupts;
    equal(asked.map((one) => one.value.field).sort(), ["city", "name"], "the questions");
    await stage.stream.respondAll(
      Object.fromEntries(asked.map((one) => [one.id, `my ${one.value.field}`])),
    );
    await stage.until((_, stream) => stream.values.city === "my city", "the answers");
    await stage.until((frame) => idle(frame) && !frame.interrupts.length, "answered");
    const { name, city } = stage.stream.values;
    equal([name, city], ["my name", "my city"], "the answers");
    stage.leave();
  },

  async "two questions, one by one"({ url }) {
    const stage = open(url, { assistantId: "form" });
    await stage.until(idle, "mounted");
    await stage.stream.submit({ name: "?" });
    await stage.until((frame) => idle(frame) && frame.interrupts.length === 2, "two questions");
    const [one, two] = stage.now.interrupts;
    await stage.stream.respond("first", { interruptId: one.id });
    const left = (frame) => frame.interrupts.length === 1 && frame.interrupts[0].id === two.id;
    await stage.until((frame) => idle(frame) && left(frame), "one question");
    // The hook takes an answered question away before its run has ended.
    const answering = (await runs(url, stage.threadId)).at(-1).run_id;
    equal(await status(url, stage.threadId, answering), "success", "the run");
    stage.leave();
    const again = open(url, { assistantId: "form", threadId: stage.threadId });
    await again.until((frame) => idle(frame) && left(frame), "one question after a reload");
    await again.stream.respond("second", { interruptId: two.id });
    const said = ({ values }) => [values[`${one.value.field}`], values[`${two.value.field}`]];
    await again.until((_, stream) => said(stream).join() === "first,second", "the answers");
    await again.until((frame) => idle(frame) && !frame.interrupts.length, "answered");
    again.leave();
  },

  async stop({ url }) {
    const gate = fresh("stop");
    const stage = open(url);
    await say(stage, "one", 2);
    await settled(stage);
    stage.created = null;
    const submitted = stage.stream.submit(human(`wait ${gate}`));
    // Tokens may be quicker than the answer that names the run.
    await stage.until((frame) => begun(frame) && stage.created, "the beginning");
    await stage.stream.stop();
    await submitted;
    await stage.until(idle, "stopped");
    equal(stage.now.error, undefined, "no error");
    equal(stage.now.interrupts, [], "no question");
    const made = await runs(url, stage.threadId);
    equal(await status(url, stage.threadId, made.at(-1).run_id), "interrupted", "the run");
    await stage.stream.submit(human("two"));
    await stage.until((frame) => idle(frame) && kept(frame).at(-1) === "# you said two", "goes on");
    equal(kept(stage.now), ["one", "# you said one", `wait ${gate}`, "two", "# you said two"]);
    stage.leave();
    const again = open(url, { threadId: stage.threadId });
    await again.until((frame) => idle(frame) && frame.messages.length, "the thread again");
    equal(shown(again.now), kept(stage.now), "after a reload");
    again.leave();
  },

  async "reload while running: before"({ url }) {
    const gate = fresh("reload");
    const stage = open(url);
    await say(stage, "one", 2);
    void stage.stream.submit(human(`wait ${gate}`)).catch(() => {});
    await stage.until(begun, "the beginning");
    const { threadId, now } = stage;
    sessionStorage.setItem("reload", JSON.stringify({ gate, threadId, messages: now.messages }));
    stage.leave();
  },

  async "reload while running"({ url }) {
    const { gate, threadId, messages } = JSON.parse(sessionStorage.getItem("reload"));
    const stage = open(url, { threadId });
    const last = messages.at(-1).text;
    await stage.until((frame) => frame.messages.at(-1)?.text === last, "what was there");
    equal(stage.now.messages, messages, "what was there");
    holds(stage.now.isLoading, "it is still running");
    await release(url, gate);
    await stage.until(idle, "the end");
    equal(shown(stage.now).at(-1), `# you said wait ${gate}`, "the end");
    equal(stage.now.messages.length, 4, "messages");
    equal(stage.faults(), [], "flicker");
    equal((await runs(url, threadId)).map((run) => run.status), ["success", "success"], "runs");
    await say(stage, "two", 6);
    equal(shown(stage.now).slice(4), ["two", "# you said two"], "goes on");
    stage.leave();
  },

  async enqueue({ url }) {
    const gate = fresh("enqueue");
    const stage = open(url);
    await stage.until(idle, "mounted");
    const first = stage.stream.submit(human(`wait ${gate}`));
    await stage.until(begun, "the beginning");
    void stage.stream.submit(human("two"), { multitaskStrategy: "enqueue" });
    await stage.until(() => stage.queue?.size === 1, "the queue");
    await release(url, gate);
    await first;
    await stage.until((frame) => idle(frame) && frame.messages.length === 4, "both");
    equal(shown(stage.now), [`wait ${gate}`, `# you said wait ${gate}`, "two", "# you said two"]);
    equal(stage.queue.size, 0, "the queue");
    equal((await runs(url, stage.threadId)).map((run) => run.status), ["success", "success"]);
    stage.leave();
  },

  async "a new turn takes the place of the old"({ url }) {
    const gate = fresh("rollback");
    const stage = open(url);
    await say(stage, "one", 2);
    const first = stage.stream.submit(human(`wait ${gate}`));
    await stage.until(begun, "the beginning");
    await stage.stream.submit(human("two"), { multitaskStrategy: "rollback" });
    await first;
    await stage.until((frame) => idle(frame) && kept(frame).at(-1) === "# you said two", "the end");
    equal(kept(stage.now), ["one", "# you said one", "two", "# you said two"], "messages");
    const state = await ask(url, "GET", `/threads/${stage.threadId}/state`);
    equal(state.values.messages.length, 4, "what the server kept");
    stage.leave();
  },

  async error({ url }) {
    const stage = open(url);
    await stage.until(idle, "mounted");
    await stage.stream.submit(human("fail"));
    await stage.until((frame) => idle(frame) && frame.error, "the error");
    equal(stage.now.error, "boom", "the error");
    equal((await runs(url, stage.threadId))[0].status, "error", "the run");
    await stage.stream.submit(human("two"));
    await stage.until((frame) => idle(frame) && kept(frame).at(-1) === "# you said two", "goes on");
    equal(kept(stage.now), ["fail", "two", "# you said two"], "messages");
    equal(stage.now.error, undefined, "gone with the next turn");
    stage.leave();
    const again = open(url, { threadId: stage.threadId });
    await again.until((frame) => idle(frame) && frame.messages.length === 3, "the thread again");
    equal(again.now.error, undefined, "the error is not the thread's");
    await again.stream.submit(human("fail"));
    await again.until((frame) => idle(frame) && frame.error, "an error right after a reload");
    equal(again.now.error, "boom", "an error right after a reload");
    again.leave();
    const refused = open(url, { assistantId: "nobody" });
    await refused.until(idle, "mounted");
    await refused.stream.submit(human("one"));
    await refused.until((frame) => idle(frame) && frame.error, "a refusal");
    holds(/Invalid assistant/.test(refused.now.error), refused.now.error);
    refused.leave();
  },

  async "reconnect after a cut"({ proxyUrl, url, cut }) {
    const gate = fresh("cut");
    const stage = open(proxyUrl, { reconnectDelayMs: () => 50 });
    await say(stage, "one", 2);
    const submitted = stage.stream.submit(human(`wait ${gate}`));
    await stage.until(begun, "the beginning");
    holds((await cut()) > 0, "a connection was cut");
    await release(url, gate);
    await submitted;
    await stage.until(idle, "the end");
    await stage.until(whole, "the whole reply");
    equal(shown(stage.now).slice(2), [`wait ${gate}`, `# you said wait ${gate}`], "messages");
    equal(stage.now.messages.length, 4, "messages");
    equal(stage.now.error, undefined, "error");
    equal(stage.faults(), [], "flicker");
    await say(stage, "two", 6);
    stage.leave();
  },

  async "over a WebSocket"({ url }) {
    const stage = open(url, { transport: "websocket" });
    await say(stage, "one", 2);
    await say(stage, "book Oslo", 4);
    await stage.until((frame) => frame.interrupts.length, "the question");
    await stage.stream.respond("yes");
    await stage.until((frame) => idle(frame) && frame.messages.length === 6, "the end");
    equal(shown(stage.now).slice(4), ["booked Oslo: yes", "the tool said booked Oslo: yes"]);
    equal(stage.faults(), [], "flicker");
    stage.leave();
  },

  async "edit and regenerate after pruning"({ url }) {
    const stage = open(url);
    await say(stage, "one", 2);
    await say(stage, "weather Rome", 6);
    await say(stage, "two", 8);
    stage.leave();
    await prune(url, stage.threadId);
    const again = open(url, { threadId: stage.threadId });
    await again.until((frame) => idle(frame) && frame.messages.length === 8, "the thread again");
    equal(again.now.messages, stage.now.messages, "after pruning");
    const old = again.now.messages[7];
    const anew = (frame) => has(8)(frame) && frame.messages[7].id !== old.id;
    await fork(again, null, about(again, 7).parentCheckpointId, anew, "the new reply");
    equal(shown(again.now).slice(6), ["two", "# you said two"], "the reply");
    const edited = await parent(url, stage.threadId, again.stream.messages[6].id);
    const due = (frame) => has(8)(frame) && frame.messages[6].text === "due";
    await fork(again, human("due"), edited, due, "the edit");
    equal(shown(again.now).slice(6), ["due", "# you said due"], "the edited message");
    const first = await parent(url, stage.threadId, again.stream.messages[0].id);
    await fork(again, human("uno"), first, has(2), "the first edited");
    equal(shown(again.now), ["uno", "# you said uno"], "the first message edited");
    again.leave();
  },
};
