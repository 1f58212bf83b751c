// The page: which conversation is shown, what the buttons and keys do, and how the server is.

import * as chat from "./chat.js";
import { look } from "./client.js";
import * as store from "./store.js";
import { drawList, drawNotice, drawState, drawTurns } from "./view.js";
import { fill, language, words } from "./words.js";

const byId = (id) => document.getElementById(id);
const [question, scroll, settings, side] = ["question", "scroll", "settings", "side"].map(byId);
const CALM = 10_000; // milliseconds between two looks at a server that is well
const ANXIOUS = 2_000;

let current = store.begin(); // the conversation that is shown
let model = null; // {id, base} once the server said so
let state = "connecting";
let editing = null; // the id of the turn whose question is being edited
let later = null;

// ---- what is shown

/** Show the conversation as it is stored now; one without turns is not stored. */
function draw() {
  const atBottom = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  const answer = chat.running.get(current.id);
  current = store.read(current.id) ?? (current.turns.length ? store.begin() : current);
  drawTurns(current, Boolean(model?.base), { retry, edit });
  const answering = Boolean(answer);
  byId("send").hidden = answering;
  byId("halt").hidden = !answering;
  byId("send").disabled = state !== "ready" || !question.value.trim();
  drawState(answering && state === "ready" ? "writing" : state === "ready" && model.base ? "base" : state, model);
  byId("editing").hidden = editing === null;
  drawNotice(notice());
  for (const button of byId("examples").children) button.disabled = state !== "ready";
  question.placeholder = model?.base ? words.basePlaceholder : words.placeholder;
  if (atBottom) scroll.scrollTop = scroll.scrollHeight;
  const last = current.turns.at(-1);
  clearTimeout(later);
  if (last && !answering && chat.elsewhere(last)) later = setTimeout(draw, 1000); // the other tab may have left it
}

function drawAll() {
  const actions = { open, remove };
  drawList(store.all(), current.id, actions);
  draw();
}

function notice() {
  const command = "kogpt serve RUN";
  if (store.isUnsaved(current.id)) return { title: words.full, text: "" };
  if (state === "gone" || state === "failed") {
    const [title, text] = words[`${state}More`];
    return { title, text, commands: [command] };
  }
  if (state === "keyNeeded") {
    const [title, text] = words.keyMore2;
    return { title, text, button: words.enterKey, action: () => openSettings("key") };
  }
  if (state === "ready" && model.base) {
    const commands = ["deepspeed launch/train.py --corpus CHAT --init RUN --out CHAT_RUN", "kogpt serve CHAT_RUN"];
    return { title: words.baseMore[0], text: words.baseMore[1], commands };
  }
  return null;
}

/** Show another conversation; a new one for null. */
function open(id) {
  current = (id && store.read(id)) || store.begin();
  stopEditing();
  history.replaceState(null, "", current.turns.length ? `#${current.id}` : location.pathname);
  closeSide();
  drawAll();
  scroll.scrollTop = scroll.scrollHeight;
  question.focus();
}

function remove(conversation) {
  if (!confirm(words.reallyRemove(store.titleOf(conversation)))) return;
  chat.running.get(conversation.id)?.stop();
  store.remove(conversation.id);
  if (conversation.id === current.id) open(null);
  else drawAll();
}

// ---- questions

function changed(id) {
  if (id !== current.id) return void drawList(store.all(), current.id, { open, remove });
  draw();
}

async function ask(text, instead = null) {
  if (state !== "ready" || chat.running.has(current.id)) return;
  const { id } = current;
  history.replaceState(null, "", `#${id}`);
  scroll.scrollTop = scroll.scrollHeight;
  byId("announce").textContent = words.writing;
  const answered = chat.ask(current, text, model, changed, instead);
  drawAll();
  scroll.scrollTop = scroll.scrollHeight;
  await answered;
  drawAll();
  const turn = store.read(id)?.turns.at(-1);
  if (id === current.id) byId("announce").textContent = turn?.answer ?? "";
  if (turn?.end?.error === "lost") watchServer();
}

function send() {
  const text = question.value.trim();
  if (!text || state !== "ready" || chat.running.has(current.id)) return;
  const instead = editing;
  question.value = "";
  stopEditing();
  resize();
  ask(text, instead);
}

function retry(turnId) {
  const turn = current.turns.find(({ id }) => id === turnId);
  if (turn) ask(turn.question, turn.id);
}

function edit(turnId) {
  const turn = current.turns.find(({ id }) => id === turnId);
  if (!turn) return;
  editing = turnId;
  question.value = turn.question;
  resize();
  draw();
  question.focus();
}

function stopEditing() {
  if (editing !== null) question.value = "";
  editing = null;
  resize();
}

function resize() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

// ---- keys and buttons

question.addEventListener("input", () => {
  resize();
  byId("send").disabled = state !== "ready" || !question.value.trim();
});
question.addEventListener("keydown", (event) => {
  if (event.isComposing || event.keyCode === 229) return; // a syllable is being composed: its Enter ends it
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    send();
  } else if (event.key === "ArrowUp" && !question.value && current.turns.length && !chat.running.has(current.id)) {
    event.preventDefault();
    edit(current.turns.at(-1).id);
  }
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || settings.open) return;
  if (document.body.classList.contains("side-open")) closeSide();
  else if (chat.running.has(current.id)) chat.running.get(current.id).stop();
  else if (editing !== null) cancelEdit();
});

function cancelEdit() {
  stopEditing();
  draw();
  question.focus();
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
byId("halt").addEventListener("click", () => {
  chat.running.get(current.id)?.stop();
  question.focus();
});
byId("cancel-edit").addEventListener("click", cancelEdit);
byId("new").addEventListener("click", () => open(null));

const phone = matchMedia("(max-width: 52rem)");

function openSide() {
  document.body.classList.add("side-open");
  layOut();
  byId("close-side").focus();
}

function closeSide() {
  if (!document.body.classList.contains("side-open")) return;
  document.body.classList.remove("side-open");
  layOut();
  byId("open-side").focus();
}

/** On a phone the list lies over the conversation: only one of the two can be reached. */
function layOut() {
  const isOpen = document.body.classList.contains("side-open") && phone.matches;
  side.inert = phone.matches && !isOpen;
  document.querySelector("main").inert = isOpen;
  byId("shade").hidden = !isOpen;
  byId("open-side").setAttribute("aria-expanded", isOpen);
}
byId("open-side").addEventListener("click", openSide);
byId("close-side").addEventListener("click", closeSide);
byId("shade").addEventListener("click", closeSide);
phone.addEventListener("change", layOut);

// ---- settings

function openSettings(focused = "system") {
  const values = store.settings();
  for (const input of settings.querySelectorAll("[name]")) input.value = values[input.name];
  byId("system").value = current.system;
  byId("key").value = values.key;
  byId("key-field").hidden = state !== "keyNeeded" && !values.key;
  settings.showModal();
  byId(focused).focus();
}

settings.addEventListener("change", ({ target }) => {
  if (target === byId("system")) {
    current.system = target.value;
    store.change(current.id, (conversation) => (conversation.system = target.value));
  } else if (target === byId("key")) {
    store.set("key", target.value.trim());
    watchServer();
  } else if (target.checkValidity()) {
    store.set(target.name, target.value);
    showTheme();
  }
});
settings.addEventListener("close", () => question.focus());
byId("defaults").addEventListener("click", () => {
  for (const input of settings.querySelectorAll("[name]")) {
    input.value = store.DEFAULTS[input.name];
    store.set(input.name, input.value);
  }
  showTheme();
});
byId("open-settings").addEventListener("click", () => openSettings());

function showTheme() {
  document.documentElement.dataset.theme = store.settings().theme;
}

// ---- the server

let timer = null;

/** Look how the server is, now and from time to time while the page can be seen. */
async function watchServer() {
  clearTimeout(timer);
  const found = await look(store.settings().key);
  const before = state;
  state = found.state;
  if (state === "ready") model = found;
  if (state !== before || state === "ready") draw();
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(watchServer, state === "ready" ? CALM : ANXIOUS);
}
document.addEventListener("visibilitychange", () => document.hidden || watchServer());

// ---- begin

document.documentElement.lang = language;
fill(document);
question.setAttribute("aria-label", words.question);
for (const example of words.examples) {
  const button = document.createElement("button");
  button.textContent = example;
  button.lang = "ko";
  button.addEventListener("click", () => ask(example));
  byId("examples").append(button);
}
store.watch(drawAll);
addEventListener("pagehide", chat.leave);
addEventListener("hashchange", () => location.hash.slice(1) !== current.id && open(location.hash.slice(1)));
showTheme();
layOut();
open(location.hash.slice(1));
watchServer();
