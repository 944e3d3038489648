// What holds the page together: the key, the models, which of the two views is shown, files that are dropped, colours.

import { Api, ApiError } from "./api.js";
import { Chat } from "./chat.js";
import { $, make } from "./dom.js";
import { Speech } from "./speech.js";

const api = new Api();
const chat = new Chat(api);
const speech = new Speech(api, complain);
const VIEWS = { chat: { of: chat, can: "chats", main: $("chat"), tab: $("to-chat") },
                speech: { of: speech, can: "transcribes", main: $("speech"), tab: $("to-speech") } };
let models = [];
let view = VIEWS.chat;

function complain(message) {
  $("notice").textContent = message;
  $("notice").hidden = !message;
}

/** Run something that calls the server; ask for a key where it asks for one. */
async function attempt(work) {
  try {
    await work();
  } catch (error) {
    if (error.status === 401) askForKey(api.key ? "This key is not one of them." : "");
    else complain(error instanceof ApiError ? error.told : String(error));
  }
}

// ---- the key

function askForKey(problem) {
  $("key-problem").textContent = problem;
  $("key").value = "";
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

$("key-dialog").oncancel = (event) => event.preventDefault(); // without a key there is nothing to see
$("key-dialog").onsubmit = (event) => {
  event.preventDefault();
  api.key = $("key").value.trim();
  $("key-dialog").close();
  attempt(start);
};

// ---- models and views

async function start() {
  models = await api.models();
  $("model").replaceChildren(...models.map(({ id }) => make("option", { value: id, textContent: id })));
  if (!models.length) complain("This server serves no model.");
  else await choose(models[0]);
}

async function choose(model) {
  complain("");
  for (const { main } of Object.values(VIEWS)) main.hidden = true;
  $("about").textContent = `${model.architecture} by ${model.plugin} · ${model.dtype} on ${model.device} · ${model.max_model_len} tokens · ${model.modalities.join(", ")}`;
  document.title = `${model.id} · engine`;
  const about = await api.about(model.id);
  const able = Object.values(VIEWS).filter(({ can }) => about[can]);
  for (const { of } of able) of.show(model, about.example);
  $("tasks").hidden = able.length < 2;
  if (able.length) show(able.includes(view) ? view : able[0]);
  else if (model.tasks.includes("generate")) complain(`${model.id} has no chat template: engine serve --chat-template gives it one. POST /v1/completions continues texts.`);
  else complain(`${model.id} is for ${model.tasks.join(", ")}, which this page has no view for: see /v1/models.`);
}

function show(next) {
  view = next;
  for (const { main, tab } of Object.values(VIEWS)) {
    main.hidden = main !== next.main;
    tab.setAttribute("aria-pressed", String(main === next.main));
  }
  if (next === VIEWS.chat) $("question").focus();
}

$("model").onchange = () => attempt(() => choose(models.find(({ id }) => id === $("model").value)));
for (const each of Object.values(VIEWS)) each.tab.onclick = () => show(each);

// ---- files from anywhere, and Esc

const brings = (event) => view.of.model && event.dataTransfer?.types.includes("Files");

document.addEventListener("dragover", (event) => {
  if (!brings(event)) return;
  event.preventDefault();
  $("drop").firstElementChild.textContent = view === VIEWS.chat ? "Drop it, and ask about it" : "Drop it, to have it written down";
  $("drop").hidden = false;
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
document.addEventListener("drop", (event) => {
  $("drop").hidden = true;
  if (!brings(event)) return;
  event.preventDefault();
  view.of.attach([...event.dataTransfer.files]);
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") view.of.stop(); });

// ---- colours: as the system has them until somebody chooses

const THEMES = ["light dark", "light", "dark"];
let theme = localStorage.getItem("engine-theme") ?? THEMES[0];
const paint = () => { document.documentElement.style.colorScheme = theme; };
$("theme").onclick = () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  localStorage.setItem("engine-theme", theme);
  paint();
};
paint();

attempt(start);
