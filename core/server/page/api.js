// The server, as this page calls it. Addresses are relative, so that the page also works behind a proxy's prefix.

const KEY = "engine-key";

/** What went wrong, as the server says it. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", requestId = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, requestId });
  }

  /** For people: the message, and what to quote in a report. */
  get told() {
    const facts = [this.code, this.requestId && `request ${this.requestId}`].filter(Boolean).join(", ");
    return facts ? `${this.message} (${facts})` : this.message;
  }
}

export class Api {
  get key() { return sessionStorage.getItem(KEY) ?? ""; }
  set key(value) { sessionStorage.setItem(KEY, value); }

  async models() { return (await (await this.#call("v1/models")).json()).data; }

  /** What a model is for, and what it brings to try: { chats, transcribes, example: { questions, image } or { audio } or {} }. */
  async about(model) { return (await this.#call(`page/about?${new URLSearchParams({ model })}`)).json(); }

  /** Chunks of an answer, as they come. */
  async *chat(body, signal) {
    const asked = { ...body, stream: true, stream_options: { include_usage: true } };
    yield* events(await this.#post("v1/chat/completions", JSON.stringify(asked), signal, "application/json"));
  }

  /** A transcription: the reply. */
  transcribe(form, task, signal) { return this.#post(`v1/audio/${task}`, form, signal); }

  #post(path, body, signal, type) {
    return this.#call(path, { method: "POST", body, signal, headers: type ? { "Content-Type": type } : {} });
  }

  async #call(path, { headers = {}, ...options } = {}) {
    const known = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    let reply;
    try {
      reply = await fetch(new URL(path, document.baseURI), { ...options, headers: { ...headers, ...known } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer. Is it still running?");
    }
    if (!reply.ok) throw await refusal(reply);
    return reply;
  }
}

async function refusal(reply) {
  const requestId = reply.headers.get("x-request-id") ?? "";
  const { error = {} } = await reply.json().catch(() => ({}));
  const message = error.message ?? `The server answers ${reply.status}.`;
  return new ApiError(message, { status: reply.status, code: error.code ?? "", requestId });
}

/** The events of a stream, parsed; an error among them is thrown. */
export async function* events(reply) {
  const requestId = reply.headers.get("x-request-id") ?? "";
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
        if (!data || data.trim() === "[DONE]") continue;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(event.error.message, { code: event.error.code, requestId });
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The connection was lost in the middle of the answer.");
  }
}
