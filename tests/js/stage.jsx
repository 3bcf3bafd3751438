// A hook on a page: every frame that a user would have seen is kept, and can be waited for.

import { useLayoutEffect } from "react";
import { createRoot } from "react-dom/client";
import { within } from "./checks.mjs";

const PATIENCE = 10_000;

export class Stage {
  frames = [];
  #waiting = new Set();

  /** Show what `use` returns; `show` makes of it what is kept of a frame. */
  constructor(use, options, show, children = () => null) {
    const stage = this;
    function Page({ options }) {
      const stream = use(options);
      useLayoutEffect(() => {
        stage.stream = stream;
        stage.#rendered(show(stream));
      });
      return children(stream, stage);
    }
    this.options = options;
    this.#page = Page;
    this.#root = createRoot(document.body.appendChild(document.createElement("div")));
    this.set({});
  }

  #page;
  #root;

  set(options) {
    const Page = this.#page;
    this.options = { ...this.options, ...options };
    this.#root.render(<Page options={this.options} />);
  }

  #rendered(frame) {
    this.frames.push(frame);
    for (const look of [...this.#waiting]) look();
  }

  /** Look again: something that is no part of a frame has changed. */
  look() {
    for (const look of [...this.#waiting]) look();
  }

  get now() {
    return this.frames.at(-1);
  }

  /** The first frame from now on, or the present one, for which this is so. */
  async until(so, what) {
    let look;
    const found = new Promise((resolve) => {
      look = () => this.now !== undefined && so(this.now, this.stream) && resolve(this.now);
      this.#waiting.add(look);
      look();
    });
    try {
      return await within(found, PATIENCE, () => `${what}, last: ${JSON.stringify(this.now)}`);
    } finally {
      this.#waiting.delete(look);
    }
  }

  leave() {
    this.#root.unmount();
  }

  /** What no user should see in any frame: a message twice, one that goes and comes back, two that
   * change places, text that is taken back. Returns what was seen. */
  faults({ from = 0 } = {}) {
    const faults = [];
    const gone = new Map();
    let before = new Map();
    for (const [number, { messages }] of this.frames.slice(from).entries()) {
      const at = `frame ${from + number}`;
      const now = new Map(messages.map((message, place) => [message.id, { ...message, place }]));
      if (now.size < messages.length) faults.push(`${at}: an id twice`);
      for (const [id, message] of now) {
        if (gone.has(id)) faults.push(`${at}: ${id} came back`);
        const old = before.get(id);
        if (old && old.place !== message.place) faults.push(`${at}: ${id} moved`);
        if (old && !message.text.startsWith(old.text)) {
          faults.push(`${at}: "${old.text}" became "${message.text}"`);
        }
      }
      for (const [id, message] of before) if (!now.has(id)) gone.set(id, message);
      before = now;
    }
    return faults;
  }
}

export function text(content) {
  if (typeof content === "string") return content;
  return content.map((block) => block.text ?? "").join("");
}
