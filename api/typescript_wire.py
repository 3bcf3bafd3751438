"""What the TypeScript client stands on: requests by `fetch`, and streams that are resumed."""

WIRE = """// The sessions face of a Clew server. Written by `clew openapi --typescript`, not by
// hand; it needs `fetch` and nothing else.

export interface Options {
  url: string;
  apiKey?: string;
  headers?: Record<string, string>;
  /** Instead of the global `fetch`. */
  fetch?: typeof fetch;
}

/** What one request may be given besides its arguments. */
export interface Sending {
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

export interface Part {
  event: string;
  data: unknown;
  id?: string;
}

/** An answer that is an error: `code` is stable and for programs, the message for people. */
export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly facts: Record<string, unknown>;

  constructor(status: number, body: Record<string, unknown>) {
    super(typeof body.detail === "string" ? body.detail : `HTTP ${status}`);
    this.name = "Problem";
    this.status = status;
    this.code = typeof body.code === "string" ? body.code : "";
    this.facts = body;
  }
}

interface Call {
  method: string;
  path: string;
  query?: object;
  body?: unknown;
  file?: BodyInit;
  endless?: boolean;
}

/** How often a stream is asked for again without a single event in between. */
const TRIES = 5;

class Wire {
  constructor(private readonly options: Options) {}

  async send(
    call: Call,
    sending: Sending = {},
    more: Record<string, string> = {},
  ): Promise<Response> {
    const url = new URL(this.options.url.replace(/\\/+$/, "") + call.path);
    for (const [name, value] of Object.entries(call.query ?? {})) {
      for (const one of Array.isArray(value) ? value : [value]) {
        if (one !== undefined && one !== null) {
          const text = typeof one === "object" ? JSON.stringify(one) : String(one);
          url.searchParams.append(name, text);
        }
      }
    }
    const headers: Record<string, string> = { ...this.options.headers, ...more };
    Object.assign(headers, sending.headers);
    if (this.options.apiKey !== undefined) headers["x-api-key"] = this.options.apiKey;
    if (call.body !== undefined) headers["content-type"] = "application/json";
    const response = await (this.options.fetch ?? fetch)(url, {
      method: call.method,
      headers,
      body: call.file ?? (call.body === undefined ? null : JSON.stringify(call.body)),
      signal: sending.signal ?? null,
    });
    if (!response.ok) {
      const text = await response.text();
      let body: Record<string, unknown> = {};
      try {
        body = JSON.parse(text) as Record<string, unknown>;
      } catch {
        body = { detail: text || `HTTP ${response.status}` };
      }
      throw new Problem(response.status, body);
    }
    return response;
  }

  async json<T>(call: Call, sending?: Sending): Promise<T> {
    return (await (await this.send(call, sending)).json()) as T;
  }

  async none(call: Call, sending?: Sending): Promise<void> {
    await (await this.send(call, sending)).arrayBuffer();
  }

  async file(call: Call, sending?: Sending): Promise<ReadableStream<Uint8Array>> {
    const { body } = await this.send(call, sending);
    if (body === null) throw new Error("the answer has no body");
    return body;
  }

  /** The events of a stream; one that is cut is taken up after the last event that came. */
  async *events(call: Call, sending?: Sending): AsyncGenerator<Part, void> {
    let asked = call;
    let last: string | undefined;
    let tries = 0;
    for (;;) {
      let ended = false;
      try {
        const response = await this.send(asked, sending, {
          accept: "text/event-stream",
          ...(last === undefined ? {} : { "last-event-id": last }),
        });
        const location = response.headers.get("location");
        if (location !== null) {
          asked = { method: "GET", path: location };
          // Cut before its first event, a run's stream starts over.
          last ??= "-";
        }
        if (response.body === null) throw new Error("the answer has no body");
        if (call.endless) tries = 0; // in which nothing happens
        for await (const part of parts(response.body)) {
          tries = 0;
          last = part.id ?? last;
          ended = part.event === "end" || part.event === "error";
          yield part;
          if (ended && !call.endless) return;
        }
        if (asked === call && !call.endless) return;
      } catch (error) {
        const told = error instanceof Problem;
        const passing = !told || error.status >= 500 || error.status === 429;
        const resumable = call.endless === true || asked !== call;
        if (!passing || !resumable || sending?.signal?.aborted) throw error;
        if (tries >= TRIES) throw error;
      }
      tries += 1;
      if (tries > TRIES) throw new Error("the stream was cut too often");
      await new Promise((resolve) => setTimeout(resolve, Math.min(5000, 250 * 2 ** tries)));
    }
  }
}

async function* parts(body: ReadableStream<Uint8Array>): AsyncGenerator<Part, void> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      const frames = text.split(/\\r\\n\\r\\n|\\n\\n/);
      text = frames.pop() ?? "";
      for (const frame of frames) {
        const found: Record<string, string> = {};
        for (const line of frame.split(/\\r?\\n/)) {
          const at = line.indexOf(":");
          if (at > 0) {
            const name = line.slice(0, at);
            const value = line.slice(at + 1).replace(/^ /, "");
            found[name] = name in found ? `${found[name]}\\n${value}` : value;
          }
        }
        if (found.event === undefined && found.data === undefined) continue;
        yield {
          event: found.event ?? "message",
          data: found.data ? (JSON.parse(found.data) as unknown) : null,
          ...(found.id === undefined ? {} : { id: found.id }),
        };
      }
    }
  } finally {
    await reader.cancel();
  }
}

function at(value: string): string {
  return encodeURIComponent(value);
}
"""
