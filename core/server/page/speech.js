// Speech to text: a clip from a file, the demo or the microphone, and what is said in it.

import { ApiError, events } from "./api.js";
import { $, button, copy, fromDataUri, make, seconds } from "./dom.js";
import { Recorder } from "./recorder.js";

const SUFFIX = { srt: "srt", vtt: "vtt" };

export class Speech {
  constructor(api, complain) {
    this.api = api;
    this.complain = complain;
    this.model = null;
    this.clip = null;
    this.running = null;
    this.recorder = null;
    $("choose").onclick = () => $("speech-file").click();
    $("speech-file").onchange = () => { this.attach([...$("speech-file").files]); $("speech-file").value = ""; };
    $("record").onclick = () => this.#record();
    $("options").onsubmit = (event) => { event.preventDefault(); this.#transcribe(); };
    $("speech-stop").onclick = () => this.stop();
    $("copy").onclick = () => copy($("written").innerText, $("copy"));
  }

  /** Transcribe with this model. */
  show(model, example) {
    this.stop();
    this.model = model;
    $("speech-example").hidden = !example.audio;
    $("speech-example").onclick = () => this.attach([fromDataUri(example.audio, "example")]);
  }

  stop() { this.running?.abort(); }

  /** Take the first of these files. */
  attach([file]) {
    if (!file) return;
    this.complain("");
    this.clip = file;
    if ($("player").src) URL.revokeObjectURL($("player").src);
    $("player").src = URL.createObjectURL(file);
    $("clip-name").textContent = `${file.name}, ${(file.size / 1024).toFixed(0)} KiB`;
    $("clip").hidden = false;
    $("result").hidden = true;
    $("write").disabled = false;
    $("write").focus();
  }

  async #record() {
    try {
      if (this.recorder) {
        const recorder = this.recorder;
        this.recorder = null;
        this.#showRecording();
        this.attach([await recorder.stop()]);
      } else {
        this.recorder = await Recorder.start();
        this.#showRecording();
      }
    } catch (error) {
      this.recorder = null;
      this.#showRecording();
      this.complain(`The microphone cannot be used: ${error.message}`);
    }
  }

  #showRecording() {
    const on = this.recorder !== null;
    $("record").setAttribute("aria-pressed", String(on));
    $("record").textContent = on ? "End recording" : "Record";
  }

  async #transcribe() {
    if (this.running || !this.clip) return;
    this.complain("");
    const form = $("form").value;
    const running = this.running = new AbortController();
    $("write").hidden = true;
    $("speech-stop").hidden = false;
    $("result").hidden = false;
    $("written").replaceChildren();
    $("speech-speed").textContent = "…";
    const start = performance.now();
    try {
      const reply = await this.api.transcribe(this.#form(form), $("translate").checked ? "translations" : "transcriptions", running.signal);
      const text = await this.#write(reply, form);
      this.#finish(text, form, performance.now() - start);
    } catch (error) {
      if (error.name === "AbortError") $("speech-speed").textContent = "stopped";
      else {
        $("result").hidden = true;
        this.complain(error instanceof ApiError ? error.told : String(error));
      }
    } finally {
      this.running = null;
      $("write").hidden = false;
      $("speech-stop").hidden = true;
    }
  }

  #form(form) {
    const out = new FormData();
    const timed = form === "segment" || form === "word";
    const streams = form === "stream" && !$("translate").checked;
    const fields = {
      model: this.model.id,
      language: $("language").value.trim(),
      response_format: form === "stream" ? "json" : timed ? "verbose_json" : form,
      ...(streams ? { stream: "true" } : {}),
      ...(timed && !$("translate").checked ? { "timestamp_granularities[]": form } : {}),
    };
    out.set("file", this.clip, this.clip.name);
    for (const [name, value] of Object.entries(fields)) if (value) out.set(name, value);
    return out;
  }

  /** Show what comes; the whole text. */
  async #write(reply, form) {
    const type = reply.headers.get("content-type") ?? "";
    if (type.startsWith("text/event-stream")) {
      let text = "";
      for await (const event of events(reply)) {
        if (event.type === "transcript.text.delta") $("written").append(event.delta);
        if (event.type === "transcript.text.done") text = event.text;
      }
      $("written").textContent = text;
      return text;
    }
    if (form in SUFFIX) {
      const text = await reply.text();
      $("written").textContent = text;
      return text;
    }
    const made = await reply.json();
    const pieces = (form === "word" && made.words) || (form !== "stream" && made.segments) || [];
    if (pieces.length) $("written").append(make("ol", {}, ...pieces.map((piece) => this.#piece(piece))));
    else $("written").textContent = made.text;
    return made.text;
  }

  /** A piece of the text, and a button that plays it. */
  #piece({ start, text, word }) {
    const play = button(clock(start), () => { $("player").currentTime = start; $("player").play(); });
    play.setAttribute("aria-label", `Play from ${clock(start)}`);
    return make("li", {}, play, make("span", { textContent: (text ?? word).trim() }));
  }

  #finish(text, form, took) {
    const length = $("player").duration;
    const rate = Number.isFinite(length) && length ? ` for ${length.toFixed(1)} s of sound: ${(length * 1000 / took).toFixed(1)} times as fast as it is spoken` : "";
    $("speech-speed").textContent = `${seconds(took)}${rate} · ${this.model.plugin}`;
    const save = $("save");
    if (save.href) URL.revokeObjectURL(save.href);
    save.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    save.download = `${this.clip.name.replace(/\.[^.]*$/, "")}.${SUFFIX[form] ?? "txt"}`;
  }
}

/** 75.5 → 1:15.5 */
const clock = (time) => `${Math.floor(time / 60)}:${(time % 60).toFixed(1).padStart(4, "0")}`;
