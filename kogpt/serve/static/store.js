// Conversations and settings in the browser's localStorage.
//
// Every conversation lies under a key of its own, and every change reads the stored conversation, changes what it is
// about, and writes it back at once. Two tabs therefore keep what the other one wrote, in one conversation as well.
//
//   conversation  {id, system, at, turns: [turn]}
//   turn          {id, question, answer, at, end, tokens, rate, dropped}
//                 end: null while it is answered, then "stop", "length", "stopped", or an object {error}
//   settings      {temperature, top_p, max_tokens, seed, theme, key}, each a string; "" where the server decides

const CONVERSATION = "kogpt:conversation:";
const SETTINGS = "kogpt:settings";
export const DEFAULTS = { temperature: "0.7", top_p: "0.9", max_tokens: "", seed: "", theme: "", key: "" };

/** What could not be written, because the storage is full or forbidden: kept until this tab closes. */
const unsaved = new Map();

/** A name that no other conversation or turn has. `crypto.randomUUID` is missing where the page came by plain http. */
export const newId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function get(key) {
  try {
    return JSON.parse(unsaved.get(key) ?? localStorage.getItem(key));
  } catch {
    return null; // no storage, or not ours
  }
}

function put(key, value) {
  const text = JSON.stringify(value);
  try {
    localStorage.setItem(key, text);
    unsaved.delete(key);
  } catch {
    unsaved.set(key, text);
  }
}

function keys() {
  try {
    return [...Object.keys(localStorage), ...unsaved.keys()];
  } catch {
    return [...unsaved.keys()];
  }
}

export const isUnsaved = (id) => unsaved.has(CONVERSATION + id);

/** The stored conversation, or null. */
export const read = (id) => get(CONVERSATION + id);

/** Every conversation, the one that was talked in last first. */
export function all() {
  const names = new Set(keys().filter((key) => key.startsWith(CONVERSATION)));
  const found = [...names].map(get).filter((conversation) => Array.isArray(conversation?.turns));
  return found.sort((a, b) => b.at - a.at);
}

export const titleOf = (conversation) => conversation.turns[0]?.question.trim().slice(0, 60) ?? "";

/** Begin a conversation. It is stored with its first turn. */
export const begin = () => ({ id: newId(), system: "", at: Date.now(), turns: [] });

/** Store a conversation that was not stored before. */
export const keep = (conversation) => put(CONVERSATION + conversation.id, conversation);

/** Change a stored conversation as it is now; null where another tab has deleted it. */
export function change(id, how) {
  const conversation = read(id);
  if (!conversation) return null;
  how(conversation);
  keep(conversation);
  return conversation;
}

/** Change one turn as it is stored now; null where it or its conversation is gone. */
export function changeTurn(id, turnId, what) {
  if (!read(id)?.turns.some((turn) => turn.id === turnId)) return null;
  return change(id, (conversation) =>
    Object.assign(
      conversation.turns.find((turn) => turn.id === turnId),
      what,
    ),
  );
}

export function remove(id) {
  unsaved.delete(CONVERSATION + id);
  try {
    localStorage.removeItem(CONVERSATION + id);
  } catch {
    // no storage, so nothing is stored
  }
}

export const settings = () => ({ ...DEFAULTS, ...get(SETTINGS) });

export const set = (name, value) => put(SETTINGS, { ...settings(), [name]: value });

/** Call `changed(id)` when another tab changes a conversation, and `changed(null)` for anything else. */
export function watch(changed) {
  addEventListener("storage", ({ key }) => changed(key?.startsWith(CONVERSATION) ? key.slice(CONVERSATION.length) : null));
}
