// Speaks to the server in OpenAI's form.
//
// What the page needs of the server, besides these files at "/":
//   GET  /health               200 once it can answer, 503 with {status: "starting" or "failed"} otherwise
//   GET  /v1/models            data[0].id; data[0].kind is "conversations" where the model was taught to answer;
//                              401 where a key is needed
//   POST /v1/chat/completions  streamed (server-sent events); 429 with Retry-After where it is busy
//   POST /v1/completions       the same, for a model that only continues texts
// Answers arrive as whole characters. Closing the connection stops an answer.

/** The server has no place free; try again in `seconds`. */
export class Busy extends Error {
  constructor(seconds) {
    super("busy");
    this.seconds = seconds;
  }
}

/** The server refused the request; the message is its own. `status` is that of the response. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The server is not there, or the connection to it broke. */
export class Lost extends Error {}

function headers(key) {
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function ask(path, options) {
  try {
    return await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Lost();
  }
}

/** {state: "ready", id, base} or {state: "starting" | "failed" | "gone" | "keyNeeded"}. */
export async function look(key) {
  try {
    const signal = AbortSignal.timeout(5000);
    const health = await ask("health", { signal });
    if (!health.ok) return { state: (await health.json()).status === "failed" ? "failed" : "starting" };
    const response = await ask("v1/models", { headers: headers(key), signal });
    if (response.status === 401) return { state: "keyNeeded" };
    const [model] = (await response.json()).data;
    return { state: "ready", id: model.id, base: (model.kind ?? "conversations") !== "conversations" };
  } catch {
    return { state: "gone" };
  }
}

/** The data of each server-sent event of a response, as it arrives. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : new Lost();
    }
    if (part.done) return;
    waiting += part.value.replaceAll("\r", "");
    const blocks = waiting.split("\n\n");
    waiting = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:"));
      if (data.length) yield data.map((line) => line.slice(5).trimStart()).join("\n");
    }
  }
}

/**
 * Ask for an answer. `onText(piece)` is called with each piece of it.
 *
 * @param {{model: string, messages?: object[], prompt?: string}} request
 * @param {Record<string, string>} settings  as the store keeps them
 * @returns {Promise<{end: string, tokens?: number, dropped?: number}>}  end: "stop" or "length"; dropped: turns at the
 *   beginning of the conversation that the model did not read, because they do not fit into its context
 * @throws {Busy | Refused | Lost | DOMException}  the last with the name AbortError, where `signal` stopped it
 */
export async function answer(request, settings, signal, onText) {
  const body = { ...request, stream: true, stream_options: { include_usage: true } };
  for (const name of ["temperature", "top_p", "max_tokens", "seed"]) {
    if (settings[name] !== "") body[name] = Number(settings[name]);
  }
  const path = request.messages ? "v1/chat/completions" : "v1/completions";
  const options = { method: "POST", headers: headers(settings.key), body: JSON.stringify(body), signal };
  const response = await ask(path, options);
  if (response.status === 429) throw new Busy(Number(response.headers.get("Retry-After")) || 2);
  if (!response.ok) {
    const message = await response.json().then((content) => content.error.message, () => `HTTP ${response.status}`);
    throw new Refused(message, response.status);
  }
  const result = { end: null };
  for await (const data of events(response)) {
    if (data === "[DONE]") return { ...result, end: result.end ?? "stop" };
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refused(chunk.error.message);
    const choice = chunk.choices?.[0];
    const text = choice?.delta?.content ?? choice?.text;
    if (text) onText(text);
    if (choice?.finish_reason) result.end = choice.finish_reason;
    if (chunk.dropped_turns) result.dropped = chunk.dropped_turns;
    if (chunk.usage) result.tokens = chunk.usage.completion_tokens;
  }
  throw new Lost(); // it ended without [DONE]
}
