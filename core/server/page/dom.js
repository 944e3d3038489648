// Small helpers. Text from outside only ever becomes text, never markup.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export const button = (text, onclick) => make("button", { type: "button", textContent: text, onclick });

/** A file as a data: URI. */
export function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/** A data: URI as a file. */
export function fromDataUri(uri, name) {
  const [head, data] = uri.split(",");
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  return new File([bytes], name, { type: head.slice(5).split(";")[0] });
}

/** What is copied says so on its button, for a moment. */
export async function copy(text, from) {
  const before = from.textContent;
  try {
    await navigator.clipboard.writeText(text);
    from.textContent = "Copied";
  } catch {
    from.textContent = "Not allowed";
  }
  setTimeout(() => { from.textContent = before; }, 1500);
}

/** Text with its code blocks, `code` and **bold** shown as such. */
export function rich(text) {
  const out = document.createDocumentFragment();
  text.split(/^```.*\n?/m).forEach((part, i) => {
    if (i % 2) out.append(make("pre", {}, make("code", { textContent: part })));
    else part.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).forEach((piece, j) => out.append(j % 2 ? marked(piece) : piece));
  });
  return out;
}

function marked(piece) {
  return piece.startsWith("`")
    ? make("code", { textContent: piece.slice(1, -1) })
    : make("strong", { textContent: piece.slice(2, -2) });
}

/** Text that grows. What has come is shown with the next frame, and more rarely the longer that takes: a long answer must not hold the page. */
export class Growing {
  constructor(show) {
    this.show = show;
    this.text = this.unseen = "";
    this.frame = this.free = 0;
  }

  add(piece) {
    this.text += piece;
    this.unseen += piece;
    if (piece) this.frame ||= requestAnimationFrame((now) => this.#paint(now));
  }

  /** Nothing is shown from here on. */
  end() { cancelAnimationFrame(this.frame); }

  #paint(now) {
    if (now < this.free) {
      this.frame = requestAnimationFrame((later) => this.#paint(later));
      return;
    }
    this.frame = 0;
    this.show(this.unseen);
    this.unseen = "";
    const ended = performance.now();
    this.free = ended + 3 * (ended - now);
  }
}

export const seconds = (ms) => ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
