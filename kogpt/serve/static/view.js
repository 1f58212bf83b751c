// Draws conversations. Everything that people or models wrote becomes text nodes, never HTML.

import { elsewhere, running } from "./chat.js";
import { titleOf } from "./store.js";
import { fill, words } from "./words.js";

const byId = (id) => document.getElementById(id);

function copyOf(template) {
  const node = byId(template).content.firstElementChild.cloneNode(true);
  fill(node);
  return node;
}

/** Put `text` into an element. What it holds already stays selected if the text only grew. */
function write(element, text) {
  const old = element.textContent;
  if (text === old) return;
  if (element.firstChild && text.startsWith(old)) element.firstChild.appendData(text.slice(old.length));
  else element.textContent = text;
}

const drawn = {};

/** Whether an element has to be drawn anew: buttons that stay keep the focus, and the click that has begun. */
function isNew(id, what) {
  const text = JSON.stringify(what);
  const differs = drawn[id] !== text;
  drawn[id] = text;
  return differs;
}

function noteOf(turn, answer) {
  if (answer) return answer.busy ? words.busy(answer.busy) : "";
  const { end, tokens, rate, dropped } = turn;
  const speed = rate ? words.speed(tokens, rate.toFixed(rate < 10 ? 1 : 0)) : "";
  const why = { length: words.cut, stopped: words.stopped }[end] ?? "";
  if (end === null) return elsewhere(turn) ? "" : words.broken;
  if (end.error) return end.error === "lost" ? words.lost : words.refused(end.message);
  return [speed, why, dropped ? words.dropped(dropped) : ""].filter(Boolean).join(" · ");
}

function drawTurn(item, turn, last, answer, base) {
  const waiting = Boolean(answer) || elsewhere(turn);
  write(item.querySelector(".question .text"), turn.question);
  const reply = item.querySelector(".answer");
  write(reply.querySelector(".text"), answer ? answer.text : turn.answer);
  write(reply.querySelector(".note"), noteOf(turn, answer));
  reply.classList.toggle("waiting", waiting);
  reply.classList.toggle("failed", Boolean(turn.end?.error));
  reply.setAttribute("aria-busy", waiting);
  item.classList.toggle("base", base);
  for (const button of item.querySelectorAll(".retry, .edit")) button.hidden = !last || waiting;
}

/** Show the turns of a conversation. `actions` are {retry(turn), edit(turn)}. */
export function drawTurns(conversation, base, actions) {
  const list = byId("turns");
  const { turns } = conversation;
  const wanted = new Set(turns.map((turn) => turn.id));
  const items = new Map();
  for (const item of [...list.children]) {
    if (wanted.has(item.dataset.id)) items.set(item.dataset.id, item);
    else item.remove();
  }
  const answer = running.get(conversation.id);
  turns.forEach((turn, place) => {
    let item = items.get(turn.id);
    if (!item) {
      item = copyOf("turn");
      item.dataset.id = turn.id;
      item.querySelector(".retry").addEventListener("click", () => actions.retry(turn.id));
      item.querySelector(".edit").addEventListener("click", () => actions.edit(turn.id));
    }
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
    drawTurn(item, turn, place === turns.length - 1, answer?.turn === turn.id ? answer : null, base);
  });
  byId("welcome").hidden = turns.length > 0 || base;
}

/** Show the list of conversations. `actions` are {open(id), remove(conversation)}. */
export function drawList(conversations, current, actions) {
  const shown = conversations.map((one) => [one.id, titleOf(one), one.id === current, running.has(one.id)]);
  if (!isNew("list", shown)) return;
  const items = conversations.map((conversation) => {
    const item = copyOf("entry");
    const open = item.querySelector(".open");
    const title = titleOf(conversation) || words.untitled;
    open.textContent = title;
    open.title = title;
    if (conversation.id === current) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => actions.open(conversation.id));
    const remove = item.querySelector(".delete");
    remove.setAttribute("aria-label", words.remove(title));
    remove.addEventListener("click", () => actions.remove(conversation));
    item.classList.toggle("running", running.has(conversation.id));
    return item;
  });
  byId("list").replaceChildren(...items);
}

/** Show what is wrong, with a command to type and a button where they help; nothing for null. */
export function drawNotice(notice) {
  if (!isNew("notice", notice)) return;
  const section = byId("notice");
  section.hidden = !notice;
  section.replaceChildren();
  if (!notice) return;
  const add = (tag, text) => section.appendChild(Object.assign(document.createElement(tag), { textContent: text }));
  add("strong", notice.title);
  add("p", notice.text);
  for (const command of notice.commands ?? []) add("code", command);
  if (notice.button) {
    const button = add("button", notice.button);
    button.className = "solid";
    button.addEventListener("click", notice.action);
  }
}

/** Show the state of the server in the header. */
export function drawState(state, model) {
  const element = byId("state");
  element.dataset.state = state;
  write(element.firstElementChild, words[state]);
  write(byId("model"), model?.id ?? "kogpt");
  document.title = model ? `${model.id} · kogpt` : "kogpt";
}
