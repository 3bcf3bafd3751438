// The sessions face of a Clew server. Written by `clew openapi --typescript`, not by
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
    const url = new URL(this.options.url.replace(/\/+$/, "") + call.path);
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
      const frames = text.split(/\r\n\r\n|\n\n/);
      text = frames.pop() ?? "";
      for (const frame of frames) {
        const found: Record<string, string> = {};
        for (const line of frame.split(/\r?\n/)) {
          const at = line.indexOf(":");
          if (at > 0) {
            const name = line.slice(0, at);
            const value = line.slice(at + 1).replace(/^ /, "");
            found[name] = name in found ? `${found[name]}\n${value}` : value;
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

export interface AuditEntry {
  thread_id: string | null;
  actor: string;
  move: string;
  from_state: string | null;
  to_state: string | null;
  detail: Record<string, unknown> | null;
  made_at: string;
}

export interface AuditLog {
  entries: AuditEntry[];
}

/** One of the three. */
export interface BatchOf {
  create?: SessionCreate[] | null;
  get?: string[] | null;
  delete?: string[] | null;
}

export interface BatchProblem {
  code: string;
  detail: string;
}

/** One of the two. */
export interface BatchResult {
  session?: Session;
  problem?: BatchProblem;
}

export interface BatchResults {
  results: BatchResult[];
}

export interface Bisect {
  where: unknown;
  tip?: string | null;
  since?: string | null;
}

export interface BisectResult {
  checkpoint_id: string | null;
  lineage_id: number | null;
  before_id: string | null;
  loads: number;
  length: number;
}

export interface Branch {
  lineage_id: number;
  kind: string;
  own: boolean;
  is_head: boolean;
  parent_id: number | null;
  source_id: number | null;
  fork_id: string | null;
  fork_parent: string | null;
  scope: string;
  moment: number | null;
  created_at: string;
  tip: string | null;
  checkpoints: number;
  actor: string | null;
  reason: string | null;
}

export interface ChannelSize {
  count: number;
  bytes: number;
  namespace: string | null;
  channel: string | null;
}

export interface CheckpointEntry {
  checkpoint_id: string;
  parent_id: string | null;
  lineage_id: number;
  seq: number;
  ns: string;
  source: string | null;
  step: number | null;
  run_id: string | null;
  created_at: string;
  metadata: Record<string, unknown>;
  labels: string[];
  pinned: boolean;
  interrupted: boolean;
  failed: boolean;
  bytes: number;
}

export interface CheckpointLabel {
  name: string;
  checkpoint_id: string;
  actor: string | null;
  labelled_at: string;
  has_data: boolean;
}

export interface CheckpointLabelData {
  name: string;
  checkpoint_id: string;
  actor: string | null;
  labelled_at: string;
  has_data: boolean;
  data: unknown;
}

export interface CheckpointLabels {
  labels: CheckpointLabel[];
}

export interface CheckpointPage {
  checkpoints: CheckpointEntry[];
  before: string | null;
}

export interface CheckpointPin {
  checkpoint_id: string;
  actor: string | null;
  reason: string | null;
  pinned_at: string;
  expires_at: string | null;
}

export interface CheckpointPins {
  pins: CheckpointPin[];
}

export interface CheckpointState {
  checkpoint_id: string;
  parent_id: string | null;
  lineage_id: number;
  seq: number;
  ns: string;
  source: string | null;
  step: number | null;
  run_id: string | null;
  created_at: string;
  metadata: Record<string, unknown>;
  labels: string[];
  pinned: boolean;
  interrupted: boolean;
  failed: boolean;
  bytes: number;
  state?: Record<string, unknown>;
}

export interface CheckpointTree {
  branches: Branch[];
  checkpoints: CheckpointEntry[];
  before: string | null;
}

export interface Choose {
  policy: string;
  reason?: string | null;
}

export interface DeletedSessions {
  deleted: number;
  busy: string[];
}

export interface DiffQuestions {
  removed: unknown[];
  added: unknown[];
}

export interface DiffSides {
  a: string[];
  b: string[];
}

export interface ErasureReceipt {
  receipt_id: string;
  subject: string;
  removed: Record<string, number>;
  started_at: string;
  ended_at: string;
}

export interface Figures {
  sessions: number;
  messages: number;
  bytes: number;
  average_duration: number | null;
}

export interface Fork {
  checkpoint_id?: string | null;
  label?: string | null;
  line?: number | null;
  reason?: string | null;
  thread_id?: string | null;
  scope?: "path" | "all";
  title?: string | null;
  tags?: string[] | null;
  metadata?: Record<string, unknown> | null;
  owner?: string | null;
}

export interface ImportCounts {
  source_thread_id: string;
  lineages: number;
  items: number;
  checkpoints: number;
  writes: number;
}

export interface ImportedSession {
  thread_id: string;
  state: "active" | "idle" | "archived" | "expired" | "deleted";
  status: "idle" | "busy" | "interrupted" | "error";
  graph_id: string | null;
  assistant_id: string | null;
  kind: string | null;
  title: string | null;
  description: string | null;
  tags: string[];
  metadata: Record<string, unknown>;
  config: Record<string, unknown>;
  context: Record<string, unknown>;
  resources: Record<string, unknown>;
  template: Record<string, unknown> | null;
  interrupts: Record<string, unknown>;
  error: Record<string, unknown> | null;
  message_count: number;
  bytes: number;
  version: number;
  parent_thread_id: string | null;
  created_at: string;
  updated_at: string;
  last_active_at: string;
  ttl: SessionTtl | null;
  expires_at: string | null;
  idle_after: number;
  archived_at: string | null;
  deleted_at: string | null;
  next: string[];
  checkpoint_id: string | null;
  line: number | null;
  imported: ImportCounts;
}

export interface Labelled {
  checkpoint_id: string;
  move?: boolean;
}

export interface MessagePage {
  messages: SessionMessage[];
  cursor: string | null;
  total: number;
}

/** What is said: `content`, or whole `messages`, such as a batch from elsewhere. */
export interface MessageSend {
  content?: string | (Record<string, unknown>)[] | null;
  messages?: (Record<string, unknown>)[] | null;
  role?: "user" | "assistant" | "system" | "tool";
  metadata?: Record<string, unknown> | null;
  assistant_id?: string | null;
  context?: Record<string, unknown> | null;
  config?: Record<string, unknown> | null;
  stream?: boolean;
  stream_mode?: string[];
  multitask_strategy?: "reject" | "enqueue" | "interrupt" | "rollback";
  on_disconnect?: "continue" | "cancel";
}

/** A session after its head has moved: where it is, and what comes next. */
export interface MovedSession {
  thread_id: string;
  state: "active" | "idle" | "archived" | "expired" | "deleted";
  status: "idle" | "busy" | "interrupted" | "error";
  graph_id: string | null;
  assistant_id: string | null;
  kind: string | null;
  title: string | null;
  description: string | null;
  tags: string[];
  metadata: Record<string, unknown>;
  config: Record<string, unknown>;
  context: Record<string, unknown>;
  resources: Record<string, unknown>;
  template: Record<string, unknown> | null;
  interrupts: Record<string, unknown>;
  error: Record<string, unknown> | null;
  message_count: number;
  bytes: number;
  version: number;
  parent_thread_id: string | null;
  created_at: string;
  updated_at: string;
  last_active_at: string;
  ttl: SessionTtl | null;
  expires_at: string | null;
  idle_after: number;
  archived_at: string | null;
  deleted_at: string | null;
  next: string[];
  checkpoint_id: string | null;
  line: number | null;
}

/** What a run stopped to ask; `on_deadline` is the answer that it gets if nobody gives one. */
export interface OpenQuestion {
  thread_id: string;
  interrupt_id: string;
  run_id: string | null;
  namespace: string[];
  value: unknown;
  response_schema: unknown;
  created_at: string;
  deadline_at: string | null;
  on_deadline: unknown;
}

export interface OpenQuestions {
  interrupts: OpenQuestion[];
  offset: number | null;
}

export interface Pinned {
  reason?: string | null;
  expires_at?: string | null;
}

export interface Prune {
  policy?: string | null;
  dry_run?: boolean;
  reason?: string | null;
}

export interface PrunedSession {
  thread_id: string;
  checkpoint_ids: string[];
  checkpoints: number;
  writes: number;
  items: number;
  bytes: number;
  dry_run: boolean;
}

export interface PurgedSession {
  thread_id: string;
  state: "purged";
}

/** What of a session's history went, or would go. */
export interface Removed {
  thread_id: string;
  checkpoint_ids: string[];
  checkpoints: number;
  writes: number;
  items: number;
  bytes: number;
}

export interface Restore {
  checkpoint_id?: string | null;
  label?: string | null;
  line?: number | null;
  reason?: string | null;
}

export interface RetentionPolicy {
  policy: string;
  inherited: boolean;
}

export interface Save {
  label: string;
  data?: unknown;
  move?: boolean;
  reason?: string | null;
}

export interface Session {
  thread_id: string;
  state: "active" | "idle" | "archived" | "expired" | "deleted";
  status: "idle" | "busy" | "interrupted" | "error";
  graph_id: string | null;
  assistant_id: string | null;
  kind: string | null;
  title: string | null;
  description: string | null;
  tags: string[];
  metadata: Record<string, unknown>;
  config: Record<string, unknown>;
  context: Record<string, unknown>;
  resources: Record<string, unknown>;
  template: Record<string, unknown> | null;
  interrupts: Record<string, unknown>;
  error: Record<string, unknown> | null;
  message_count: number;
  bytes: number;
  version: number;
  parent_thread_id: string | null;
  created_at: string;
  updated_at: string;
  last_active_at: string;
  ttl: SessionTtl | null;
  expires_at: string | null;
  idle_after: number;
  archived_at: string | null;
  deleted_at: string | null;
}

export interface SessionCreate {
  title?: string | null;
  description?: string | null;
  kind?: string | null;
  tags?: string[] | null;
  metadata?: Record<string, unknown> | null;
  config?: Record<string, unknown> | null;
  context?: Record<string, unknown> | null;
  resources?: Record<string, unknown> | null;
  ttl?: TtlBody | number | null;
  idle_after?: number | null;
  thread_id?: string | null;
  assistant_id?: string | null;
  if_exists?: "raise" | "do_nothing";
  reuse?: "latest" | null;
  template_id?: string | null;
  template_version?: number | null;
}

export interface SessionDiff {
  a: Record<string, unknown>;
  b: Record<string, unknown>;
  values: Record<string, Record<string, unknown>>;
  next: DiffSides;
  interrupts: DiffQuestions;
  metadata: (Record<string, unknown>)[];
}

export interface SessionMessage {
  index: number;
  removed: boolean;
  message: Record<string, unknown>;
}

export interface SessionPage {
  sessions: Session[];
  cursor: string | null;
  total?: number | null;
}

export interface SessionPatch {
  title?: string | null;
  description?: string | null;
  kind?: string | null;
  tags?: string[] | null;
  metadata?: Record<string, unknown> | null;
  config?: Record<string, unknown> | null;
  context?: Record<string, unknown> | null;
  resources?: Record<string, unknown> | null;
  ttl?: TtlBody | number | null;
  idle_after?: number | null;
  assistant_id?: string | null;
  template_id?: string | null;
  template_version?: number | null;
}

export interface SessionStats {
  sessions: number;
  messages: number;
  bytes: number;
  average_duration: number | null;
  by_state: Record<string, number>;
  by_agent: Record<string, Figures>;
  by_owner: Record<string, Figures>;
  by_day: Record<string, number>;
}

export interface SessionStorage {
  thread_id: string;
  total_bytes: number;
  checkpoints: StorageSize;
  values: StorageSize;
  writes: StorageSize;
  channels: ChannelSize[];
}

/** `ttl` and `waiting` are minutes; `waiting` counts while the session waits for a human. */
export interface SessionTtl {
  ttl: number | null;
  sliding: boolean;
  strategy: "delete" | "keep_latest";
  waiting: number | null;
}

export interface Share {
  share_id: string;
  thread_id: string;
  owner: string | null;
  role: "reader" | "writer";
  checkpoint_id: string | null;
  created_at: string;
  expires_at: string | null;
  revoked_at: string | null;
}

export interface ShareCreate {
  owner?: string | null;
  role?: "reader" | "writer";
  checkpoint_id?: string | null;
  expires_in?: number | null;
}

export interface ShareList {
  shares: Share[];
}

export interface SharedSession {
  thread_id: string;
  state: "active" | "idle" | "archived" | "expired" | "deleted";
  status: "idle" | "busy" | "interrupted" | "error";
  graph_id: string | null;
  assistant_id: string | null;
  kind: string | null;
  title: string | null;
  description: string | null;
  tags: string[];
  metadata: Record<string, unknown>;
  config: Record<string, unknown>;
  context: Record<string, unknown>;
  resources: Record<string, unknown>;
  template: Record<string, unknown> | null;
  interrupts: Record<string, unknown>;
  error: Record<string, unknown> | null;
  message_count: number;
  bytes: number;
  version: number;
  parent_thread_id: string | null;
  created_at: string;
  updated_at: string;
  last_active_at: string;
  ttl: SessionTtl | null;
  expires_at: string | null;
  idle_after: number;
  archived_at: string | null;
  deleted_at: string | null;
  share?: Share;
}

export interface StorageSize {
  count: number;
  bytes: number;
}

export interface Template {
  template_id: string;
  name: string;
  description: string | null;
  shared: boolean;
  body: Record<string, unknown>;
  version: number;
  created_at: string;
  updated_at: string;
}

export interface TemplateCreate {
  name: string;
  description?: string | null;
  shared?: boolean;
  body: Record<string, unknown>;
}

export interface TemplateList {
  templates: Template[];
}

export interface TemplatePatch {
  name?: string | null;
  description?: string | null;
  shared?: boolean | null;
  body?: Record<string, unknown> | null;
}

export interface Touch {
  ttl?: number | null;
}

export interface Transfer {
  owner: string;
}

export interface TtlBody {
  ttl?: number | null;
  sliding?: boolean | null;
  strategy?: "delete" | "keep_latest";
  waiting?: number | null;
}

export interface Undo {
  reason?: string | null;
}

export interface Webhook {
  subscription_id: string;
  url: string;
  kinds: string[] | null;
  attempts: number;
  fault: string | null;
  created_at: string;
}

export interface WebhooksCreate {
  url: string;
  kinds?: string[] | null;
}

export class Sessions {
  constructor(private readonly wire: Wire) {}

  /** `session.*` and `run.*` as they happen, from now on or from `Last-Event-ID` on. Headers: last-event-id. */
  events(query: { thread_id?: string | null } = {}, sending?: Sending): AsyncGenerator<Part, void> {
    return this.wire.events({ method: "GET", path: `/sessions/events`, query, endless: true }, sending);
  }

  /** Create a session, or with `reuse` take up the latest one: 201 if it is new, else 200. */
  create(body: SessionCreate, sending?: Sending): Promise<Session> {
    return this.wire.json({ method: "POST", path: `/sessions`, body }, sending);
  }

  /** List and search sessions. `q` looks through titles and messages, `metadata` is a JSON object that they must contain, `tag` must all be there, of `any_tag` one. */
  list(query: { q?: string | null; state?: ("active" | "idle" | "archived" | "expired" | "deleted")[] | null; status?: ("idle" | "busy" | "interrupted" | "error")[] | null; tag?: string[] | null; any_tag?: string[] | null; kind?: string | null; graph_id?: string | null; assistant_id?: string | null; parent_thread_id?: string | null; metadata?: Record<string, unknown>; created_after?: string | null; created_before?: string | null; updated_after?: string | null; updated_before?: string | null; sort?: "updated_at" | "created_at" | "last_active_at"; order?: "asc" | "desc"; limit?: number; cursor?: string | null; total?: boolean } = {}, sending?: Sending): Promise<SessionPage> {
    return this.wire.json({ method: "GET", path: `/sessions`, query }, sending);
  }

  /** Figures: by state, agent, owner, and day. */
  stats(query: { graph_id?: string | null; days?: number } = {}, sending?: Sending): Promise<SessionStats> {
    return this.wire.json({ method: "GET", path: `/sessions/stats`, query }, sending);
  }

  /** Create, get or delete many; each item has its own result or problem, in its place. */
  batch(body: BatchOf, sending?: Sending): Promise<BatchResults> {
    return this.wire.json({ method: "POST", path: `/sessions/batch`, body }, sending);
  }

  /** A session of one's own, or one that is shared. */
  get(threadId: string, sending?: Sending): Promise<SharedSession> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}` }, sending);
  }

  /** Change what is named; metadata is merged. With `If-Match`, only if nobody else changed it. Headers: if-match. */
  patch(threadId: string, body: SessionPatch, sending?: Sending): Promise<Session> {
    return this.wire.json({ method: "PATCH", path: `/sessions/${at(threadId)}`, body }, sending);
  }

  /** Delete a session. It can be brought back for a while, unless it is `final`. */
  delete(threadId: string, query: { final?: boolean } = {}, sending?: Sending): Promise<Session | PurgedSession> {
    return this.wire.json({ method: "DELETE", path: `/sessions/${at(threadId)}`, query }, sending);
  }

  /** Bring a deleted session back, within the undo window. */
  undelete(threadId: string, sending?: Sending): Promise<Session> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/undelete` }, sending);
  }

  /** Make a session read-only and take it out of the way. */
  archive(threadId: string, sending?: Sending): Promise<Session> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/archive` }, sending);
  }

  /** Take an archived session up again. */
  unarchive(threadId: string, sending?: Sending): Promise<Session> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/unarchive` }, sending);
  }

  /** Count as activity now: the expiry starts anew, with a new `ttl` where one is given. */
  touch(threadId: string, body: Touch = {}, sending?: Sending): Promise<Session> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/touch`, body }, sending);
  }

  /** Give a session to another owner of the tenant, with all that belongs to it. For admins. */
  transfer(threadId: string, body: Transfer, sending?: Sending): Promise<Session> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/transfer`, body }, sending);
  }

  /** Title a session by what was said first in it. */
  title(threadId: string, sending?: Sending): Promise<Session> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/title` }, sending);
  }

  /** Who did what to a session, newest first. It is told of deleted sessions too. */
  audit(threadId: string, query: { limit?: number } = {}, sending?: Sending): Promise<AuditLog> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/audit`, query }, sending);
  }

  /** The messages at the head, or as they were at a checkpoint; with scope `all` everything ever said, with what was removed since marked. */
  messages(threadId: string, query: { scope?: "head" | "all"; order?: "asc" | "desc"; checkpoint_id?: string | null; limit?: number; cursor?: string | null } = {}, sending?: Sending): Promise<MessagePage> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/messages`, query }, sending);
  }

  /** Send a message and stream the reply, or with `stream: false` wait for it. */
  send(threadId: string, body: Omit<MessageSend, "stream">, sending?: Sending): AsyncGenerator<Part, void> {
    return this.wire.events({ method: "POST", path: `/sessions/${at(threadId)}/messages`, body: { ...body, stream: true } }, sending);
  }

  /** Send a message and stream the reply, or with `stream: false` wait for it. */
  ask(threadId: string, body: Omit<MessageSend, "stream">, sending?: Sending): Promise<Record<string, unknown>> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/messages`, body: { ...body, stream: false } }, sending);
  }

  /** What the run still says; with `Last-Event-ID` all after that event, and with `-` all. Headers: last-event-id. */
  follow(threadId: string, runId: string, sending?: Sending): AsyncGenerator<Part, void> {
    return this.wire.events({ method: "GET", path: `/sessions/${at(threadId)}/runs/${at(runId)}/stream` }, sending);
  }

  /** Answers when the run has stopped; what it had said stays. */
  stop(threadId: string, runId: string, sending?: Sending): Promise<void> {
    return this.wire.none({ method: "POST", path: `/sessions/${at(threadId)}/runs/${at(runId)}/cancel` }, sending);
  }

  /** Put the session back to a checkpoint; nothing is deleted. */
  restore(threadId: string, body: Restore, sending?: Sending): Promise<MovedSession> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/restore`, body }, sending);
  }

  /** Go back to the line that the last restore left. */
  undo(threadId: string, body: Undo = {}, sending?: Sending): Promise<MovedSession> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/undo`, body }, sending);
  }

  /** Begin another session at a checkpoint of this one, copying nothing; of a session that somebody shares with the caller, or for another owner, a deep copy of what led there. */
  fork(threadId: string, body: Fork = {}, sending?: Sending): Promise<MovedSession> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/fork`, body }, sending);
  }

  /** How to get from one checkpoint to another, of this session or of two. */
  diff(threadId: string, query: { a?: string | null; b?: string | null; with?: string | null; a_line?: number | null; b_line?: number | null } = {}, sending?: Sending): Promise<SessionDiff> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/diff`, query }, sending);
  }

  /** The first checkpoint at which a condition holds, found in a few loads. */
  bisect(threadId: string, body: Bisect, sending?: Sending): Promise<BisectResult> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/bisect`, body }, sending);
  }

  /** Download the session as one file, lossless. */
  export(threadId: string, query: { scope?: "all" | "path" } = {}, sending?: Sending): Promise<ReadableStream<Uint8Array>> {
    return this.wire.file({ method: "GET", path: `/sessions/${at(threadId)}/export`, query }, sending);
  }

  /** Make a session of an uploaded file, under a new id; all of it or nothing. */
  import(file: BodyInit, query: { thread_id?: string | null; reason?: string | null } = {}, sending?: Sending): Promise<ImportedSession> {
    return this.wire.json({ method: "POST", path: `/sessions/import`, file, query }, sending);
  }

  /** The session's retention policy, its own or the server's. */
  retention(threadId: string, sending?: Sending): Promise<RetentionPolicy> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/retention` }, sending);
  }

  /** Give the session a policy of its own. */
  set_retention(threadId: string, body: Choose, sending?: Sending): Promise<RetentionPolicy> {
    return this.wire.json({ method: "PUT", path: `/sessions/${at(threadId)}/retention`, body }, sending);
  }

  /** Let the session follow the server's policy again. */
  unset_retention(threadId: string, sending?: Sending): Promise<void> {
    return this.wire.none({ method: "DELETE", path: `/sessions/${at(threadId)}/retention` }, sending);
  }

  /** Remove what the policy does not keep; with `dry_run`, say what that would be. */
  prune(threadId: string, body: Prune = {}, sending?: Sending): Promise<PrunedSession> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/prune`, body }, sending);
  }

  /** The bytes that the session takes, in all and channel by channel. */
  storage(threadId: string, sending?: Sending): Promise<SessionStorage> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/storage` }, sending);
  }
}

export class Shares {
  constructor(private readonly wire: Wire) {}

  /** What others share with the caller now. */
  received(query: { limit?: number } = {}, sending?: Sending): Promise<ShareList> {
    return this.wire.json({ method: "GET", path: `/sessions/shared`, query }, sending);
  }

  /** Share a session with one owner of the tenant, or with all of them. */
  create(threadId: string, body: ShareCreate, sending?: Sending): Promise<Share> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/shares`, body }, sending);
  }

  /** Every share of one's own session, revoked ones included. */
  list(threadId: string, sending?: Sending): Promise<ShareList> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/shares` }, sending);
  }

  /** End a share, from this moment on. */
  revoke(threadId: string, shareId: string, sending?: Sending): Promise<Share> {
    return this.wire.json({ method: "DELETE", path: `/sessions/${at(threadId)}/shares/${at(shareId)}` }, sending);
  }
}

export class Checkpoints {
  constructor(private readonly wire: Wire) {}

  /** The session's checkpoints, newest first; of one that is shared, what the share shows. */
  list(threadId: string, query: { scope?: "path" | "line" | "all"; ns?: string; tip?: string | null; before?: string | null; limit?: number; run_id?: string | null; source?: "input" | "loop" | "update" | "fork" | null; step?: number | null; metadata?: Record<string, unknown> } = {}, sending?: Sending): Promise<CheckpointPage> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/checkpoints`, query }, sending);
  }

  /** Save the session as it is now under a name, with data of the caller's own. */
  save(threadId: string, body: Save, sending?: Sending): Promise<CheckpointLabel> {
    return this.wire.json({ method: "POST", path: `/sessions/${at(threadId)}/checkpoints`, body }, sending);
  }

  /** Delete every checkpoint on every line; the session stays and begins anew. */
  clear(threadId: string, sending?: Sending): Promise<void> {
    return this.wire.none({ method: "DELETE", path: `/sessions/${at(threadId)}/checkpoints` }, sending);
  }

  /** All lines of the session, those that restores left included, and what is on them. */
  tree(threadId: string, query: { before?: string | null; limit?: number } = {}, sending?: Sending): Promise<CheckpointTree> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/checkpoints/tree`, query }, sending);
  }

  /** The newest checkpoint, with its state; or the one that a share is pinned to. */
  latest(threadId: string, query: { line?: number | null; state?: boolean } = {}, sending?: Sending): Promise<CheckpointState> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/checkpoints/latest`, query }, sending);
  }

  /** One checkpoint, with the state as it was when this was the newest. */
  get(threadId: string, checkpointId: string, query: { line?: number | null; state?: boolean } = {}, sending?: Sending): Promise<CheckpointState> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/checkpoints/${at(checkpointId)}`, query }, sending);
  }

  /** Delete one checkpoint; what followed it stays. */
  delete(threadId: string, checkpointId: string, sending?: Sending): Promise<Removed> {
    return this.wire.json({ method: "DELETE", path: `/sessions/${at(threadId)}/checkpoints/${at(checkpointId)}` }, sending);
  }

  /** What is pinned, oldest first. */
  pins(threadId: string, sending?: Sending): Promise<CheckpointPins> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/pins` }, sending);
  }

  /** Keep a checkpoint whatever retention says. */
  pin(threadId: string, checkpointId: string, body: Pinned = {}, sending?: Sending): Promise<CheckpointPin> {
    return this.wire.json({ method: "PUT", path: `/sessions/${at(threadId)}/checkpoints/${at(checkpointId)}/pin`, body }, sending);
  }

  /** Let retention decide again. */
  unpin(threadId: string, checkpointId: string, sending?: Sending): Promise<void> {
    return this.wire.none({ method: "DELETE", path: `/sessions/${at(threadId)}/checkpoints/${at(checkpointId)}/pin` }, sending);
  }

  /** The session's labels, oldest first. */
  labels(threadId: string, sending?: Sending): Promise<CheckpointLabels> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/labels` }, sending);
  }

  /** A label, and what was saved with it. */
  labelled(threadId: string, name: string, sending?: Sending): Promise<CheckpointLabelData> {
    return this.wire.json({ method: "GET", path: `/sessions/${at(threadId)}/labels/${at(name)}` }, sending);
  }

  /** Name a checkpoint; retention keeps it. */
  label(threadId: string, name: string, body: Labelled, sending?: Sending): Promise<CheckpointLabel> {
    return this.wire.json({ method: "PUT", path: `/sessions/${at(threadId)}/labels/${at(name)}`, body }, sending);
  }

  /** Take a label away, and what was saved with it; the checkpoint stays. */
  unlabel(threadId: string, name: string, sending?: Sending): Promise<void> {
    return this.wire.none({ method: "DELETE", path: `/sessions/${at(threadId)}/labels/${at(name)}` }, sending);
  }
}

export class Interrupts {
  constructor(private readonly wire: Wire) {}

  /** The open questions of one's living sessions, newest first; answered by resuming the run. */
  list(query: { thread_id?: string | null; limit?: number; offset?: number } = {}, sending?: Sending): Promise<OpenQuestions> {
    return this.wire.json({ method: "GET", path: `/interrupts`, query }, sending);
  }
}

export class Templates {
  constructor(private readonly wire: Wire) {}

  /** Make a template: what new sessions start with. */
  create(body: TemplateCreate, sending?: Sending): Promise<Template> {
    return this.wire.json({ method: "POST", path: `/templates`, body }, sending);
  }

  /** One's own templates and those shared in the tenant. */
  list(query: { limit?: number } = {}, sending?: Sending): Promise<TemplateList> {
    return this.wire.json({ method: "GET", path: `/templates`, query }, sending);
  }

  /** A template, at its latest version or at an earlier one. */
  get(templateId: string, query: { version?: number | null } = {}, sending?: Sending): Promise<Template> {
    return this.wire.json({ method: "GET", path: `/templates/${at(templateId)}`, query }, sending);
  }

  /** Change a template; a new body is a new version. */
  patch(templateId: string, body: TemplatePatch, sending?: Sending): Promise<Template> {
    return this.wire.json({ method: "PATCH", path: `/templates/${at(templateId)}`, body }, sending);
  }

  /** Delete a template; sessions made from it keep what they got. */
  delete(templateId: string, sending?: Sending): Promise<void> {
    return this.wire.none({ method: "DELETE", path: `/templates/${at(templateId)}` }, sending);
  }
}

export class Webhooks {
  constructor(private readonly wire: Wire) {}

  list(sending?: Sending): Promise<Webhook[]> {
    return this.wire.json({ method: "GET", path: `/webhooks` }, sending);
  }

  create(body: WebhooksCreate, sending?: Sending): Promise<Webhook> {
    return this.wire.json({ method: "POST", path: `/webhooks`, body }, sending);
  }

  delete(webhookId: string, sending?: Sending): Promise<void> {
    return this.wire.none({ method: "DELETE", path: `/webhooks/${at(webhookId)}` }, sending);
  }
}

export class Owners {
  constructor(private readonly wire: Wire) {}

  /** Delete all sessions of an owner, one's own or as an admin; they can be brought back for a while. Sessions at work are left alone and named. */
  delete_sessions(owner: string, query: { graph_id?: string | null } = {}, sending?: Sending): Promise<DeletedSessions> {
    return this.wire.json({ method: "DELETE", path: `/owners/${at(owner)}/sessions`, query }, sending);
  }

  /** Delete all sessions of an agent, as far as the caller reaches. */
  delete_agent_sessions(graphId: string, sending?: Sending): Promise<DeletedSessions> {
    return this.wire.json({ method: "DELETE", path: `/agents/${at(graphId)}/sessions` }, sending);
  }

  /** Remove everything of an owner, for good and at once, and say what it was. For admins. */
  erase(owner: string, sending?: Sending): Promise<ErasureReceipt> {
    return this.wire.json({ method: "POST", path: `/owners/${at(owner)}/erase` }, sending);
  }

  /** The receipt of an erasure. For admins. */
  receipt(receiptId: string, sending?: Sending): Promise<ErasureReceipt> {
    return this.wire.json({ method: "GET", path: `/erasures/${at(receiptId)}` }, sending);
  }
}

export class Clew {
  readonly sessions: Sessions;
  readonly shares: Shares;
  readonly checkpoints: Checkpoints;
  readonly interrupts: Interrupts;
  readonly templates: Templates;
  readonly webhooks: Webhooks;
  readonly owners: Owners;

  constructor(options: Options) {
    const wire = new Wire(options);
    this.sessions = new Sessions(wire);
    this.shares = new Shares(wire);
    this.checkpoints = new Checkpoints(wire);
    this.interrupts = new Interrupts(wire);
    this.templates = new Templates(wire);
    this.webhooks = new Webhooks(wire);
    this.owners = new Owners(wire);
  }
}
