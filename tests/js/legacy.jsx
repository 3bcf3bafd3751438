// `useStream` of @langchain/langgraph-sdk/react: what a user of a chat page does.

import { useStream } from "@langchain/langgraph-sdk/react";
import { fresh, prune, release, runs, status, thread } from "./api.mjs";
import { equal, holds } from "./checks.mjs";
import { Stage, text } from "./stage.jsx";

const human = (content) => ({ messages: [{ type: "human", content }] });

function open(url, options = {}) {
  const stage = new Stage(
    useStream,
    {
      apiUrl: url,
      assistantId: "chat",
      reconnectOnMount: true,
      fetchStateHistory: { limit: 100 },
      onThreadId: (threadId) => (stage.threadId = threadId),
      onCreated: (run) => (stage.created = run),
      onError: (error) => (stage.errors ??= []).push(error),
      onFinish: (state, run) => (stage.finished = run),
      ...options,
    },
    (stream) => ({
      messages: stream.messages.map(({ id, type, content, name, tool_calls }) => ({
        id,
        type,
        text: text(content),
        name: name ?? null,
        calls: (tool_calls ?? []).map((call) => [call.name, call.args]),
      })),
      isLoading: stream.isLoading,
      loadingThread: stream.isThreadLoading,
      error: stream.error && String(stream.error.message ?? stream.error),
      interrupts: stream.interrupts,
      branch: stream.branch,
    }),
  );
  stage.threadId = options.threadId;
  return stage;
}

const shown = (frame) => frame.messages.map((message) => message.text.replace(/^#\d+/, "#"));
const idle = (frame) => !frame.isLoading && !frame.loadingThread;

/** Submit, and wait until what came of it is shown. */
async function say(stage, input, expected, options) {
  await stage.until(idle, "ready");
  const before = stage.frames.length;
  await stage.stream.submit(typeof input === "string" ? human(input) : input, options);
  const frame = await stage.until(
    (frame) => idle(frame) && frame.messages.length === expected,
    `${expected} messages`,
  );
  equal(stage.faults({ from: before }), [], "flicker");
  return frame;
}

const about = (stage, place) => stage.stream.getMessagesMetadata(stage.stream.messages[place], place);

export const legacy = {
  async "submit twice"({ url }) {
    const stage = open(url);
    await stage.until(idle, "mounted");
    await say(stage, "one", 2);
    await say(stage, "two", 4);
    equal(shown(stage.now), ["one", "# you said one", "two", "# you said two"], "messages");
    equal(stage.now.messages.map((message) => message.type), ["human", "ai", "human", "ai"]);
    equal(stage.now.error, undefined, "error");
    equal(stage.now.interrupts, [], "interrupts");
    equal(stage.faults(), [], "flicker over both turns");
    const partial = stage.frames.some((frame) => /^#\d+ you $/.test(frame.messages.at(-1)?.text));
    holds(partial, "tokens were not shown one by one");
    const meta = about(stage, 3);
    equal(meta.streamMetadata.langgraph_node, "model", "streamMetadata");
    equal(meta.streamMetadata.thread_id, stage.threadId, "streamMetadata");
    holds(meta.firstSeenState.parent_checkpoint.checkpoint_id, "no parent checkpoint");
    equal(meta.branchOptions, undefined, "branches of a straight line");
    equal(stage.finished.run_id, stage.created.run_id, "onFinish");
    equal(stage.stream.history.length > 4, true, "history");
    stage.leave();
    const again = open(url, { threadId: stage.threadId });
    await again.until((frame) => idle(frame) && frame.messages.length === 4, "the thread again");
    equal(again.now.messages, stage.now.messages, "after a reload");
    again.leave();
  },

  async "edit and fork"({ url }) {
    const stage = open(url);
    await say(stage, "one", 2);
    await say(stage, "two", 4);
    const old = stage.now.messages;
    const checkpoint = about(stage, 0).firstSeenState.parent_checkpoint;
    await say(stage, "uno", 2, { checkpoint });
    equal(shown(stage.now), ["uno", "# you said uno"], "the edited branch");
    const { branch, branchOptions } = about(stage, 0);
    equal(branchOptions.length, 2, "branches");
    equal(branchOptions.indexOf(branch), 1, "the new branch is the last");
    stage.stream.setBranch(branchOptions[0]);
    await stage.until((frame) => frame.messages.length === 4, "the old branch");
    equal(stage.now.messages, old, "the old branch");
    stage.stream.setBranch(branch);
    await stage.until((frame) => frame.messages.length === 2, "the new branch again");
    await say(stage, "due", 4);
    equal(shown(stage.now), ["uno", "# you said uno", "due", "# you said due"], "goes on");
    stage.stream.setBranch(about(stage, 0).branchOptions[0]);
    await stage.until((frame) => frame.messages[0].text === "one", "the old branch");
    await say(stage, "three", 6, { checkpoint: stage.stream.history.at(-1).checkpoint });
    equal(shown(stage.now).slice(3), ["# you said two", "three", "# you said three"], "old goes on");
    stage.leave();
  },

  async regenerate({ url }) {
    const stage = open(url);
    await say(stage, "one", 2);
    await say(stage, "two", 4);
    const first = stage.now.messages;
    for (const _ of [1, 2]) {
      const { parent_checkpoint: checkpoint } = about(stage, 3).firstSeenState;
      await say(stage, undefined, 4, { checkpoint });
      equal(stage.now.messages.slice(0, 3), first.slice(0, 3), "what came before");
      equal(shown(stage.now)[3], "# you said two", "the reply");
      holds(stage.now.messages[3].text !== first[3].text, "the reply is the old one");
      equal(about(stage, 3).branchOptions.length, 2, "branches");
    }
    stage.leave();
  },

  async "tools and custom events"({ url }) {
    const custom = [];
    const stage = open(url, { onCustomEvent: (data) => custom.push(data) });
    void stage.stream;
    await say(stage, "weather 北京", 4);
    equal(shown(stage.now), ["weather 北京", "", "sunny in 北京", "the tool said sunny in 北京"]);
    equal(stage.now.messages[1].calls, [["weather", { place: "北京" }]], "the call");
    const [call] = stage.stream.toolCalls;
    equal(text(call.result.content), "sunny in 北京", "the result");
    equal(call.state, "completed", "the state of the call");
    equal(custom, [{ looking: "北京" }], "custom events");
    stage.leave();
  },

  async "tool progress"({ url }) {
    const stage = open(url);
    await stage.until(idle, "mounted");
    void stage.stream.toolProgress;
    await say(stage, "weather Rome", 4);
    const [progress] = stage.stream.toolProgress;
    equal([progress.name, progress.state], ["weather", "completed"], "progress");
    stage.leave();
  },

  async "a subgraph"({ url }) {
    const stage = open(url, { assistantId: "team" });
    await stage.until(idle, "mounted");
    await say(stage, "one", 2, { streamSubgraphs: true });
    equal(shown(stage.now), ["one", "# you said one"], "messages");
    // What the subgraph has said so far is no part of the thread's state yet.
    await say(stage, "book Oslo", 3, { streamSubgraphs: true });
    equal(stage.stream.interrupt.value, { question: "book Oslo?" }, "the question");
    await stage.stream.submit(null, { command: { resume: "yes" }, streamSubgraphs: true });
    await stage.until((frame) => idle(frame) && frame.messages.length === 6, "the end");
    equal(shown(stage.now)[4], "booked Oslo: yes", "the answer");
    equal(stage.now.interrupts, [], "nothing is asked any more");
    stage.leave();
  },

  async "interrupt and resume"({ url }) {
    const stage = open(url);
    await say(stage, "book Oslo", 2);
    equal(stage.stream.interrupt.value, { question: "book Oslo?" }, "the question");
    equal(stage.stream.interrupts.length, 1, "questions");
    equal((await thread(url, stage.threadId)).status, "interrupted", "the thread");
    const id = stage.stream.interrupt.id;
    stage.leave();
    const again = open(url, { threadId: stage.threadId });
    await again.until((frame) => frame.interrupts.length, "the question after a reload");
    equal(again.stream.interrupt.value, { question: "book Oslo?" }, "after a reload");
    equal(again.stream.interrupt.id, id, "its id after a reload");
    await say(again, null, 4, { command: { resume: "yes" } });
    equal(shown(again.now).slice(2), ["booked Oslo: yes", "the tool said booked Oslo: yes"]);
    equal(again.now.interrupts, [], "nothing is asked any more");
    again.leave();
  },

  async "two questions"({ url }) {
    const stage = open(url, { assistantId: "form" });
    await stage.until(idle, "mounted");
    await stage.stream.submit({});
    await stage.until((frame) => idle(frame) && frame.interrupts.length === 2, "two questions");
    const asked = stage.stream.interrupts;
    equal(asked.map((one) => one.value.field).sort(), ["city", "name"], "the questions");
    const resume = Object.fromEntries(asked.map((one) => [one.id, `my ${one.value.field}`]));
    await stage.stream.submit(null, { command: { resume } });
    await stage.until((frame) => idle(frame) && !frame.interrupts.length, "answered");
    equal(stage.stream.values, { name: "my name", city: "my city" }, "the answers");
    stage.leave();
  },

  async stop({ url }) {
    const gate = fresh("stop");
    const stage = open(url);
    await say(stage, "one", 2);
    const submitted = stage.stream.submit(human(`wait ${gate}`));
    await stage.until((frame) => /^#\d+ you $/.test(frame.messages.at(-1)?.text), "the beginning");
    await stage.stream.stop();
    await submitted;
    await stage.until(idle, "stopped");
    equal(stage.now.error, undefined, "no error");
    equal(stage.errors, undefined, "no error");
    // Not waiting for its cancellation, the hook may read a head with a step still to do.
    holds(stage.now.interrupts.every((one) => one.when === "breakpoint"), "no question");
    equal(await status(url, stage.threadId, stage.created.run_id), "interrupted", "the run");
    await say(stage, "two", 5);
    equal(shown(stage.now).slice(2), [`wait ${gate}`, "two", "# you said two"], "goes on");
    stage.leave();
    // Without a way to come back to it, a run that nobody watches is stopped by the server.
    const other = open(url, { reconnectOnMount: false });
    await other.until(idle, "mounted");
    const cut = other.stream.submit(human(`wait ${gate}`));
    await other.until((frame) => /^#\d+ you $/.test(frame.messages.at(-1)?.text), "the beginning");
    await other.stream.stop();
    await cut;
    equal(await status(url, other.threadId, other.created.run_id), "interrupted", "the run");
    other.leave();
  },

  async "reload while running: before"({ url }) {
    const gate = fresh("reload");
    const stage = open(url);
    void stage.stream;
    await say(stage, "one", 2);
    void stage.stream.submit(human(`wait ${gate}`)).catch(() => {});
    await stage.until((frame) => /^#\d+ you $/.test(frame.messages.at(-1)?.text), "the beginning");
    const { threadId, now } = stage;
    sessionStorage.setItem("reload", JSON.stringify({ gate, threadId, messages: now.messages }));
    stage.leave();
  },

  async "reload while running"({ url }) {
    const { gate, threadId, messages } = JSON.parse(sessionStorage.getItem("reload"));
    const stage = open(url, { threadId });
    const last = messages.at(-1).text;
    await stage.until((frame) => frame.messages.at(-1)?.text === last, "what was there");
    const ids = (all) => all.map((message) => message.id);
    equal(ids(stage.now.messages), ids(messages), "what was there");
    holds(stage.now.isLoading, "it is still running");
    await release(url, gate);
    await stage.until(idle, "the end");
    equal(shown(stage.now).at(-1), `# you said wait ${gate}`, "the end");
    equal(stage.now.messages.length, 4, "messages");
    equal(stage.faults(), [], "flicker");
    equal(sessionStorage.getItem(`lg:stream:${threadId}`), null, "the note of the run");
    equal((await runs(url, threadId)).map((run) => run.status), ["success", "success"], "runs");
    stage.leave();
  },

  async "reload after the end"({ url }) {
    // The page went away while a reply came, and is opened again when it has long been there.
    const gate = fresh("late");
    const stage = open(url);
    await stage.until(idle, "mounted");
    void stage.stream.submit(human(`wait ${gate}`)).catch(() => {});
    await stage.until((frame) => /^#\d+ you $/.test(frame.messages.at(-1)?.text), "the beginning");
    stage.leave();
    await release(url, gate);
    const { threadId, created } = stage;
    equal(await status(url, threadId, created.run_id), "success", "the run");
    const later = open(url, { threadId });
    await later.until((frame) => idle(frame) && frame.messages.length === 2, "the end");
    equal(shown(later.now), [`wait ${gate}`, `# you said wait ${gate}`], "messages");
    equal(later.faults(), [], "flicker");
    later.leave();
  },

  async enqueue({ url }) {
    const gate = fresh("enqueue");
    const stage = open(url);
    await stage.until(idle, "mounted");
    const first = stage.stream.submit(human(`wait ${gate}`));
    await stage.until((frame) => /^#\d+ you $/.test(frame.messages.at(-1)?.text), "the beginning");
    const second = stage.stream.submit(human("two"), { multitaskStrategy: "enqueue" });
    await release(url, gate);
    await Promise.all([first, second]);
    await stage.until((frame) => idle(frame) && frame.messages.length === 4, "both");
    equal(shown(stage.now), [`wait ${gate}`, `# you said wait ${gate}`, "two", "# you said two"]);
    equal((await runs(url, stage.threadId)).map((run) => run.status), ["success", "success"]);
    stage.leave();
  },

  async error({ url }) {
    const stage = open(url);
    await stage.until(idle, "mounted");
    await stage.stream.submit(human("fail"));
    await stage.until((frame) => idle(frame) && frame.error, "the error");
    equal(stage.now.error, "boom", "the error");
    equal(stage.stream.error.name, "ValueError", "its name");
    equal(stage.errors.length, 1, "onError");
    equal((await runs(url, stage.threadId))[0].status, "error", "the run");
    await say(stage, "two", 3);
    equal(stage.now.error, undefined, "gone with the next turn");
    equal(shown(stage.now), ["fail", "two", "# you said two"], "messages");
    await stage.stream.submit(human("fail"));
    stage.leave();
    const again = open(url, { threadId: stage.threadId });
    await again.until((frame) => frame.error, "the error after a reload");
    equal(again.now.error, "ValueError('boom')", "after a reload");
    equal(again.now.interrupts, [], "an error is no breakpoint");
    again.leave();
  },

  async "reconnect after a cut"({ proxyUrl, url, cut }) {
    const gate = fresh("cut");
    const stage = open(proxyUrl);
    await stage.until(idle, "mounted");
    const submitted = stage.stream.submit(human(`wait ${gate}`));
    await stage.until((frame) => /^#\d+ you $/.test(frame.messages.at(-1)?.text), "the beginning");
    holds((await cut()) > 0, "a connection was cut");
    await release(url, gate);
    await submitted;
    await stage.until((frame) => idle(frame), "the end");
    equal(shown(stage.now), [`wait ${gate}`, `# you said wait ${gate}`], "messages");
    equal(stage.now.error, undefined, "error");
    equal(stage.faults(), [], "flicker");
    equal((await runs(url, stage.threadId)).map((run) => run.status), ["success"], "runs");
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
    const reply = again.now.messages[7].text;
    await say(again, undefined, 8, { checkpoint: about(again, 7).firstSeenState.parent_checkpoint });
    holds(again.now.messages[7].text !== reply, "a new reply");
    equal(about(again, 7).branchOptions.length, 2, "branches of the reply");
    equal(about(again, 6).branchOptions, undefined, "the question has none");
    await say(again, "due", 8, { checkpoint: about(again, 6).firstSeenState.parent_checkpoint });
    equal(shown(again.now).slice(6), ["due", "# you said due"], "the edited message");
    equal(about(again, 6).branchOptions.length, 2, "branches of the message");
    await say(again, "uno", 2, { checkpoint: about(again, 0).firstSeenState.parent_checkpoint });
    equal(shown(again.now), ["uno", "# you said uno"], "the first message edited");
    equal(about(again, 0).branchOptions.length, 2, "branches of the first message");
    again.stream.setBranch(about(again, 0).branchOptions[0]);
    await again.until((frame) => frame.messages.length === 8, "the old branch");
    again.leave();
  },
};
