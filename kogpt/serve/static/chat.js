// Questions and their answers: asks the server, and keeps what comes in the store.
// An answer goes on while another conversation is shown. `running` says which conversations are being answered.

import * as client from "./client.js";
import * as store from "./store.js";

const CONTINUATION = 100; // tokens of a text that is continued, if the settings do not say; the server's own is 16
const BEAT = 1000; // milliseconds between two savings of an answer that is being written

/** Conversation id -> {turn, text, busy, stop()} of the answer that this tab is receiving. */
export const running = new Map();

/** Whether a turn that has no end yet is being answered by another tab: that one saves it at every beat. */
export const elsewhere = (turn) => turn.end === null && Date.now() - turn.at < 3 * BEAT;

function messages(conversation, turn) {
  const before = conversation.turns.slice(0, conversation.turns.indexOf(turn)).filter((earlier) => earlier.answer);
  return [
    ...(conversation.system.trim() ? [{ role: "system", content: conversation.system }] : []),
    ...before.flatMap(({ question, answer }) => [
      { role: "user", content: question },
      { role: "assistant", content: answer },
    ]),
    { role: "user", content: turn.question },
  ];
}

/**
 * Append a question to a conversation, in the place of the turn `instead` where one is given, and get its answer.
 *
 * @param {object} conversation  stored, or new
 * @param {{id: string, base: boolean}} model
 * @param {(id: string) => void} changed  called whenever there is something new to show
 */
export async function ask(conversation, question, model, changed, instead = null) {
  const { id } = conversation;
  const turn = { id: store.newId(), question, answer: "", at: Date.now(), end: null };
  if (!store.read(id)) store.keep(conversation);
  const stored = store.change(id, (now) => {
    now.turns = [...now.turns.filter((earlier) => earlier.id !== instead), turn];
    now.at = Date.now();
  });
  const request = model.base
    ? { model: model.id, prompt: question, max_tokens: CONTINUATION }
    : { model: model.id, messages: messages(stored, stored.turns.at(-1)) };
  const controller = new AbortController();
  const answer = { turn: turn.id, text: "", busy: 0, stop: () => controller.abort() };
  running.set(id, answer);
  const save = (more) => {
    if (!store.changeTurn(id, turn.id, { answer: answer.text, at: Date.now(), ...more })) controller.abort();
  };
  const beat = setInterval(save, BEAT);
  const end = await receive(request, answer, controller.signal, () => changed(id));
  clearInterval(beat);
  running.delete(id);
  save(end);
  changed(id);
}

/** The end of the turn: {end, tokens, rate, dropped}. Waits and asks again as long as the server is busy. */
async function receive(request, answer, signal, changed) {
  const onText = (piece) => {
    answer.text += piece;
    changed();
  };
  for (;;) {
    try {
      changed();
      const sent = performance.now();
      const { end, tokens, dropped } = await client.answer(request, store.settings(), signal, onText);
      return { end, tokens, dropped, rate: tokens ? (1000 * tokens) / (performance.now() - sent) : null };
    } catch (error) {
      if (signal.aborted) return { end: "stopped" };
      if (error instanceof client.Busy) await countDown(error.seconds, answer, signal, changed);
      else if (error instanceof client.Lost) return { end: { error: "lost" } };
      else return { end: { error: "refused", message: error.message } };
    }
  }
}

async function countDown(seconds, answer, signal, changed) {
  for (answer.busy = Math.ceil(seconds); answer.busy > 0 && !signal.aborted; answer.busy--) {
    changed();
    await new Promise((done) => {
      setTimeout(done, 1000);
      signal.addEventListener("abort", done, { once: true });
    });
  }
  answer.busy = 0;
}

/** Save every answer that is being received as stopped: the page is about to go away. */
export function leave() {
  for (const [id, { turn, text }] of running) store.changeTurn(id, turn, { answer: text, end: "stopped" });
}
