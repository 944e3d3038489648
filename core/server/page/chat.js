// The conversation: what was said, what is attached to the next question, and the answer while it comes.

import { ApiError } from "./api.js";
import { $, button, copy, dataUri, Growing, make, rich, seconds } from "./dom.js";

export class Chat {
  constructor(api) {
    this.api = api;
    this.model = null;
    this.messages = [];
    this.attached = [];
    this.reading = Promise.resolve();
    this.example = {};
    this.running = null;
    $("ask").onsubmit = (event) => { event.preventDefault(); this.send(); };
    $("stop").onclick = () => this.stop();
    $("fresh").onclick = () => this.reset();
    $("attach").onclick = () => $("chat-files").click();
    $("chat-files").onchange = () => { this.attach([...$("chat-files").files]); $("chat-files").value = ""; };
    $("question").oninput = () => this.#grow();
    $("question").onkeydown = (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.send(); }
    };
    $("question").onpaste = (event) => {
      const files = [...event.clipboardData.files];
      if (files.length) { event.preventDefault(); this.attach(files); }
    };
  }

  /** Talk with this model. */
  show(model, example) {
    this.stop();
    this.model = model;
    this.example = example;
    const media = model.modalities.filter((name) => name === "image" || name === "audio");
    $("attach").hidden = !media.length;
    $("chat-files").accept = media.map((name) => `${name}/*`).join(",");
    $("keys").textContent = `Enter sends · Shift+Enter: a new line · Esc stops${media.length ? " · drop or paste files" : ""}`;
    this.reset();
  }

  reset() {
    this.stop();
    this.messages = [];
    this.attached = [];
    this.#showAttached();
    $("log").replaceChildren(this.#welcome());
    $("question").focus();
  }

  stop() { this.running?.abort(); }

  /** Add files to the next question, which waits until they have been read. */
  attach(files) {
    this.reading = this.reading.then(() => this.#read(files));
    return this.reading;
  }

  async #read(files) {
    for (const file of files) {
      const kind = file.type.split("/")[0];
      if (!["image", "audio"].includes(kind) || !this.model.modalities.includes(kind)) {
        this.#fail(`${this.model.id} takes ${this.model.modalities.join(" and ")}, not ${file.type || "a file like"} ${file.name}.`);
        continue;
      }
      try {
        this.attached.push({ kind, name: file.name, uri: await dataUri(file) });
      } catch {
        this.#fail(`${file.name} cannot be read.`);
      }
    }
    this.#showAttached();
    $("question").focus();
  }

  async send() {
    await this.reading;
    const text = $("question").value.trim();
    if (this.running || (!text && !this.attached.length)) return;
    const asked = { text, attached: this.attached };
    this.attached = [];
    $("question").value = "";
    this.#grow();
    this.#showAttached();
    await this.#ask(asked);
  }

  async #ask(asked) {
    if (this.running) return;
    $("log").querySelectorAll(".welcome, .wrong").forEach((node) => node.remove());
    const question = turn("user", ...asked.attached.map(shown), make("div", { className: "text", textContent: asked.text }));
    const text = make("div", { className: "text" });
    const answer = turn("assistant", text);
    answer.classList.add("running");
    answer.setAttribute("aria-busy", "true");
    const messages = [...this.messages, { role: "user", content: content(asked) }];
    const clock = new Clock();
    this.#follow(() => $("log").append(question, answer));
    const running = this.#begin();
    const growing = new Growing((piece) => this.#follow(() => text.append(piece)));
    try {
      for await (const chunk of this.api.chat({ ...this.#settings(), model: this.model.id, messages: this.#all(messages) }, running.signal)) {
        const delta = chunk.choices[0]?.delta.content ?? "";
        clock.note(delta, chunk);
        growing.add(delta);
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        question.remove();
        answer.remove();
        this.#fail(error instanceof ApiError ? error.told : String(error), () => this.#ask(asked));
        return;
      }
      clock.reason = "stopped";
    } finally {
      growing.end();
      answer.classList.remove("running");
      answer.removeAttribute("aria-busy");
      if (this.running === running) this.#end();
    }
    if (!question.isConnected) return; // a new conversation was begun meanwhile
    const said = growing.text;
    if (said) this.messages = [...messages, { role: "assistant", content: said }];
    text.replaceChildren(rich(said || "(nothing)"));
    const copying = button("Copy", () => copy(said, copying));
    this.#follow(() => answer.append(make("div", { className: "row" },
      make("span", { className: "speed", textContent: clock.told(this.model.plugin) }), copying)));
  }

  #all(messages) {
    const system = $("system").value.trim();
    return system ? [{ role: "system", content: system }, ...messages] : messages;
  }

  #settings() {
    const given = { temperature: $("temperature").valueAsNumber, max_tokens: $("max-tokens").valueAsNumber };
    return Object.fromEntries(Object.entries(given).filter(([, value]) => !Number.isNaN(value)));
  }

  #begin() {
    this.running = new AbortController();
    $("send").hidden = true;
    $("stop").hidden = false;
    return this.running;
  }

  #end() {
    this.running = null;
    $("stop").hidden = true;
    $("send").hidden = false;
  }

  /** Change the log, and stay at its end where its reader is there. */
  #follow(change) {
    const log = $("log");
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    change();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  #fail(message, again) {
    const note = make("div", { className: "wrong", role: "alert" }, message);
    if (again) note.append(" ", button("Try again", again));
    this.#follow(() => $("log").append(note));
  }

  #welcome() {
    const { questions = [], image } = this.example;
    if (!image) return make("div", { className: "welcome", textContent: "Ask something." });
    const attached = [{ kind: "image", name: "example", uri: image }];
    const choices = questions.map((text) => button(text, () => this.#ask({ text, attached })));
    return make("div", { className: "welcome" },
      make("img", { src: image, alt: "The demo's picture" }),
      make("p", { textContent: "Ask about this picture, or bring one of your own." }),
      make("div", { className: "row" }, ...choices));
  }

  #showAttached() {
    $("attached").replaceChildren(...this.attached.map((item) => {
      const remove = button("×", () => {
        this.attached = this.attached.filter((other) => other !== item);
        this.#showAttached();
      });
      remove.setAttribute("aria-label", `Remove ${item.name}`);
      const face = item.kind === "image"
        ? make("img", { src: item.uri, alt: item.name })
        : make("span", { className: "name", textContent: item.name });
      return make("li", {}, face, remove);
    }));
  }

  #grow() {
    const box = $("question");
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + 2}px`;
  }
}

/** How fast an answer came. */
class Clock {
  constructor() {
    this.start = performance.now();
    this.first = this.last = null;
    this.began = this.length = 0; // characters of the first piece, and of all
    this.usage = null;
    this.reason = "";
  }

  note(delta, chunk) {
    const now = performance.now();
    if (delta) {
      if (this.first === null) [this.first, this.began] = [now, delta.length];
      this.last = now;
      this.length += delta.length;
    }
    this.reason = chunk.choices[0]?.finish_reason ?? this.reason;
    this.usage = chunk.usage ?? this.usage;
  }

  /** In a line, with who answered. */
  told(plugin) {
    const facts = [];
    if (this.first !== null) facts.push(`first token after ${seconds(this.first - this.start)}`);
    const tokens = this.usage?.completion_tokens ?? 0;
    // A piece may hold several tokens, the first one too; and what comes almost at once says nothing of speed.
    const took = this.last - this.first;
    const later = tokens * (1 - this.began / this.length);
    if (took >= 50 && tokens) facts.push(`${(later * 1000 / took).toFixed(0)} tokens/s`);
    else if (took > 0 && took < 50) facts.push(`all after ${seconds(this.last - this.start)}`);
    if (this.usage) facts.push(`${this.usage.prompt_tokens} + ${tokens} tokens`);
    if (this.reason === "length") facts.push("cut off: no room for more tokens");
    else if (this.reason && this.reason !== "stop") facts.push(this.reason);
    return [...facts, plugin].join(" · ");
  }
}

const turn = (who, ...children) => make("article", { className: `turn ${who}`, ariaLabel: who === "user" ? "You" : "The model" }, ...children);

const shown = (item) => item.kind === "image"
  ? make("img", { src: item.uri, alt: item.name })
  : make("audio", { src: item.uri, controls: true });

/** A question as the server takes it. */
function content({ text, attached }) {
  if (!attached.length) return text;
  const parts = attached.map(({ kind, uri }) => kind === "image"
    ? { type: "image_url", image_url: { url: uri } }
    : { type: "audio_url", audio_url: { url: uri } });
  return text ? [...parts, { type: "text", text }] : parts;
}
